# SPDX-License-Identifier: Apache-2.0
"""The part of tools/lastmile that runs inside the VM."""
