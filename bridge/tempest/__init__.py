# SPDX-License-Identifier: Apache-2.0
"""A Tempest plugin: extend an attached volume, then read the new size on the host and in the guest's console."""
