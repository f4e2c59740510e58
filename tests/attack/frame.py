# SPDX-License-Identifier: Apache-2.0
"""The frame of tools/attack: grounds, attacks on them, and the good caller beside each.

A ground is a set of running daemons. Attacks on one ground run one after the other while a good caller works on; an
attack returns its complaints, none where everything held.
"""

import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

PATIENCE: Final = 20.0
"""Seconds after which a good call counts as held up for good, on a machine of any speed."""
_PAUSE: Final = 0.05


class Ground(Protocol):
    """Running daemons, and what a good caller does with them."""

    def call(self) -> None:
        """Make one good call; raises AssertionError for a wrong answer, OSError for none."""

    def complaints(self) -> Sequence[str]:
        """Return what is wrong with the daemons after an attack: memory, logs, an end that was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack. `run` gets the ground and the seconds it may take, and returns complaints."""

    name: str
    about: str
    ground: str
    run: Callable[[Any, float], Sequence[str]]
    short: bool = True
    """Whether it is part of the short form."""


Open = Callable[[Path], AbstractContextManager[Ground]]
"""Opens a ground in a directory of its own."""


@dataclass(slots=True)
class GoodCaller:
    """Makes good calls one after the other until told to end; `waits` in seconds."""

    call: Callable[[], None]
    waits: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work in a thread of its own."""
        done = threading.Event()
        thread = threading.Thread(target=self._work, args=(done,), name="good caller", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(PATIENCE * 2)
            if thread.is_alive():
                self.wrong.append(f"a good call had no end within {PATIENCE * 2:.0f} s")

    def _work(self, done: threading.Event) -> None:
        while not done.is_set():
            started = time.monotonic()
            try:
                self.call()
            except (AssertionError, OSError) as ex:
                self.wrong.append(f"a good call failed after {time.monotonic() - started:.1f} s: {ex!r:.200}")
            self.waits.append(time.monotonic() - started)
            done.wait(_PAUSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of one attack."""

    attack: Attack
    complaints: Sequence[str]
    waits: Sequence[float]

    @property
    def held(self) -> bool:
        """True where nothing is complained of."""
        return not self.complaints


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that `part` of all values do not exceed, 0 without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else 0.0


def fight(
    attacks: Sequence[Attack], grounds: Mapping[str, Open], directory: Path, *, seconds: float
) -> Iterator[Verdict]:
    """Run attacks ground by ground; yields a verdict each. A ground that cannot be opened fails its attacks."""
    for name in dict.fromkeys(attack.ground for attack in attacks):
        mine = [attack for attack in attacks if attack.ground == name]
        where = directory / name
        where.mkdir(parents=True, exist_ok=True)
        left = list(mine)
        try:
            with grounds[name](where) as ground:
                ground.call()
                for attack in mine:
                    yield _fight(attack, ground, seconds)
                    left.remove(attack)
        except Exception as ex:  # noqa: BLE001 - whatever a ground dies of, the others are still tried
            (where / "ground.txt").write_text(traceback.format_exc())
            for attack in left:
                yield Verdict(attack=attack, complaints=[f"the ground {name} failed: {ex!r:.300}"], waits=[])


def _fight(attack: Attack, ground: Ground, seconds: float) -> Verdict:
    caller = GoodCaller(ground.call)
    complaints: list[str] = []
    with caller.working():
        try:
            complaints += attack.run(ground, seconds)
        except Exception as ex:  # noqa: BLE001 - an attack that breaks is a verdict of its own
            complaints.append(f"the attack itself failed: {ex!r:.300}")
    complaints += dict.fromkeys(caller.wrong)
    if caller.waits and max(caller.waits) > PATIENCE:
        complaints.append(f"a good call took {max(caller.waits):.1f} s")
    complaints += ground.complaints()
    return Verdict(attack=attack, complaints=complaints, waits=caller.waits)
