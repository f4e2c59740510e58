# SPDX-License-Identifier: Apache-2.0
"""tools/conformance: recorded answers of a real Nova beside those of the running API."""
