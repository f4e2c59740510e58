# SPDX-License-Identifier: Apache-2.0
"""A throw-away virtual machine with Debian's own kernel: real iSCSI, multipath, NVMe/TCP, dm-crypt on any machine.

No image: its root is this machine's, read-only over 9p, under an overlay in its memory. What apt and pip installed
here is there; what it does is gone when it ends. TCG, so no /dev/kvm; no network but its own loopback.
"""
