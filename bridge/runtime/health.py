# SPDX-License-Identifier: Apache-2.0
"""Readiness checks, each with its reason. Parts write them; ops port, metrics, log and watchdog read them.

Ready means moving. There are four kinds of checks, and each goes bad by itself:

- a word (`ok`, `bad`, `looked`) about a service or resource that a part needs, good for so many seconds
  (`good_for`);
- a state (`state`) that the process keeps itself, read anew each time;
- due work (`due`): not ready while the oldest due item waits for longer than a limit;
- a loop (`loop`, `turn`, `rest`): not ready while its thread makes no turn (Supervised does this). A long turn of
  the loop calls `moving` on its way.
"""

import itertools
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

LOG = logging.getLogger(__name__)

LIMIT: Final = 30.0
"""Seconds for which a check may read ready while its subject does not work (DESIGN, rule 14)."""
HUNG: Final = 120.0
"""Seconds without a turn after which a loop counts as hung for good: a restart is the only help."""
REPEATED: Final = 900.0
"""Seconds after which a bad word that no request repeated is ended by a good look: hops retry within 600 s."""
_CHANGES_EVERY: Final = 30.0
"""Seconds between two log lines about a check that stays bad and changes its reason."""

_NUMBERS: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Check:
    """The state of one thing that a daemon needs."""

    ok: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    check: Check
    said_at: float
    good_for: float = math.inf
    by_look: bool = False  # a good look replaces it at once, although it is bad


@dataclass(frozen=True, slots=True, kw_only=True)
class _DueWork:
    oldest: Callable[[], float | None]
    what: str
    limit: float


@dataclass(slots=True, kw_only=True)
class _LoopTurn:
    within: float
    turned_at: float  # math.inf while the loop sleeps on purpose


@dataclass(frozen=True, slots=True)
class _Logged:
    check: Check
    at: float


STARTING: Final = Check(False, "starting")
"""The state of a check before its part's first word."""


_this_thread = threading.local()


def moving() -> None:
    """Note that the long turn of this supervised thread makes progress; in other threads do nothing."""
    if (turn := getattr(_this_thread, "turn", None)) is not None:
        turn()


class Health:
    """Checks by name. Each change is logged once, so the log tells when a check failed and when it recovered."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._words: dict[str, _Word] = {}
        self._due: dict[str, _DueWork] = {}
        self._states: dict[str, Callable[[], Check]] = {}
        self._loops: dict[str, _LoopTurn] = {}
        self._logged: dict[str, _Logged] = {}

    def expect(self, *names: str) -> None:
        """Announce checks, which are not ready until their part marks them ready."""
        with self._lock:
            for name in names:
                starting = _Word(check=STARTING, said_at=self._clock(), by_look=True)
                word = self._words.setdefault(name, starting)
                self._logged.setdefault(name, _Logged(word.check, -math.inf))

    def ok(self, name: str, reason: str = "ok", *, good_for: float = math.inf) -> None:
        """Mark the check ready for `good_for` seconds, which every part of the product gives."""
        self._say(name, _Word(check=Check(True, reason), said_at=self._clock(), good_for=good_for))

    def bad(self, name: str, reason: str, *, unanswered: bool = False) -> None:
        """Mark the check not ready. The reason names the part, the address, what was tried and what to set.

        `unanswered`: a look (`looked`) asks for as much as the failed request did, so a good one ends this word.
        """
        self._say(name, _Word(check=Check(False, reason), said_at=self._clock(), by_look=unanswered))

    def looked(self, name: str, wrong: str | None, *, good_for: float = LIMIT) -> None:
        """Take the result of a look at a service: what is wrong, None where nothing is.

        Parts look now and then, because without requests nothing else notices that a service is gone. A look asks
        for little. So its word never replaces the bad word of a request, which asked for more, unless requests have
        not repeated that word for long (REPEATED): perhaps another process did the work.
        """
        with self._lock:
            word = self._words.get(name)
            if word is not None and not (word.check.ok or word.by_look or self._clock() - word.said_at > REPEATED):
                return
            if wrong is None:
                self.ok(name, good_for=good_for)
            else:
                self.bad(name, wrong, unanswered=True)

    def state(self, name: str, look: Callable[[], Check]) -> None:
        """Watch a state that this process keeps itself. `look` must not block and must not raise."""
        with self._lock:
            self._states[name] = look

    def due(self, name: str, oldest: Callable[[], float | None], *, what: str, limit: float = LIMIT) -> None:
        """Watch due work: `oldest` returns the seconds for which the oldest due item has waited, None without one.

        `what` names the item in the reason ("report", "request"). `oldest` must not block and must not raise.
        """
        with self._lock:
            self._due[name] = _DueWork(oldest=oldest, what=what, limit=limit)

    def loop(self, name: str, *, within: float = LIMIT) -> None:
        """Watch a loop, which must call `turn` at least once in `within` seconds, or `rest` before it sleeps."""
        with self._lock:
            self._loops[name] = _LoopTurn(within=within, turned_at=self._clock())

    def turn(self, name: str) -> None:
        """Note that the loop has made a turn; for a loop that is not watched do nothing."""
        if (loop := self._loops.get(name)) is not None:
            loop.turned_at = self._clock()

    def rest(self, name: str) -> None:
        """Note that the loop sleeps until its next turn, for any time."""
        if (loop := self._loops.get(name)) is not None:
            loop.turned_at = math.inf

    def follow(self, name: str) -> None:
        """Make each call of moving() in the calling thread a turn of this loop."""
        _this_thread.turn = partial(self.turn, name)

    def end_loop(self, name: str) -> None:
        """Stop watching a loop that has ended normally."""
        with self._lock:
            self._loops.pop(name, None)

    def checks(self) -> Mapping[str, Check]:
        """Return all checks of this moment, by name, and log those that changed by themselves."""
        with self._lock:
            now = self._clock()
            checks = {name: self._loop_check(name, loop, now) for name, loop in self._loops.items()}
            checks |= {name: self._due_check(due) for name, due in self._due.items()}
            checks |= {name: look() for name, look in self._states.items()}
            for name, word in self._words.items():
                if name not in checks or checks[name].ok:  # a failed loop says more than its part's last word
                    checks[name] = _aged(word, now)
            for name, check in checks.items():
                self._log(name, check, now)
            return checks

    def ready(self) -> bool:
        """Return True if every check is ok."""
        return all(check.ok for check in self.checks().values())

    def oldest_due(self) -> Mapping[str, float]:
        """Return for how long the oldest due item of each part has waited, 0 without one."""
        with self._lock:
            return {name: due.oldest() or 0.0 for name, due in self._due.items()}

    def hung(self) -> list[str]:
        """Return the loops without a turn for so long that only a restart helps."""
        with self._lock:
            now = self._clock()
            return [n for n, loop in self._loops.items() if now - loop.turned_at > max(HUNG, 4 * loop.within)]

    def _say(self, name: str, word: _Word) -> None:
        with self._lock:
            self._words[name] = word
            self._log(name, word.check, word.said_at)

    @staticmethod
    def _loop_check(name: str, loop: _LoopTurn, now: float) -> Check:
        silent = now - loop.turned_at
        if silent <= loop.within:
            return Check(True, "moving")
        return Check(False, f"{name} has not moved for {silent:.0f} s: one of its calls does not return")

    @staticmethod
    def _due_check(due: _DueWork) -> Check:
        age = due.oldest()
        if age is None:
            return Check(True, f"no {due.what} is due")
        if age <= due.limit:
            return Check(True, f"the oldest due {due.what} has not waited for long")
        return Check(False, f"the oldest due {due.what} has waited for {age:.0f} s")

    def _log(self, name: str, check: Check, now: float) -> None:
        before = self._logged.get(name)
        if before is not None and before.check.ok == check.ok:
            if check.ok or now - before.at < _CHANGES_EVERY:
                return
            if _NUMBERS.sub("#", before.check.reason) == _NUMBERS.sub("#", check.reason):
                return
        elif before is None and check.ok and (name in self._loops or name in self._states):
            return  # a loop that moves is not worth a log line
        self._logged[name] = _Logged(check, now)
        level, state = (logging.INFO, "ready") if check.ok else (logging.WARNING, "not ready")
        LOG.log(level, "%s is %s: %s", name, state, check.reason)


class InFlight:
    """Items in hand, for Health.due: the age of the oldest. Safe for several threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._since: dict[int, float] = {}

    def begin(self) -> int:
        """Begin one item; return its number for `end`."""
        number = next(self._numbers)
        self._since[number] = self._clock()
        return number

    def end(self, number: int) -> None:
        """End an item; if it is not in hand, do nothing."""
        self._since.pop(number, None)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one item for the length of a block."""
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    def oldest(self) -> float | None:
        """Return the age of the oldest item in seconds, None without items."""
        for since in self._since.copy().values():  # a dict keeps the order of arrival
            return self._clock() - since
        return None

    def __len__(self) -> int:
        """Return the number of items in hand."""
        return len(self._since)


def _aged(word: _Word, now: float) -> Check:
    age = now - word.said_at
    if not word.check.ok or age <= word.good_for:
        return word.check
    return Check(False, f"this check was not updated for {age:.0f} s; before that: {word.check.reason}")
