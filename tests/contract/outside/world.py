# SPDX-License-Identifier: Apache-2.0
"""A hypervisor in memory. MEMORY_DRIVER_BREAKS names the promise to break."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LIMIT = 0.5


def breaks(*promises: str) -> bool:
    """Return whether one of these promises is to be broken now."""
    return os.environ.get("MEMORY_DRIVER_BREAKS", "") in promises


class SilentError(Exception):
    """A frozen guest, past the limit."""


@dataclass
class MemoryDisk:
    """A disk; `seen`: the sizes its guest has noticed."""

    volume_id: str
    target: str
    size: int
    seen: list[int] = field(default_factory=list)


@dataclass
class MemoryGuest:
    """A guest that runs."""

    server_id: str
    disks: list[MemoryDisk]
    run: str = field(default_factory=lambda: "1" if breaks("one_run") else uuid.uuid4().hex)
    frozen: bool = False
    answer: bytes | None = None
    agent: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the guest for one call; raises SilentError where it is frozen."""
        deadline = time.monotonic() + (60 if breaks("hangs") else LIMIT)
        while self.frozen:
            if time.monotonic() > deadline:
                raise SilentError
            time.sleep(0.01)
        with self.lock:
            yield


class World:
    """All guests, and who hears of them."""

    def __init__(self) -> None:
        self.guests: dict[str, MemoryGuest] = {}
        self.gone: list[str] = []
        self.listeners: list[Any] = []

    def tell(self, call: Callable[[Any], None]) -> None:
        """Tell everybody of an event."""
        for listener in self.listeners:
            call(listener)


WORLD = World()
