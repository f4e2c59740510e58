# SPDX-License-Identifier: Apache-2.0
"""Looks at a run from outside: the ledgers, the journal, the queues, the audit logs."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import kombu
import sqlalchemy as sa
from amqp.exceptions import NotFound

from bridge.core.outcome import Outcome
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import attempts, domains, extends, hosts, transitions
from bridge.runtime.broker import BROKER_ERRORS, PARKED_QUEUE, REPORTS_QUEUE, UNREADABLE_QUEUE, kombu_connection
from tests.chaos.ledger import Disk, DiskId, Ledger

_OURS: Final = "extend_bridge"
_LANES: Final = frozenset({PARKED_QUEUE, UNREADABLE_QUEUE})
_TRIES: Final = 40


class Observer:
    """Reads only, but for queues it is told to delete."""

    def __init__(self, *, journal: str, bus: str, ctl: Callable[..., str], ledgers: Iterable[Ledger]) -> None:
        self._database = Database(JournalSettings(connection=journal))
        self._bus = bus
        self._ctl = ctl
        self._ledgers = list(ledgers)
        self._deleted: Counter[str] = Counter()

    def disks(self) -> Mapping[DiskId, Disk]:
        """Every disk of every host."""
        return {disk: it for ledger in self._ledgers for disk, it in ledger.disks().items()}

    def servers(self) -> set[str]:
        """Servers the journal knows. Raises JournalUnavailableError."""
        return self._database.read(lambda c: set(c.scalars(sa.select(domains.c.server_id))))

    def open(self) -> set[DiskId]:
        """Disks with an open extend. Raises JournalUnavailableError."""
        ask = sa.select(extends.c.server_id, extends.c.volume_id).where(extends.c.open == 1)
        return self._database.read(lambda c: {(server_id, volume_id) for server_id, volume_id in c.execute(ask)})

    def heard(self, since: float) -> set[str]:
        """Hosts the journal heard from since. Raises JournalUnavailableError."""
        ask = sa.select(hosts.c.name).where(hosts.c.heartbeat_at >= since)
        return self._database.read(lambda c: set(c.scalars(ask)))

    def already(self) -> int:
        """Orders that found nothing to do."""
        ask = sa.select(sa.func.count()).where(attempts.c.outcome == Outcome.ALREADY)
        return self._database.read(lambda c: int(c.scalar(ask) or 0))

    def history(self, disk: DiskId) -> list[dict[str, Any]]:
        """What the journal knows of a disk."""
        ask = (
            sa.select(transitions, extends.c.state, extends.c.wanted_gen)
            .join(extends, extends.c.id == transitions.c.extend_id)
            .where(extends.c.server_id == disk[0], extends.c.volume_id == disk[1])
            .order_by(transitions.c.serial)
        )
        return self._database.read(lambda c: [dict(row) for row in c.execute(ask).mappings()])

    def depths(self) -> dict[str, int]:
        """Messages in each queue, those in somebody's hand included. Slow: an Erlang node is started to ask."""
        rows = json.loads(self._ctl("list_queues", "--formatter", "json", "name", "messages"))
        return {row["name"]: int(row["messages"] or 0) for row in rows}

    @staticmethod
    def waiting(depths: Mapping[str, int]) -> int:
        """Messages that are yet to become an extend, or a resize."""
        return sum(
            n for name, n in depths.items() if name.startswith(_OURS) and name not in {*_LANES, REPORTS_QUEUE}
        )

    def in_lanes(self, depths: Mapping[str, int]) -> int:
        """Messages that came to the lanes, those deleted with their queue included."""
        return sum(self._deleted[name] + depths.get(name, 0) for name in _LANES)

    def delete(self, queue: str) -> None:
        """Delete a queue as an operator might; what was in it is remembered as having been there."""
        pause = threading.Event()
        for _ in range(_TRIES):
            try:
                with kombu_connection(self._bus, heartbeat=0, name="chaos") as connection:
                    self._deleted[queue] += int(
                        kombu.Queue(queue, channel=connection.default_channel).delete() or 0
                    )
                return
            except NotFound:
                return
            except BROKER_ERRORS:
                pause.wait(0.5)

    def close(self) -> None:
        """Let go of the database."""
        self._database.dispose()


def delivered_again(audits: Iterable[Path]) -> int:
    """Notifications the listeners read more than once."""
    seen: Counter[tuple[str, str]] = Counter()
    for path in audits:
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            if record.get("event") == "received" and "server" in record:
                seen[record.get("message_id", ""), record["server"]] += 1
    return seen.total() - len(seen)
