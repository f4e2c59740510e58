# SPDX-License-Identifier: Apache-2.0
"""The host agent: brings a guest's disk up to its volume's size on one hypervisor, never down."""
