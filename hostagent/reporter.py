# SPDX-License-Identifier: Apache-2.0
"""Messages of this host to the control plane: reports, inventory and heartbeats.

One thread publishes. A message that the broker did not take is published again, unchanged, before any newer one.
New reports wait meanwhile and go out together.
"""

import json
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from bridge.core.extend import ExtendKey, new_id
from bridge.core.file_systems import FileSystemSeen
from bridge.core.inventory import DomainSeen, Inventory
from bridge.core.messages import HostMessage, Report
from bridge.core.reasons import Reason
from bridge.runtime.broker import HOSTS_EXCHANGE, REPORTS_EXCHANGE, REPORTS_QUEUE
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.metrics import AgentMetrics
from bridge.runtime.publisher import NotPublishedError
from bridge.runtime.retry import Backoff

LOG = logging.getLogger(__name__)

_NO_WAY: Final = {Reason.RETURNED, Reason.NOT_PERMITTED}
"""Reasons for a try of the default exchange: the engine, or the broker's user, is older than the exchange."""


class Sender(Protocol):
    """The sending side of a safe publish."""

    def publish(self, queue: str, body: bytes, *, exchange: str = "", routing_key: str | None = None) -> None:
        """Return when the broker has the message; raises NotPublishedError."""


class ToEngine:
    """The publisher into the reports queue. The routing key is the host's name, so the broker vouches for the host.

    An older engine, or older permissions of the broker's user, can close that way. Then the message takes the ways
    of older agents. These are the exchange without names, then the default exchange, which leads to every queue.
    """

    def __init__(self, sender: Sender, host: str) -> None:
        self._sender = sender
        self._host = host
        self._logged = ""

    def publish(self, body: bytes) -> None:
        """Return when the message is in the queue; raises the NotPublishedError of the first way."""
        try:
            self._sender.publish(REPORTS_QUEUE, body, exchange=HOSTS_EXCHANGE, routing_key=self._host)
        except NotPublishedError as ex:
            if ex.reason not in _NO_WAY:
                raise
            self._publish_unbound(body, ex)
        else:
            self._logged = ""

    def _publish_unbound(self, body: bytes, why: NotPublishedError) -> None:
        try:
            self._sender.publish(REPORTS_QUEUE, body, exchange=REPORTS_EXCHANGE)
            taken = REPORTS_EXCHANGE
        except NotPublishedError as ex:
            if ex.reason not in _NO_WAY:
                raise why from None
            self._publish_default_exchange(body, why)
            taken = "the default exchange"
        if self._logged != taken:
            self._logged = taken
            LOG.warning("reports are sent to %s, where the broker does not verify this host's name: %s", taken, why)

    def _publish_default_exchange(self, body: bytes, why: NotPublishedError) -> None:
        try:
            self._sender.publish(REPORTS_QUEUE, body)
        except NotPublishedError:
            raise why from None


HEALTH: Final = "hostagent.reports"
KEPT_MAX: Final = 10_000
"""Reports kept for an unreachable broker; above it the oldest goes, and the journal casts its order again."""
_PER_MESSAGE: Final = 100
_UNEVEN: Final = (0.9, 1.1)
"""Factors of the interval, drawn anew each time, because hosts that start together must not publish together."""


class Publisher(Protocol):
    """The way of a message out of the process."""

    def publish(self, body: bytes) -> None:
        """Return when the broker has the message; raises NotPublishedError."""


class Outbox:
    """The reports and the inventory that wait to be sent. For several threads."""

    def __init__(self, metrics: AgentMetrics, kept_max: int = KEPT_MAX) -> None:
        self._changed = threading.Condition()
        self._reports: deque[Report] = deque()
        self._inventory: Inventory | None = None
        self._file_systems: dict[ExtendKey, FileSystemSeen] = {}
        self._metrics = metrics
        self._kept_max = kept_max
        self._closed = False

    def add_reports(self, reports: Sequence[Report]) -> None:
        """Queue reports to be sent."""
        with self._changed:
            self._reports.extend(reports)
            dropped = 0
            while len(self._reports) > self._kept_max:
                self._reports.popleft()
                dropped += 1
            self._metrics.unsent.set(len(self._reports))
            self._changed.notify_all()
        if dropped:
            LOG.error("%d reports were dropped, because the broker has been unreachable for too long", dropped)

    def add_inventory(self, inventory: Inventory) -> None:
        """Queue an inventory: a full inventory replaces the waiting inventory, changes are merged into it."""
        with self._changed:
            self._inventory = merge(self._inventory, inventory)
            self._changed.notify_all()

    def add_file_systems(self, seen: Sequence[FileSystemSeen]) -> None:
        """Queue looks at file systems; a newer look replaces one that waits, unless commands ran in that one."""
        with self._changed:
            for each in seen:
                waiting = self._file_systems.get(each.key)
                if waiting is None or each.steps or not waiting.steps:
                    self._file_systems.pop(each.key, None)
                    self._file_systems[each.key] = each
            while len(self._file_systems) > self._kept_max:
                del self._file_systems[next(iter(self._file_systems))]
            self._changed.notify_all()

    def take_file_systems(self) -> tuple[FileSystemSeen, ...]:
        """Return some of the file systems that wait."""
        with self._changed:
            keys = list(self._file_systems)[:_PER_MESSAGE]
            return tuple(self._file_systems.pop(key) for key in keys)

    def take(self, seconds: float) -> tuple[tuple[Report, ...], Inventory | None]:
        """Wait for reports or an inventory; return neither after `seconds`, or when closed and empty."""
        with self._changed:
            self._changed.wait_for(self._is_news, max(0.0, seconds))
            count = min(len(self._reports), _PER_MESSAGE)
            reports = tuple(self._reports.popleft() for _ in range(count))
            inventory, self._inventory = self._inventory, None
            return reports, inventory

    def _is_news(self) -> bool:
        return bool(self._reports or self._inventory or self._file_systems or self._closed)

    def close(self) -> None:
        """Wake the waiting thread, because nothing more is coming."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def sent(self) -> None:
        """Note that the broker has the message."""
        with self._changed:
            self._metrics.unsent.set(len(self._reports))


def merge(waiting: Inventory | None, newer: Inventory) -> Inventory:
    """Return one inventory with the meaning of the two sent one after the other."""
    if waiting is None or newer.full:
        return newer
    domains: dict[str, DomainSeen] = {domain.server_id: domain for domain in waiting.domains}
    gone = dict.fromkeys(waiting.gone)
    for domain in newer.domains:
        domains[domain.server_id] = domain
        gone.pop(domain.server_id, None)
    for server_id in newer.gone:
        domains.pop(server_id, None)
        if not waiting.full:
            gone[server_id] = None
    return Inventory(
        full=waiting.full,
        domains=tuple(domains.values()),
        gone=tuple(gone),
        capabilities=newer.capabilities or waiting.capabilities,
        unsupported=newer.unsupported or waiting.unsupported,
    )


class Reporter:
    """The sender of the outbox, under this host's name and this run's id; the body of a supervised thread."""

    def __init__(
        self,
        host: str,
        outbox: Outbox,
        make_publisher: Callable[[], Publisher],
        *,
        heartbeat_interval: float,
        health: Health,
        backoff: Backoff | None = None,
    ) -> None:
        self._host = host
        self._outbox = outbox
        self._make_publisher = make_publisher
        self._interval = heartbeat_interval
        self._health = health
        self._backoff = backoff or Backoff(first=0.5, cap=15, floor=0.2)
        self._seq = 0
        self._unsent: bytes | None = None
        self.boot_id = new_id()
        health.expect(HEALTH)

    def run(self, stop: threading.Event) -> None:
        """Publish until told to stop, then try the rest once more."""
        publisher = self._make_publisher()
        due = 0.0  # the first heartbeat at once, because a host exists before its inventory is read
        while True:
            if self._unsent is None:
                reports, inventory = self._outbox.take(0 if stop.is_set() else due - time.monotonic())
                file_systems = self._outbox.take_file_systems()
                if not reports and inventory is None and not file_systems:
                    if stop.is_set():
                        return
                    if time.monotonic() < due:
                        continue
                    inventory = Inventory(full=False)
                self._unsent = self._message(reports, inventory, file_systems)
            if not self._send(publisher, self._unsent, stop):
                return
            self._unsent = None
            self._outbox.sent()
            due = time.monotonic() + self._interval * random.uniform(*_UNEVEN)  # noqa: S311 - no secret

    def _send(self, publisher: Publisher, body: bytes, stop: threading.Event) -> bool:
        """Publish until the broker has the message; return False when told to stop before that."""
        tries = 0
        while True:
            try:
                publisher.publish(body)
            except NotPublishedError as ex:
                tries += 1
                self._health.bad(HEALTH, str(ex))
                if stop.wait(self._backoff.delay(tries)):
                    LOG.warning("stopped with unsent reports; the engine sends their orders again")
                    return False
            else:
                self._health.ok(HEALTH, good_for=LIMIT + self._interval)
                return True

    def _message(
        self,
        reports: tuple[Report, ...],
        inventory: Inventory | None,
        file_systems: tuple[FileSystemSeen, ...] = (),
    ) -> bytes:
        self._seq += 1
        message = HostMessage(
            host=self._host,
            boot_id=self.boot_id,
            seq=self._seq,
            sent_at=time.time(),
            reports=reports,
            inventory=inventory,
            file_systems=file_systems,
        )
        return json.dumps(message.to_wire(), separators=(",", ":")).encode()
