# SPDX-License-Identifier: Apache-2.0
"""Vendors' block devices whose os-brick connector needs nothing of ours. Not proved on real storage."""

from hostagent.devices.connected import ConnectedStrategy
from hostagent.ports import Brick


def vendor_strategy(brick: Brick) -> ConnectedStrategy:
    """As Nova's drivers of the same names."""
    return ConnectedStrategy(brick, "vendor", {"scaleio": "SCALEIO", "storpool": "STORPOOL", "lightos": "LIGHTOS"})
