# SPDX-License-Identifier: Apache-2.0
"""A host that is played, in a process of its own: takes casts as an agent does, and says at once that all is done.

`python -m tests.benchmarks.played_host FILE.json`; the file holds `url`, `host`, `servers` ([server, volume]
pairs), `arrivals` (a file that gets "volume time" for each order) and `report` (whether it reports). Says "ready".
"""

import bridge.runtime.threads  # noqa: F401 - first, before anything that may choose another backend

# isort: split
import gc
import json
import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bridge.core.extend import Bytes, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Order, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.broker import (
    REPORTS_QUEUE,
    QueueSpec,
    ensure_queue,
    kombu_connection,
)
from bridge.runtime.health import Health
from bridge.runtime.publisher import SafePublisher
from hostagent.rpc import HEALTH, OrderConsumer
from tests.lab.waiting import until

_GROUP: Final = 12
_HEARTBEAT: Final = 20.0


class PlayedHost:
    """Says what it has, then what it has done."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._arrivals = Path(settings["arrivals"]).open("a", buffering=1)  # noqa: SIM115 - open until the end
        self._connection = kombu_connection(settings["url"], heartbeat=0, name="played-host")
        ensure_queue(self._connection, QueueSpec(name=REPORTS_QUEUE))
        self._publisher = SafePublisher(self._connection)
        self._boot, self._seq = new_id(), 0

    def take(self, orders: Sequence[Order]) -> None:
        """What an agent's pool of workers would do."""
        now = time.time()
        for order in orders:
            self._arrivals.write(f"{order.key.volume_id} {now:.6f}\n")
        if self._settings["report"]:
            for start in range(0, len(orders), _GROUP):
                self.say(tuple(map(_done, orders[start : start + _GROUP])))

    def say(self, reports: tuple[Report, ...] = (), inventory: Inventory | None = None) -> None:
        """Publish one message."""
        with self._lock:
            self._seq += 1
            message = HostMessage(
                host=self._settings["host"], boot_id=self._boot, seq=self._seq, sent_at=time.time(),
                reports=reports, inventory=inventory,
            )  # fmt: skip
            self._publisher.publish(REPORTS_QUEUE, json.dumps(message.to_wire()).encode())

    def inventory(self) -> Inventory:
        """All of it."""
        return Inventory(
            full=True,
            domains=tuple(
                DomainSeen(
                    server_id=server,
                    state=GuestState.ACTIVE,
                    disks=(DiskSeen(volume_id=volume, size=Bytes(1 << 30)),),
                )
                for server, volume in self._settings["servers"]
            ),
        )


def _done(order: Order) -> Report:
    return Report(
        attempt_id=order.attempt_id, key=order.key, gen=order.gen, outcome=Outcome.RESIZED,
        reason=Reason.SIZE_REACHED.value, target=order.target, before=Bytes(1), after=order.target,
    )  # fmt: skip


def main(path: str) -> None:
    """Until its standard input ends."""
    logging.disable(logging.CRITICAL)
    settings = json.loads(Path(path).read_text())
    host = PlayedHost(settings)
    health = Health()
    orders = OrderConsumer(
        lambda: kombu_connection(settings["url"], heartbeat=30, name="played-host orders"),
        settings["host"],
        host.take,
        health,
    )
    threading.Thread(target=orders.run, args=(threading.Event(),), daemon=True).start()
    until(lambda: health.checks()[HEALTH].ok, "orders are taken", seconds=60)
    host.say(inventory=host.inventory())
    gc.collect()
    gc.freeze()  # as the agent's daemon does: a full collection is 30 ms that a cast waits for
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Thread(target=_beat, args=(host,), daemon=True).start()
    sys.stdin.read()


def _beat(host: PlayedHost) -> None:
    while True:
        time.sleep(_HEARTBEAT)
        host.say(inventory=Inventory(full=False))


if __name__ == "__main__":
    main(sys.argv[1])
