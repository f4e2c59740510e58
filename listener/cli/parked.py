# SPDX-License-Identifier: Apache-2.0
"""The parked lane for a person: list and show without a trace, send again, discard.

A message that is taken and given back counts as delivered. A broker with a delivery limit drops it after some
reads. Therefore each message that stays is published anew, safely, before the old copy is acknowledged. So no
message is ever lost. An interruption leaves at most a second copy, which is shown once.

`extend-bridge parked list|show|replay|discard`.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import amqp.exceptions
import kombu
from cliff.command import Command
from oslo_config import cfg

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import OperatorError
from bridge.core.extend import ExtendKey, clean_request_id, is_uuid, replay_id
from bridge.runtime import commands, config
from bridge.runtime.broker import BROKER_ERRORS, PARKED_QUEUE, kombu_connection
from bridge.runtime.bus_url import check_url
from bridge.runtime.endpoints import open_client
from bridge.runtime.listing import Listing, Showing
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from bridge.runtime.raw_messages import body_bytes
from bridge.runtime.rest import NovaEventsClient
from listener.cli.sender import EndpointTarget
from listener.endpoint import EndpointClient
from listener.settings import listener_groups, listener_settings

_GUARD: Final = f"{PARKED_QUEUE}.looked_at"
_ID: Final = 12


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of the lane: its id, which a read does not change, and its content."""

    id: str
    says: Mapping[str, Any]


class Lane:
    """The parked lane, open for one person at a time."""

    def __init__(self, connection: kombu.Connection) -> None:
        self._connection = connection

    def walk(self, gone: Callable[[Kept], bool]) -> list[Kept]:
        """Read every message once, and remove those for which `gone` is true. The rest stays, in order.

        Raises OperatorError; then every message is still in the lane.
        """
        seen: dict[str, Kept] = {}
        with self._alone() as channel, SafePublisher(self._connection) as publisher:
            try:
                left = kombu.Queue(PARKED_QUEUE, channel=channel).queue_declare(passive=True).message_count
            except amqp.exceptions.NotFound:
                return []
            while left and (message := channel.basic_get(PARKED_QUEUE)) is not None:
                left -= 1
                body = body_bytes(message)
                kept = _kept(body)
                if kept.id in seen or gone(kept):
                    seen.setdefault(kept.id, kept)
                else:
                    seen[kept.id] = kept
                    publisher.publish(PARKED_QUEUE, body)
                channel.basic_ack(message.delivery_tag)
        return list(seen.values())

    @contextmanager
    def _alone(self) -> Iterator[Any]:
        try:
            with self._connection, self._connection.channel() as channel:
                kombu.Queue(
                    _GUARD, channel=channel, exclusive=True, auto_delete=True, durable=False
                ).queue_declare()
                yield channel
        except amqp.exceptions.ResourceLocked as ex:
            raise OperatorError(
                "another command is using the parked lane; try again when it has ended", code=1
            ) from ex
        except NotPublishedError as ex:
            raise OperatorError(f"the parked lane cannot be written: {ex}", code=3) from ex
        except BROKER_ERRORS as ex:
            words = commands.broker_words(ex, "[bus] transport_url")
            raise OperatorError(f"our own message bus: {words}", code=3) from ex


def _kept(body: bytes) -> Kept:
    try:
        says = json.loads(body)
    except (ValueError, RecursionError):
        says = {}
    return Kept(hashlib.sha256(body).hexdigest()[:_ID], says if isinstance(says, dict) else {})


_AGENT: Final = "extend-bridge parked"
_FIELDS: Final = ("reason", "server_id", "volume_id", "first_seen", "parked_at", "attempts", "request_id")


class _OfLane(Command):  # type: ignore[misc,unused-ignore]
    """The options and the connection of every command of the lane."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        commands.add_config_option(parser)
        return parser

    def conf(self, parsed: argparse.Namespace) -> cfg.ConfigOpts:
        """Load the listener's configuration."""
        return commands.load(parsed, listener_groups())

    def lane(self, conf: cfg.ConfigOpts) -> Lane:
        """Return the parked lane on our own bus."""
        bus = config.read(conf, listener_settings).bus
        check_url(bus.transport_url, "[bus] transport_url")
        commands.outside(bus.transport_url, "[bus] transport_url")
        return Lane(kombu_connection(bus.transport_url, heartbeat=bus.heartbeat, name=_AGENT))


class ParkedList(_OfLane, Listing):
    """List the parked messages. Leaves no trace: a listed message does not count as delivered."""

    _epilog = "Example: extend-bridge parked list"
    nothing = "nothing is parked"

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        found = self.lane(self.conf(parsed_args)).walk(lambda _: False)
        names = ("ID", *(name.replace("_", " ").capitalize() for name in _FIELDS))
        return names, [(kept.id, *(_shown(name, kept.says.get(name)) for name in _FIELDS)) for kept in found]


class ParkedShow(_OfLane, Showing):
    """Show one parked message with all its kept fields."""

    _epilog = "Example: extend-bridge parked show ID"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="id of a message from `parked list`")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        found = [k for k in self.lane(self.conf(parsed_args)).walk(lambda _: False) if k.id == parsed_args.id]
        if not found:
            raise OperatorError(f"nothing with the id {parsed_args.id} is parked", code=1)
        says = {name: _shown(name, value) for name, value in found[0].says.items()}
        return ("id", *says), (found[0].id, *says.values())


class _Chosen(_OfLane):
    """The options of a command for some parked messages, or all."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("id", nargs="*", default=[], metavar="ID", help="id of a message from `parked list`")
        which.add_argument("--all", action="store_true", help="all parked events")
        return parser

    def tell(self, done: Collection[str], parsed: argparse.Namespace, what: str, left: Collection[str] = ()) -> int:
        """Write the result and return the exit code. The reasons of the messages in `left` were written before."""
        missing = set(parsed.id) - {*done, *left}
        self.app.stdout.write(f"{len(done)} {what}\n")
        for name in sorted(missing):
            self.app.stderr.write(f"nothing with the id {name} is parked\n")
        return 1 if missing or left else 0


class ParkedReplay(_Chosen):
    """Send parked events to the endpoint again; accepted events leave the lane."""

    _epilog = "Example: extend-bridge parked replay --all"

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        conf = self.conf(parsed_args)
        config.read(conf, listener_settings)
        target = EndpointTarget(
            EndpointClient(NovaEventsClient(open_client(conf, "endpoint", user_agent=_AGENT, once_more=False)))
        )
        audit = commands.audit(conf)
        done: list[str] = []
        left: list[str] = []

        def gone(kept: Kept) -> bool:
            if not (parsed_args.all or kept.id in parsed_args.id):
                return False
            key = _key(kept)
            if key is None:
                self.app.stderr.write(f"{kept.id}: has no server and volume; nothing to send\n")
                left.append(kept.id)
                return False
            request_id = replay_id()
            audit.write(_record(AuditEvent.REPLAYED, kept, global_request_id=request_id))
            ((_, verdict, reason),) = target.send([key], request_id)
            audit.write(
                _record(AuditEvent.POSTED, kept, global_request_id=request_id, outcome=verdict, reason=reason)
            )
            if verdict != "delivered":
                self.app.stderr.write(f"{kept.id}: {reason}\n")
                left.append(kept.id)
                return False
            done.append(kept.id)
            return True

        self.lane(conf).walk(gone)
        return self.tell(done, parsed_args, "delivered", left)


class ParkedDiscard(_Chosen):
    """Discard parked messages; the audit log records each of them."""

    _epilog = "Example: extend-bridge parked discard ID"

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        conf = self.conf(parsed_args)
        audit = commands.audit(conf)
        done: list[str] = []

        def gone(kept: Kept) -> bool:
            if not (parsed_args.all or kept.id in parsed_args.id):
                return False
            audit.write(_record(AuditEvent.DISCARDED, kept))
            done.append(kept.id)
            return True

        self.lane(conf).walk(gone)
        return self.tell(done, parsed_args, "discarded")


def _key(kept: Kept) -> ExtendKey | None:
    server, volume = kept.says.get("server_id"), kept.says.get("volume_id")
    return ExtendKey(str(server).lower(), str(volume).lower()) if is_uuid(server) and is_uuid(volume) else None


def _record(event: AuditEvent, kept: Kept, **more: Any) -> AuditRecord:
    server, volume = kept.says.get("server_id"), kept.says.get("volume_id")
    return AuditRecord(
        event=event,
        at=time.time(),
        server=str(server).lower() if is_uuid(server) else None,
        volume=str(volume).lower() if is_uuid(volume) else None,
        message_id=clean_request_id(kept.says.get("message_id")),
        request_id=clean_request_id(kept.says.get("request_id")),
        data={"parked": kept.id},
        **more,
    )


def _shown(name: str, value: Any) -> Any:
    if name in {"first_seen", "parked_at"} and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return value if isinstance(value, str | int | float) or value is None else str(value)
