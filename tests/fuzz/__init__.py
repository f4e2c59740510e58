# SPDX-License-Identifier: Apache-2.0
"""Mutated real notifications through the listener's parser, by the million."""
