# SPDX-License-Identifier: Apache-2.0
"""Sender of a replay: paced, marked, resumable. Each event gets a verdict or is left for the next run.

The progress is kept in a file beside the recording, so that the next run continues there.
"""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tqdm import tqdm

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import OperatorError
from bridge.core.extend import ExtendKey, replay_id
from bridge.runtime.audit import AuditLog
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from listener.cli.load import MUTATION_HEADER, LoadMessage, Mutation, mutated
from listener.cli.record import notification
from listener.cli.recordings import Item
from listener.endpoint import EndpointClient
from listener.notification import Origin, Row
from listener.verdicts import Hold, Settle


class Progress:
    """The numbers of the events that have a verdict. Written after each request, before the next."""

    def __init__(self, path: Path, items: Sequence[Item]) -> None:
        """Read the file; raises OperatorError where the file belongs to another replay."""
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
            raise OperatorError(
                f"{path} belongs to a replay of other events: remove it, or name another file with --state"
            )
        self.done = {*range(upto), *beyond}

    def begin(self) -> None:
        """Create the file before the first event is sent; raises OperatorError where the file cannot be written."""
        self.settle(())

    def settle(self, numbers: Sequence[int]) -> None:
        """Note these events as done; the file is on disk when the call returns."""
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
        """Remove the file, because all events are done and the next replay starts anew."""
        self._path.unlink(missing_ok=True)


BATCH: Final = 100


class Target(Protocol):
    """A destination of events."""

    name: str

    def send(self, keys: Sequence[ExtendKey], request_id: str) -> Iterator[tuple[ExtendKey, str, str]]:
        """Send events; yield (event, verdict, reason) as each is known. Raises OperatorError without an answer."""


class EndpointTarget:
    """The HTTP endpoint to which the listener sends, too."""

    name = "endpoint"

    def __init__(self, client: EndpointClient) -> None:
        self._client = client

    def send(self, keys: Sequence[ExtendKey], request_id: str) -> Iterator[tuple[ExtendKey, str, str]]:
        """Post events in requests as the listener does."""
        for judgement in self._client.deliver(keys, request_id):
            match judgement:
                case Settle():
                    for key, verdict in judgement.verdicts.items():
                        yield key, verdict.kind.value, verdict.reason.value
                case Hold():
                    raise OperatorError(f"the endpoint is unreachable: {judgement.reason.text}", code=3)


class BrokerTarget:
    """The listener's queue, which gets notifications in our own form.

    `mutate`: seed of the faults of each batch; None sends the notifications unchanged.
    """

    name = "broker"

    def __init__(self, publisher: SafePublisher, queue: str, *, mutate: int | None = None) -> None:
        self._publisher = publisher
        self._queue = queue
        self._mutate = mutate
        self._batches = 0
        self.mutations: Counter[Mutation] = Counter()

    def send(self, keys: Sequence[ExtendKey], request_id: str) -> Iterator[tuple[ExtendKey, str, str]]:
        """Publish one notification for each event; an event sent twice has one verdict."""
        messages: Iterable[LoadMessage] = [LoadMessage(_body(key, request_id), key) for key in keys]
        if self._mutate is not None:
            messages = mutated(list(messages), self._mutate + self._batches)
            self._batches += 1
        for message in messages:
            headers = {MUTATION_HEADER: message.mutation.value} if message.mutation is not None else None
            try:
                self._publisher.publish(self._queue, message.body, headers=headers)
            except NotPublishedError as ex:
                raise OperatorError(f"the broker refused the message: {ex}", code=3) from ex
            if message.mutation is not None:
                self.mutations[message.mutation] += 1
            if message.key is not None and message.mutation is not Mutation.DUPLICATED:
                yield message.key, "published", self._queue


def _body(key: ExtendKey, request_id: str) -> bytes:
    row = Row(server_id=key.server_id, attached=True, readable=True)
    origin = Origin(message_id=replay_id(), global_request_id=request_id)
    return notification(key.volume_id, [row], size=None, origin=origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRate:
    """The pace of a replay. `speed`: times faster than recorded, None: no limit; `rate`: most events a second."""

    speed: float | None = None
    rate: float | None = None

    def due(self, number: int, item: Item, first: Item) -> float:
        """Return the seconds after the start at which an event may be sent."""
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
    """Send the events without a verdict; return counts by (verdict, reason).

    Ends early when `stop` is set, and with OperatorError without an answer. In both cases the verdicts are in the
    progress file, and the next run sends only the other events.
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
                progress.end()  # no event is sent, so the next run has no progress to continue
    if not left:
        progress.end()
    return verdicts


def _batch(
    left: Sequence[tuple[int, Item]], due: Callable[[int, Item], float], stop: threading.Event
) -> list[tuple[int, Item]]:
    """Return the distinct events that may be sent together now, in order; empty when told to stop.

    Waits for the first event. `due`: seconds until an event may be sent.
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
    return AuditRecord.of(
        item.key,
        event,
        time.time(),
        project=item.origin.project,
        global_request_id=request_id,
        outcome=outcome,
        reason=reason,
        data={"to": to, **({"of": of} if of else {})},
    )
