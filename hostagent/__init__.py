# SPDX-License-Identifier: Apache-2.0
"""The host agent: grows guests' disks to their volumes' sizes on one hypervisor, and never shrinks a disk."""
