# SPDX-License-Identifier: Apache-2.0
"""The invariants of gray faults, in which a second that breaks one is blind.

The oldest due thing never stands still for 30 s in which every part reads ready. No process reads ready for more
than 30 s while nothing at all gets through one of its links, due work or not. Looked at from outside, as an
operator's monitoring does: readiness over HTTP, sizes in the ledgers.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.ledger import DiskId

PATIENCE: Final = 30.0
"""Seconds the oldest due thing may stand still before somebody has to say why."""
DEAD_LINK: Final = 36.0
"""Seconds after which a process must say that nothing gets through a link: a word is good for 30, plus a look."""
_LOOK_EVERY: Final = 1.0
_ANSWER: Final = 3.0  # seconds a readiness may take; none is an answer too


@dataclass(slots=True)
class StandingStill:
    """The disks that are behind, and since when each has not moved."""

    _since: dict[DiskId, tuple[int, float]] = field(default_factory=dict)

    def look(self, behind: Mapping[DiskId, int], now: float) -> float:
        """Take in the disks that are behind, with their size now; return the seconds the oldest stands still."""
        self._since = {
            disk: (size, self._since[disk][1])
            if disk in self._since and self._since[disk][0] == size
            else (size, now)
            for disk, size in behind.items()
        }
        return max((now - since for _, since in self._since.values()), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindSecond:
    """A stretch in which nothing was said: when it was seen, how long, and the faults in force."""

    at: float
    seconds: float
    standing: float
    faults: tuple[str, ...]
    silent: tuple[str, ...] = ()  # processes that read ready behind a dead link

    def __str__(self) -> str:
        what = f"{', '.join(self.silent)} ready behind a dead link" if self.silent else "nothing moved"
        return f"BLIND at {self.at:.0f} s: {self.standing:.0f} s, {what}; {', '.join(self.faults)}"


class BlindWatch:
    """A thread that looks once a second.

    `ports`: the ops port of each process; `behind`: each disk that is behind with its size; `in_force`: the faults;
    `cut`: the processes behind a link on which nothing gets through, and the moment (monotonic) since when.
    """

    def __init__(
        self,
        ports: Mapping[str, int],
        behind: Callable[[], Mapping[DiskId, int]],
        in_force: Callable[[], tuple[str, ...]],
        cut: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._ports = ports
        self._behind = behind
        self._in_force = in_force
        self._cut = cut
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="blind-watch", daemon=True)
        self.blind: list[BlindSecond] = []
        self.longest = 0.0
        self.reasons: dict[str, str] = {}

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join(_ANSWER * 2)

    @property
    def seconds(self) -> float:
        """The seconds beyond the patience in which every part read ready."""
        return sum(second.seconds for second in self.blind)

    def _run(self) -> None:
        standing_still, began = StandingStill(), time.monotonic()
        last = silent_since = began
        while not self._stop.wait(_LOOK_EVERY):
            now = time.monotonic()
            standing = standing_still.look(self._behind(), now)
            self.longest = max(self.longest, standing)
            since, last = now - last, now
            self._look_at_links(now, at=now - began, seconds=since)
            if not standing or not all(self._ready(name, port) for name, port in self._ports.items()):
                silent_since = now  # something was said, or there is nothing to say
            elif min(standing, now - silent_since) > PATIENCE:
                self.blind.append(
                    BlindSecond(at=now - began, seconds=since, standing=standing, faults=self._in_force())
                )

    def _look_at_links(self, now: float, *, at: float, seconds: float) -> None:
        """Note the processes that should have said by now that a link of theirs is dead."""
        late = {name: now - since for name, since in self._cut().items() if now - since > DEAD_LINK}
        silent = [name for name in late if self._ready(name, self._ports[name])]
        if still := [name for name in silent if name in self._cut()]:  # the fault may have ended meanwhile
            longest = max(late[name] for name in still)
            self.blind.append(
                BlindSecond(
                    at=at, seconds=seconds, standing=longest, faults=self._in_force(), silent=tuple(still)
                )
            )  # fmt: skip

    def _ready(self, name: str, port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=_ANSWER):
                return True
        except urllib.error.HTTPError as error:
            self.reasons[name] = _why(error)
        except OSError as error:
            self.reasons[name] = f"no answer: {error}"
        return False


def _why(error: urllib.error.HTTPError) -> str:
    try:
        checks = json.load(error)["checks"]
    except (ValueError, KeyError, OSError):
        return f"{error.code}"
    return "; ".join(f"{name}: {check['reason']}" for name, check in checks.items() if not check["ok"])
