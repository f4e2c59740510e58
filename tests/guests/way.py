# SPDX-License-Identifier: Apache-2.0
"""A way in which a guest can be when its volumes grow, and how it ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.guests.lab import GuestLab


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How a way ended. `since`: when the guest was back, on the monotonic clock; `booted`: since its disks grew.

    `silent`: no event was sent, so a disk that only QEMU makes larger stays as it is.
    """

    since: float
    booted: bool = False
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """`short`: part of the short form."""

    name: str
    about: str
    play: Callable[[GuestLab], Played]
    short: bool = False


def now(**more: bool) -> Played:
    """Return that the guest is back at this moment."""
    return Played(since=time.monotonic(), **more)
