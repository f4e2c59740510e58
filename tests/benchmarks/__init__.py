# SPDX-License-Identifier: Apache-2.0
"""tools/bench: CPU per item beside the bare library in the same run."""
