# SPDX-License-Identifier: Apache-2.0
"""The built-in HTTP server. Knows bridge.core only."""
