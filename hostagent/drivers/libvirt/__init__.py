# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver. The only folder that imports libvirt."""
