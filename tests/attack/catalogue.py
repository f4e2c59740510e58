# SPDX-License-Identifier: Apache-2.0
"""Every attack and every ground of tools/attack, in the order in which they run."""

from collections.abc import Mapping, Sequence

from tests.attack import browsers, bus_ground, forwarded, guessers, liars, slow, upstream
from tests.attack import grounds as api_grounds
from tests.attack.frame import Attack, Open


def attacks() -> Sequence[Attack]:
    """Return every attack of the table."""
    return (
        *slow.ATTACKS,
        *forwarded.ATTACKS,
        *guessers.ATTACKS,
        *browsers.ATTACKS,
        *liars.ATTACKS,
        *upstream.ATTACKS,
    )


def grounds() -> Mapping[str, Open]:
    """Return all grounds by name."""
    return {
        "basic": api_grounds.basic,
        "keystone": api_grounds.keystone,
        "noauth": api_grounds.noauth,
        "bus": bus_ground.bus,
    }
