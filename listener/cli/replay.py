# SPDX-License-Identifier: Apache-2.0
"""The command `extend-bridge replay`."""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cliff.lister import Lister
from oslo_config import cfg

from bridge.core.errors import OperatorError
from bridge.core.extend import ExtendKey, is_uuid
from bridge.runtime import commands, config
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import check_url
from bridge.runtime.endpoints import open_client
from bridge.runtime.publisher import SafePublisher
from bridge.runtime.rest import NovaEventsClient
from listener.cli.load import MUTATION_HEADER, multiplied, volumes_of
from listener.cli.recordings import Item, read
from listener.cli.sender import BrokerTarget, EndpointTarget, Progress, ReplayRate, Target, send
from listener.endpoint import EndpointClient
from listener.settings import ListenerSettings, listener_groups, listener_settings
from listener.sources import BindSource, TopicSource

_AGENT: Final = "extend-bridge replay"
_MOST: Final = 100_000


class Replay(Lister):  # type: ignore[misc,unused-ignore]
    """Send recorded extends again. Prints what would be sent; --send sends it.

    Reads recordings, raw captures of other tools and audit logs. For the parked lane use `parked replay`.
    --multiply and --mutate make a larger or a worse load of a recording, for tests.
    Exits with 1 if it was interrupted; the same command continues.
    """

    _epilog = "Example: extend-bridge replay --send --rate 10 resizes.jsonl"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        commands.add_config_option(parser)
        parser.add_argument("file", nargs="+", type=Path, metavar="FILE", help="recordings, one JSON object a line")
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--dry-run", action="store_true", help="print the events without sending them (the default)"
        )
        what.add_argument("--send", action="store_true", help="send the events")
        parser.add_argument(
            "--to", choices=("endpoint", "broker"), default="endpoint",
            help="the HTTP endpoint of [endpoint], or the listener's queue of [notifications] (default: endpoint)",
        )  # fmt: skip
        parser.add_argument("--endpoint", metavar="URL", help="send to this URL, without authentication")
        parser.add_argument(
            "--speed",
            default="max",
            metavar="1x|10x|max",
            help="1x: at the recorded pace; Nx: N times faster; max: without a limit",
        )
        parser.add_argument("--rate", type=float, metavar="N", help="send at most this many events a second")
        parser.add_argument(
            "--map", action="append", default=[], metavar="OLD=NEW|FILE",
            help="replace an id of a volume or server; a file has OLD,NEW in each line; may be given several times",
        )  # fmt: skip
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="ID",
            help="only events of this volume or server; may be given several times",
        )
        parser.add_argument(
            "--multiply", type=_count, default=1, metavar="N",
            help="send each event N times: as recorded, and N-1 copies with ids of their own",
        )  # fmt: skip
        parser.add_argument(
            "--hosts", type=_count, metavar="M",
            help="with --volumes: spread the servers over M hosts, host-1 to host-M (default: 1)",
        )  # fmt: skip
        parser.add_argument(
            "--volumes", type=Path, metavar="FILE.json",
            help="write the volumes of this load for `extend-bridge-cinder-standin --volumes FILE.json`",
        )  # fmt: skip
        parser.add_argument(
            "--mutate", type=int, metavar="SEED",
            help="with --to broker: reorder messages, send some twice, add cut and poisoned ones, each with the "
            f"header {MUTATION_HEADER}",
        )  # fmt: skip
        parser.add_argument(
            "--state", type=Path, metavar="FILE",
            help="position of an interrupted replay (default: FILE.replay beside the first recording)",
        )  # fmt: skip
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command and return the exit code."""
        self.code = 0
        self.faults: Counter[tuple[str, str]] = Counter()
        return super().run(parsed_args) or self.code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Read the recordings and send, or print, their events."""
        pace = ReplayRate(speed=_speed(parsed_args.speed), rate=_rate(parsed_args.rate))
        mapping = _mapping(parsed_args.map)
        recording = read(parsed_args.file)
        only = {text.lower() for text in parsed_args.only}
        chosen = [item for item in recording.items if not only or only & {item.key.server_id, item.key.volume_id}]
        if parsed_args.mutate is not None and parsed_args.to != "broker":
            raise OperatorError("--mutate needs --to broker, because the endpoint gets events, not messages")
        if parsed_args.hosts is not None and parsed_args.volumes is None:
            raise OperatorError("--hosts needs --volumes FILE.json, the file for the volumes and their hosts")
        mapped = [replace(item, key=_mapped(item.key, mapping)) for item in chosen]
        items = multiplied(mapped, parsed_args.multiply)
        if parsed_args.volumes is not None:
            _write_volumes(parsed_args.volumes, items, parsed_args.hosts or 1)
        rows: list[tuple[Any, ...]] = [("messages", "", recording.messages), ("events", "", len(items))]
        if parsed_args.send:
            verdicts = self._send(parsed_args, items, pace)
            rows += [(verdict, reason, count) for (verdict, reason), count in sorted(verdicts.items())]
            rows += [(verdict, reason, count) for (verdict, reason), count in sorted(self.faults.items())]
            left = len(items) - verdicts.total()
            if left:
                rows.append(("not sent now", "sent by an earlier run, or left for the next", left))
        else:
            rows.append(("would send", parsed_args.to, len(items)))
            self.app.stderr.write("nothing was sent; use --send to send\n")
        if len(chosen) < len(recording.items):
            rows.append(("left out", "by --only", len(recording.items) - len(chosen)))
        for name, counts in (
            ("skipped", recording.skipped), ("parked", recording.parked), ("unreadable", recording.unreadable),
        ):  # fmt: skip
            rows += [(name, reason, count) for reason, count in sorted(counts.items())]
        return ("Verdict", "Reason", "Count"), rows

    def _send(self, parsed: argparse.Namespace, items: list[Item], pace: ReplayRate) -> Counter[tuple[str, str]]:
        conf = commands.load(parsed, listener_groups())
        state = parsed.state or parsed.file[0].with_name(f"{parsed.file[0].name}.replay")
        progress = Progress(state, items)
        if progress.done:
            self.app.stderr.write(f"continuing: {len(progress.done)} of {len(items)} events were sent before\n")
        with commands.stoppable() as stop, _target(conf, parsed) as target:
            verdicts = send(items, target, pace=pace, progress=progress, audit=commands.audit(conf), stop=stop)
            if isinstance(target, BrokerTarget):
                self.faults.update({("mutated", kind.value): count for kind, count in target.mutations.items()})
        if stop.is_set() and len(progress.done) < len(items):
            self.code = 1
            self.app.stderr.write(
                f"interrupted after {len(progress.done)} of {len(items)} events; the same command continues\n"
            )
        return verdicts


@contextmanager
def _target(conf: cfg.ConfigOpts, parsed: argparse.Namespace) -> Iterator[Target]:
    if parsed.to == "endpoint":
        if parsed.endpoint:
            conf.set_override("auth_type", "none", group="endpoint")
            conf.set_override("endpoint_override", parsed.endpoint, group="endpoint")
        yield EndpointTarget(
            EndpointClient(NovaEventsClient(open_client(conf, "endpoint", user_agent=_AGENT, once_more=False)))
        )
        return
    settings = config.read(conf, listener_settings)
    check_url(settings.transport_url, "[notifications] transport_url")
    commands.outside(settings.transport_url, "[notifications] transport_url")
    with kombu_connection(settings.transport_url, heartbeat=settings.bus.heartbeat, name=_AGENT) as connection:
        yield BrokerTarget(SafePublisher(connection), intake_queue(settings), mutate=parsed.mutate)


def intake_queue(settings: ListenerSettings) -> str:
    """Return the queue from which the listener takes notifications."""
    bind = settings.intake.value == "bind"
    return (BindSource(settings.topic, settings.exchange) if bind else TopicSource(settings.topic)).queues[0]


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0
    if not text.endswith("x") or not 0 < speed < float("inf"):
        raise OperatorError(f"--speed: {text!r} is neither max nor a factor such as 1x or 10x")
    return speed


def _rate(rate: float | None) -> float | None:
    if rate is not None and not 0 < rate < float("inf"):
        raise OperatorError(f"--rate: {rate} must be greater than 0: events a second")
    return rate


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST}")
    return int(text)


def _write_volumes(path: Path, items: list[Item], hosts: int) -> None:
    try:
        path.write_text(json.dumps(volumes_of(items, hosts), indent=1) + "\n")
    except OSError as ex:
        raise OperatorError(f"--volumes: {path} cannot be written: {ex.strerror}") from ex


def _mapping(words: list[str]) -> Mapping[str, str]:
    mapping: dict[str, str] = {}
    for word in words:
        pairs = [word.split("=", 1)] if "=" in word else _pairs(Path(word))
        for pair in pairs:
            if len(pair) != 2 or not all(map(is_uuid, pair)):  # noqa: PLR2004 - old and new
                raise OperatorError(f"--map: {','.join(pair)!r} is not a pair of ids")
            mapping[pair[0].lower()] = pair[1].lower()
    return mapping


def _pairs(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError) as ex:
        raise OperatorError(f"--map: {path} cannot be read") from ex


def _mapped(key: ExtendKey, mapping: Mapping[str, str]) -> ExtendKey:
    return ExtendKey(mapping.get(key.server_id, key.server_id), mapping.get(key.volume_id, key.volume_id))
