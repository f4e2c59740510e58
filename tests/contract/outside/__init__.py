# SPDX-License-Identifier: Apache-2.0
"""A driver package as somebody else would write one. test_outside.py installs a copy outside the tree."""
