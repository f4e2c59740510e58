# SPDX-License-Identifier: Apache-2.0
"""The driver of plain QEMU: each guest by the QMP socket of its own QEMU, without a daemon."""
