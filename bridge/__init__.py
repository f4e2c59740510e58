# SPDX-License-Identifier: Apache-2.0
"""Extend Bridge: a guest never stays behind its volume."""

VERSION = "0.1.0"
