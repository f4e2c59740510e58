# SPDX-License-Identifier: Apache-2.0
"""Hypervisor drivers, one folder each."""
