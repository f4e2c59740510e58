# SPDX-License-Identifier: Apache-2.0
"""Guests with a stock kernel that are told of their disks' sizes, whatever happens to them meanwhile."""
