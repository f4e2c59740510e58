# SPDX-License-Identifier: Apache-2.0
"""Sending a recording again: paced, marked, resumable; each event ends with a verdict or stays for the next run.

How far a replay came, in a file beside the recording, so that the next run goes on there.
"""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tqdm import tqdm

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import OperatorError
from bridge.core.extend import ExtendKey, replay_id
from bridge.runtime.audit import AuditLog
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from listener.cli.record import notification
from listener.cli.recordings import Item
from listener.endpoint import EndpointClient
from listener.notification import Origin, Row
from listener.verdicts import Hold, Settle


class Progress:
    """Numbers of events that have their verdict. Written after each request, before the next."""

    def __init__(self, path: Path, items: Sequence[Item]) -> None:
        """Raises OperatorError where the file belongs to another replay."""
        self._path = path
        digest = hashlib.sha256()
        for item in items:
            digest.update(f"{item.key.server_id} {item.key.volume_id}\n".encode())
        self._of = digest.hexdigest()
        self.done: set[int] = set()
        try:
            kept = json.loads(path.read_text())
            of, upto, beyond = kept["of"], int(kept["upto"]), kept["beyond"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as ex:
            raise OperatorError(f"{path} cannot be used: remove it to replay from the start") from ex
        if of != self._of and (upto or beyond):
            raise OperatorError(f"{path} is of a replay of other events: remove it, or name another with --state")
        self.done = {*range(upto), *beyond}

    def begin(self) -> None:
        """Have the file before anything is sent: raises OperatorError where what is done could not be kept."""
        self.settle(())

    def settle(self, numbers: Sequence[int]) -> None:
        """These are done; on disk when it returns."""
        self.done.update(numbers)
        upto = 0
        while upto in self.done:
            upto += 1
        beyond = sorted(number for number in self.done if number > upto)
        written = self._path.with_name(f"{self._path.name}.new")
        try:
            with written.open("w") as file:
                json.dump({"of": self._of, "upto": upto, "beyond": beyond}, file)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._path)
        except OSError as ex:
            raise OperatorError(
                f"{self._path} cannot be written: {ex.strerror}; name another place with --state"
            ) from ex

    def end(self) -> None:
        """All are done: the next replay is a new one."""
        self._path.unlink(missing_ok=True)


BATCH: Final = 100


class Target(Protocol):
    """Where events are sent."""

    name: str

    def send(self, keys: Sequence[ExtendKey], request_id: str) -> Iterator[tuple[ExtendKey, str, str]]:
        """(event, verdict, reason) as they become known; raises OperatorError when nobody answers."""


class EndpointTarget:
    """Straight to the HTTP endpoint, as the listener sends."""

    name = "endpoint"

    def __init__(self, courier: EndpointClient) -> None:
        self._courier = courier

    def send(self, keys: Sequence[ExtendKey], request_id: str) -> Iterator[tuple[ExtendKey, str, str]]:
        """See Target."""
        for judgement in self._courier.deliver(keys, request_id):
            match judgement:
                case Settle():
                    for key, verdict in judgement.verdicts.items():
                        yield key, verdict.kind.value, verdict.reason.value
                case Hold():
                    raise OperatorError(f"the endpoint is away: {judgement.reason.text}", code=3)


class BrokerTarget:
    """Into the listener's queue, as notifications of our own making."""

    name = "broker"

    def __init__(self, publisher: SafePublisher, queue: str) -> None:
        self._publisher = publisher
        self._queue = queue

    def send(self, keys: Sequence[ExtendKey], request_id: str) -> Iterator[tuple[ExtendKey, str, str]]:
        """See Target."""
        for key in keys:
            row = Row(server_id=key.server_id, attached=True, readable=True)
            origin = Origin(message_id=replay_id(), global_request_id=request_id)
            try:
                self._publisher.publish(self._queue, notification(key.volume_id, [row], size=None, origin=origin))
            except NotPublishedError as ex:
                raise OperatorError(f"the broker does not take it: {ex}", code=3) from ex
            yield key, "published", self._queue


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRate:
    """`speed`: how many times faster than recorded, None: as fast as may be; `rate`: events a second at most."""

    speed: float | None = None
    rate: float | None = None

    def due(self, number: int, item: Item, first: Item) -> float:
        """Seconds after the start at which an event may be sent."""
        due = number / self.rate if self.rate else 0.0
        if self.speed and item.at is not None and first.at is not None:
            due = max(due, (item.at - first.at) / self.speed)
        return due


def send(
    items: Sequence[Item],
    target: Target,
    *,
    pace: ReplayRate,
    progress: Progress,
    audit: AuditLog,
    stop: threading.Event,
    clock: Callable[[], float] = time.monotonic,
) -> Counter[tuple[str, str]]:
    """Send what has no verdict yet; counts by (verdict, reason).

    Ends early when `stop` is set, or with OperatorError when nobody answers; in both cases everything that has its
    verdict is written down and is not sent again by the next run.
    """
    verdicts: Counter[tuple[str, str]] = Counter()
    left = [(number, item) for number, item in enumerate(items) if number not in progress.done]
    if not left:
        return verdicts
    progress.begin()
    (first, start), started = left[0], clock()

    def due(number: int, item: Item) -> float:
        return pace.due(number - first, item, start) + started - clock()

    with tqdm(total=len(items), initial=len(items) - len(left), unit="event", desc="replay", disable=None) as bar:
        try:
            while left and not stop.is_set():
                batch = _batch(left, due, stop)
                if not batch:
                    continue
                del left[: len(batch)]
                _deliver(batch, target, progress, audit, verdicts)
                bar.update(len(batch))
        finally:
            if not progress.done:
                progress.end()  # nothing is sent: nothing to go on from
    if not left:
        progress.end()
    return verdicts


def _batch(
    left: Sequence[tuple[int, Item]], due: Callable[[int, Item], float], stop: threading.Event
) -> list[tuple[int, Item]]:
    """What may be sent together now: distinct events, in order. Waits for the first; empty when told to stop.

    `due`: in how many seconds an event may be sent.
    """
    wait = due(*left[0])
    if wait > 0 and stop.wait(wait):
        return []
    batch = [left[0]]
    keys = {left[0][1].key}
    for number, item in left[1:BATCH]:
        if item.key in keys or due(number, item) > 0:
            break
        keys.add(item.key)
        batch.append((number, item))
    return batch


def _deliver(
    batch: Sequence[tuple[int, Item]],
    target: Target,
    progress: Progress,
    audit: AuditLog,
    verdicts: Counter[tuple[str, str]],
) -> None:
    request_id = replay_id()
    numbers: Mapping[ExtendKey, tuple[int, Item]] = {item.key: (number, item) for number, item in batch}
    audit.write(*(_record(AuditEvent.REPLAYED, item, request_id, target.name) for _, item in batch))
    settled: list[int] = []
    try:
        for key, verdict, reason in target.send(list(numbers), request_id):
            number, item = numbers[key]
            verdicts[verdict, reason] += 1
            settled.append(number)
            if target.name == "endpoint":
                audit.write(
                    _record(AuditEvent.POSTED, item, request_id, target.name, outcome=verdict, reason=reason)
                )
    finally:
        if settled:
            progress.settle(settled)


def _record(
    event: AuditEvent,
    item: Item,
    request_id: str,
    to: str,
    *,
    outcome: str | None = None,
    reason: str | None = None,
) -> AuditRecord:
    of = item.origin.carried or item.origin.message_id
    return AuditRecord(
        event=event,
        at=time.time(),
        server=item.key.server_id,
        volume=item.key.volume_id,
        project=item.origin.project,
        global_request_id=request_id,
        outcome=outcome,
        reason=reason,
        data={"to": to, **({"of": of} if of else {})},
    )
