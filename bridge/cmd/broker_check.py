# SPDX-License-Identifier: Apache-2.0
"""The checks of a broker: its release, the limits that the release sets, and the features that it refuses.

A broker shows a client neither its policies nor its permitted features. So a check names the default of the
release, and the setting that sets the default aside.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import kombu
from oslo_upgradecheck.upgradecheck import Code, Result

from bridge.runtime.broker import BROKER_ERRORS, QueueSpec, kombu_connection
from bridge.runtime.bus_url import check_url, failure_words, is_memory

_PROG: Final = "extend-bridge-status"
_RABBITMQ: Final = "RabbitMQ"
_NUMBER: Final = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
_OLDEST: Final = (3, 10)
_LIMITS_SINCE: Final = (4, 0)
_REFUSES_SINCE: Final = (4, 3)
DELIVERIES: Final = 20
"""Deliveries of a message after which RabbitMQ 4 drops it from a quorum queue, unless told otherwise."""
_ARGUMENT: Final = "x-delivery-limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerRelease:
    """The product and the version that a broker gives in its greeting."""

    product: str
    version: str

    def __str__(self) -> str:
        return f"{self.product} {self.version}"

    @property
    def number(self) -> tuple[int, int] | None:
        """The major and minor number; None for another product, or a version without them."""
        found = _NUMBER.match(self.version) if self.product == _RABBITMQ else None
        return (int(found[1]), int(found[2])) if found else None

    @property
    def limits_deliveries(self) -> bool:
        """Return whether quorum queues have a delivery limit by default."""
        return self.number is not None and self.number >= _LIMITS_SINCE

    @property
    def refuses_transient_queues(self) -> bool:
        """Return whether queues that are neither durable nor exclusive are refused by default."""
        return self.number is not None and self.number >= _REFUSES_SINCE


def reached(option: str, url: str, queues: Sequence[str] = ()) -> Result:
    """Check that a bus accepts our user, that its release can be used, and that our `queues` have no limit."""
    check_url(url, option)
    if is_memory(url):
        return Result(Code.SUCCESS, "inside the process")
    try:
        with kombu_connection(url, heartbeat=0, name=_PROG) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            release = _release(connection)
            limited = [queue for queue in queues if release.limits_deliveries and _is_limited(connection, queue)]
    except BROKER_ERRORS as ex:
        return Result(Code.FAILURE, f"{option} cannot be reached: {failure_words(ex)}")
    return judged(release, limited)


def judged(release: BrokerRelease, limited: Sequence[str]) -> Result:
    """Return the result for a broker that accepts our user. `limited`: our queues with a delivery limit."""
    if release.number is None:
        return Result(Code.WARNING, f"accepts our user; {release} is not a RabbitMQ: only RabbitMQ is tested")
    if release.number < _OLDEST:
        return Result(Code.FAILURE, f"accepts our user, but {release} is too old: RabbitMQ 3.10 or newer is needed")
    if limited:
        return Result(
            Code.WARNING,
            f"{release} drops a message from {', '.join(limited)} after {DELIVERIES} deliveries, unless a policy "
            "says otherwise: delete each queue while it is empty, and its daemon declares it again without that "
            "limit",
        )
    return Result(Code.SUCCESS, f"accepts our user; {release}")


def release_at(url: str) -> BrokerRelease | None:
    """Return the release of a broker; None for a bus inside the process, or a broker that cannot be reached."""
    if is_memory(url):
        return None
    try:
        with kombu_connection(url, heartbeat=0, name=_PROG) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            return _release(connection)
    except BROKER_ERRORS:
        return None


def depth(url: str, queue: str) -> tuple[int, int] | None:
    """Return the numbers of messages and consumers; None when the queue is missing or not shown to us."""
    if is_memory(url):
        return None
    with kombu_connection(url, heartbeat=0, name=_PROG) as connection:
        try:
            with connection.channel() as channel:
                found = kombu.Queue(queue, channel=channel).queue_declare(passive=True)
        except (*connection.channel_errors, *BROKER_ERRORS):
            return None
        return found.message_count, found.consumer_count


def _release(connection: kombu.Connection) -> BrokerRelease:
    said = connection.connection.server_properties
    return BrokerRelease(product=_text(said.get("product")), version=_text(said.get("version")))


def _text(value: object) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value or "unknown")
    return "".join(letter for letter in text[:64] if letter.isprintable())


def _is_limited(connection: kombu.Connection, queue: str) -> bool:
    """Return whether a queue of ours exists without the delivery limit that means none.

    A declaration with other arguments than the queue's changes nothing, and the broker's error names the argument.
    """
    spec = QueueSpec(name=queue)
    try:
        with connection.channel() as channel:
            kombu.Queue(queue, channel=channel).queue_declare(passive=True)
        with connection.channel() as channel:
            kombu.Queue(queue, channel=channel, durable=True, queue_arguments=spec.arguments()).queue_declare()
    except connection.channel_errors as ex:
        return _ARGUMENT in str(ex)
    return False
