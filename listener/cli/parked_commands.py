# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge parked list|show|replay|discard`."""

import argparse
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

from cliff.command import Command
from oslo_config import cfg

from bridge.core.errors import OperatorError
from bridge.core.extend import ExtendKey, clean_request_id, is_uuid, replay_id
from bridge.core.trail import Event, Record
from bridge.runtime import operator
from bridge.runtime import settings as door
from bridge.runtime.listing import Listing, Showing
from bridge.runtime.sessions import open_adapter
from bridge.runtime.transport import check_url, kombu_connection
from listener.cli.parked import Kept, Lane
from listener.cli.sending import EndpointTarget
from listener.courier import Courier, NovaEndpoint
from listener.settings import listener_groups, listener_settings

_AGENT: Final = "extend-bridge parked"
_FIELDS: Final = ("reason", "server_id", "volume_id", "first_seen", "parked_at", "attempts", "request_id")


class _OfLane(Command):  # type: ignore[misc,unused-ignore]
    """Options and connection of every command of the lane."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        operator.add_config_option(parser)
        return parser

    def conf(self, parsed: argparse.Namespace) -> cfg.ConfigOpts:
        """The listener's configuration."""
        return operator.load(parsed, listener_groups())

    def lane(self, conf: cfg.ConfigOpts) -> Lane:
        """On our own bus."""
        bus = door.read(conf, listener_settings).bus
        check_url(bus.transport_url, "[bus] transport_url")
        operator.outside(bus.transport_url, "[bus] transport_url")
        return Lane(kombu_connection(bus.transport_url, heartbeat=bus.heartbeat, name=_AGENT))


class ParkedList(_OfLane, Listing):
    """List what waits for a person. Leaves no trace: a look does not count as a delivery."""

    _epilog = "Example: extend-bridge parked list"
    nothing = "nothing is parked"

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """See cliff."""
        found = self.lane(self.conf(parsed_args)).walk(lambda _: False)
        names = ("ID", *(name.replace("_", " ").capitalize() for name in _FIELDS))
        return names, [(kept.id, *(_shown(name, kept.says.get(name)) for name in _FIELDS)) for kept in found]


class ParkedShow(_OfLane, Showing):
    """Show one of them with everything that was kept."""

    _epilog = "Example: extend-bridge parked show ID"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="of `parked list`")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """See cliff."""
        found = [k for k in self.lane(self.conf(parsed_args)).walk(lambda _: False) if k.id == parsed_args.id]
        if not found:
            raise OperatorError(f"nothing with the id {parsed_args.id} is parked", code=1)
        says = {name: _shown(name, value) for name, value in found[0].says.items()}
        return ("id", *says), (found[0].id, *says.values())


class _Chosen(_OfLane):
    """A command for some of them, or all."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("id", nargs="*", default=[], metavar="ID", help="of `parked list`")
        which.add_argument("--all", action="store_true", help="every one of them")
        return parser

    def tell(self, done: Collection[str], parsed: argparse.Namespace, what: str, left: Collection[str] = ()) -> int:
        """Say what was done; the exit code. Of what is `left` the reason was said."""
        missing = set(parsed.id) - {*done, *left}
        self.app.stdout.write(f"{len(done)} {what}\n")
        for name in sorted(missing):
            self.app.stderr.write(f"nothing with the id {name} is parked\n")
        return 1 if missing or left else 0


class ParkedReplay(_Chosen):
    """Send parked events to the endpoint again; what it takes leaves the lane."""

    _epilog = "Example: extend-bridge parked replay --all"

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """See cliff."""
        conf = self.conf(parsed_args)
        timeout = door.read(conf, listener_settings).endpoint_timeout
        target = EndpointTarget(
            Courier(NovaEndpoint(open_adapter(conf, "endpoint", user_agent=_AGENT), timeout=timeout))
        )
        audit = operator.audit(conf)
        done: list[str] = []
        left: list[str] = []

        def gone(kept: Kept) -> bool:
            if not (parsed_args.all or kept.id in parsed_args.id):
                return False
            key = _key(kept)
            if key is None:
                self.app.stderr.write(f"{kept.id}: names no server and volume; nothing to send\n")
                left.append(kept.id)
                return False
            request_id = replay_id()
            audit.write(_record(Event.REPLAYED, kept, global_request_id=request_id))
            ((_, verdict, reason),) = target.send([key], request_id)
            audit.write(_record(Event.POSTED, kept, global_request_id=request_id, outcome=verdict, reason=reason))
            if verdict != "delivered":
                self.app.stderr.write(f"{kept.id}: {reason}\n")
                left.append(kept.id)
                return False
            done.append(kept.id)
            return True

        self.lane(conf).walk(gone)
        return self.tell(done, parsed_args, "delivered", left)


class ParkedDiscard(_Chosen):
    """Throw parked messages away; the audit log keeps that it was done."""

    _epilog = "Example: extend-bridge parked discard ID"

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """See cliff."""
        conf = self.conf(parsed_args)
        audit = operator.audit(conf)
        done: list[str] = []

        def gone(kept: Kept) -> bool:
            if not (parsed_args.all or kept.id in parsed_args.id):
                return False
            audit.write(_record(Event.DISCARDED, kept))
            done.append(kept.id)
            return True

        self.lane(conf).walk(gone)
        return self.tell(done, parsed_args, "discarded")


def _key(kept: Kept) -> ExtendKey | None:
    server, volume = kept.says.get("server_id"), kept.says.get("volume_id")
    return ExtendKey(str(server).lower(), str(volume).lower()) if is_uuid(server) and is_uuid(volume) else None


def _record(event: Event, kept: Kept, **more: Any) -> Record:
    server, volume = kept.says.get("server_id"), kept.says.get("volume_id")
    return Record(
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
