# SPDX-License-Identifier: Apache-2.0
"""Disk layouts that a tenant may have, grown by etc/guest/extend-bridge-grow on Debian's kernel in a VM."""
