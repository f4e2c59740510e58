# SPDX-License-Identifier: Apache-2.0
"""A run with --fault: one thing is wrong for as long as the volumes grow, then reconciliation has one pass."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from bridge.core.extend import new_id
from bridge.journal.behind import Behind
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from tests.chaos.ledger import DiskId
from tests.chaos.lossy_nova import LossyNova
from tests.chaos.options import Fault, Options
from tests.chaos.plan import processes
from tests.chaos.progress import Bar
from tests.chaos.run import Run
from tests.chaos.time_machine import Rows, grow_older, put_back, snapshot
from tests.lab.waiting import until

_INTERVAL: Final = 6.0  # seconds from pass to pass
_PASS: Final = 90.0  # seconds a pass may be waited for on a busy machine
_HOUR: Final = 3600.0
_LOOK_EVERY: Final = 0.1
_AWAY: Final = 6.0  # seconds; longer than the site's host_timeout, so that the engines know the hosts are off
_NO_AGENT: Final = "chaos-no-agent"
_MANY: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """The last line, and what it says of each disk that is not well."""

    lost: tuple[DiskId, ...]
    shrunk: tuple[DiskId, ...]
    stuck: tuple[DiskId, ...]
    unnamed: tuple[DiskId, ...]
    touched: int  # resizes beside Nova that were not Nova's
    healed: int
    named: Mapping[str, int]
    passes: int
    healed_in: float

    @property
    def clean(self) -> bool:
        """Nothing is wrong, and what cannot be healed has its reason."""
        return not (self.lost or self.shrunk or self.stuck or self.unnamed or self.touched)

    def __str__(self) -> str:
        return (
            f"lost {len(self.lost)} shrunk {len(self.shrunk)} stuck {len(self.stuck)} healed {self.healed} "
            f"named {sum(self.named.values())} passes {self.passes} healed_in {self.healed_in:.1f} s"
        )

    def to_json(self) -> dict[str, object]:
        """The same as JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        named = ", ".join(f"{number} {why}" for why, number in sorted(self.named.items()))
        wrong = {"lost": self.lost, "shrunk": self.shrunk, "stuck": self.stuck, "not named": self.unnamed}
        return [
            f"cannot be healed: {named or 'none'}",
            *([f"{self.touched} disks were resized by agents that only look"] if self.touched else []),
            *(f"{what}: server {disk[0]} volume {disk[1]}" for what, disks in wrong.items() for disk in disks),
        ]


class Healing(Run):
    """The parts of such a run, started."""

    def __init__(self, options: Options, directory: Path, stack: ExitStack) -> None:
        fault = options.fault
        half = options.spread / 2
        self._nova = stack.enter_context(LossyNova()) if fault is Fault.NOVA_LOSES_CASTS else None
        super().__init__(
            options, directory, stack, reconcile=_INTERVAL, nova=self._nova.url if self._nova else None,
            tells=lambda growth: fault is not Fault.NO_NOTIFICATIONS
            and (fault is not Fault.WEEKEND or growth.at < half),
        )  # fmt: skip
        self._fault = fault
        self._database = Database(JournalSettings(connection=self._site.journal))
        stack.callback(self._database.dispose)
        self._agents = [name for name in processes(options.agents) if name.startswith("hostagent")]
        self._control = [name for name in processes(options.agents) if name not in self._agents]
        dark = new_id(), new_id()
        self._cinder.have(dark, 2, host=_NO_AGENT)
        self._hopeless: set[DiskId] = {dark}
        self._all = {(server, volume.id) for volume in self._load.volumes for server in volume.attachments}

        if self._nova is not None:
            self._give_up_on(options.agents - 1)
            self._nova.has(
                {server: self._ledgers[n] for n, servers in enumerate(self._load.hosts) for server in servers},
                never={disk[0] for disk in self._hopeless}, wanted=self._cinder.wanted,
            )  # fmt: skip

    def heal(self, bar: Bar) -> Healed:
        """Fault and load, the end of the fault, one pass, and what it comes to."""
        at_first: Rows = snapshot(self._database)
        self._begin()
        self._play(bar)
        behind = self._behind()
        self._end(at_first)
        ended = time.time()
        self._passes_until(ended)
        on_their_way = self._observer.open()
        late = self._behind()
        named = self._named()
        lost = late - on_their_way - named.keys()
        healed_at = self._wait(late)
        left = self._behind()
        why = self._named()
        disks = self._observer.disks()
        hopeless = [why.get(disk) for disk in sorted(self._hopeless)]
        return Healed(
            lost=tuple(sorted(lost)),
            shrunk=tuple(sorted(disk for disk, it in disks.items() if it.shrunk)),
            touched=sum(it.changes for it in disks.values()) - self._nova.resized if self._nova else 0,
            stuck=tuple(sorted(left - lost)),
            unnamed=tuple(sorted(disk for disk in self._hopeless if disk not in why)),
            healed=len(behind - left),
            named={reason: hopeless.count(reason) for reason in set(hopeless) if reason is not None},
            passes=len(self._passes(ended)),
            healed_in=healed_at - ended,
        )

    def _begin(self) -> None:
        match self._fault:
            case Fault.CASTS_DROPPED:
                self._site.dropping.touch()
            case Fault.WEEKEND:
                self._off(self._agents)
            case Fault.OLD_JOURNAL:
                self._off(self._agents[1:])

    def _end(self, at_first: Rows) -> None:
        match self._fault:
            case Fault.CASTS_DROPPED:
                self._site.dropping.unlink()
            case Fault.WEEKEND:
                grow_older(self._database, 60 * _HOUR)
                since = time.time()
                self._passes_until(since)
                unseen = self._named()
                until(
                    lambda: self._all <= unseen.keys() | self._named().keys(), "every guest is named", seconds=_AWAY
                )
                back, gone = self._agents[:-1], self._agents[-1]
                self._give_up_on(int(gone.rpartition("-")[2]))
                self._on(back)
            case Fault.OLD_JOURNAL:
                self._off(self._control)
                put_back(self._database, at_first)
                grow_older(self._database, 24 * _HOUR)
                self._on(self._control)
                self._on(self._agents[1:])

    def _give_up_on(self, number: int) -> None:
        """The guests of this host stay behind: their host never comes back."""
        here = set(self._load.hosts[number])
        self._hopeless |= {disk for disk in self._all if disk[0] in here}

    def _off(self, names: Sequence[str]) -> None:
        for name in names:
            with self._daemons[name].lock:
                self._daemons[name].die()

    def _on(self, names: Sequence[str]) -> None:
        """Start them; an agent is on once its first message is in the journal."""
        since = time.time()
        for name in names:
            with self._daemons[name].lock:
                self._daemons[name].start()
        wanted = {name for name in names if name in self._agents}
        until(lambda: len(self._observer.heard(since)) >= len(wanted), "the hosts are heard", seconds=_PASS)

    def _behind(self) -> set[DiskId]:
        """Of those that can be healed, the ones whose guest sees less than Cinder has."""
        wanted, disks = self._cinder.wanted(), self._observer.disks()
        return {disk for disk in self._all - self._hopeless if disks[disk].size < wanted[disk]}

    def _named(self) -> Mapping[DiskId, str]:
        """The reason the journal gives for each guest that is behind or cannot be seen."""
        asked = Behind(self._database)
        lags = [*asked.behind(limit=_MANY), *asked.unseen(limit=_MANY)]
        return {(lag.key.server_id, lag.key.volume_id): lag.why for lag in lags}

    def _wait(self, late: set[DiskId]) -> float:
        """Until all are healed, or patience is over: when that was."""
        end = time.time() + self._options.patience
        while late and time.time() < end:
            late = self._behind()
            time.sleep(_LOOK_EVERY)
        return time.time()

    def _passes_until(self, since: float) -> None:
        """Until a whole pass that began after `since` has ended."""
        until(lambda: self._passes(since), "a whole pass has ended", seconds=_PASS)

    def _passes(self, since: float) -> list[float]:
        """When the whole passes that began after `since` ended, as the audit logs tell."""
        ends = []
        for name in self._control:
            path = self._site.audit(name)
            for line in path.read_bytes().splitlines() if name.startswith("engine") and path.exists() else ():
                if b'"event":"surveyed"' not in line:
                    continue
                record = json.loads(line)
                end = datetime.fromisoformat(record["time"]).timestamp()
                if end - record.get("seconds", 0.0) >= since:
                    ends.append(end)
        return ends
