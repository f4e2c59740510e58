# SPDX-License-Identifier: Apache-2.0
"""Strategies by which the host learns that a volume has grown, one per kind of volume, chosen in one place."""

from collections.abc import Mapping, Sequence
from typing import Any

from hostagent.devices.base import Strategy
from hostagent.devices.block import LocalStrategy, NvmeStrategy, ScsiStrategy, vendor_strategy
from hostagent.devices.image import FileStrategy
from hostagent.domain import Disk
from hostagent.ports import Brick


def all_strategies(brick: Brick) -> tuple[Strategy, ...]:
    """Return the strategies of this release, the most particular first."""
    return (ScsiStrategy(brick), NvmeStrategy(brick), vendor_strategy(brick), LocalStrategy(brick), FileStrategy())


def choose(strategies: Sequence[Strategy], disk: Disk, connection: Mapping[str, Any] | None) -> Strategy | None:
    """Return the first strategy for the disk, None where the disk cannot be extended on this host."""
    return next((strategy for strategy in strategies if strategy.takes(disk, connection)), None)
