# SPDX-License-Identifier: Apache-2.0
"""tools/feed: recorded raw messages through a real broker and the listener, against an endpoint that records."""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.lab.endpoint import RecordingEndpoint
from tests.lab.recording import BadRecordingError, Recorded, read_recording

EXIT_USAGE: Final = 2
_PATIENCE: Final = 300.0  # seconds without any progress
_TOOL: Final = "tools/feed"


def options(argv: Sequence[str] | None) -> Path:
    """The file to feed. Standard library only: read before anything is installed."""
    parser = argparse.ArgumentParser(
        prog=_TOOL,
        description="Puts recorded notifications (one JSON object a line: routing_key, headers, properties, body) "
        "through a private RabbitMQ node and the listener, against an endpoint that takes every event. The last "
        "line is a JSON object of counts.",
        epilog=f"Example: {_TOOL} bridge/standin/recorded.jsonl",
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl")
    path: Path = parser.parse_args(argv).file
    return path


def read(path: Path) -> list[Recorded] | None:
    """The recording; None, and a line on standard error, for a file nobody can use. Standard library only, too."""
    try:
        return read_recording(path)
    except BadRecordingError as ex:
        sys.stderr.write(f"{_TOOL}: {ex}\n")
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 when the listener did not settle everything, or 2 for a file nobody can use."""
    recorded = read(options(argv))
    if recorded is None:
        return EXIT_USAGE
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eb-feed-")))
        run = _Run(directory, stack)
        if not run.feed(recorded):
            sys.stderr.write(f"{_TOOL}: no progress for {_PATIENCE:.0f} s; {run.log} says why\n")
            sys.stderr.write(run.log.read_text(errors="replace")[-2000:])
            return 1
        counts = run.counts(len(recorded))
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0


class _Run:
    """Broker, endpoint and listener, and what they counted."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        import bridge.runtime.threads  # noqa: F401, PLC0415 - first of all, once the file is known to be good
        from bridge.runtime.process import daemon  # noqa: PLC0415
        from listener.settings import listener_groups, listener_settings  # noqa: PLC0415
        from listener.wiring import build  # noqa: PLC0415
        from tests.lab.cinder_bus import CinderBus  # noqa: PLC0415
        from tests.lab.rabbitmq import RabbitNode  # noqa: PLC0415

        self.log, self._audit = directory / "listener.log", directory / "audit.jsonl"
        endpoint = stack.enter_context(RecordingEndpoint())
        node = stack.enter_context(RabbitNode())
        self._bus = CinderBus(node.url)
        stack.callback(self._bus.close)
        conf = directory / "feed.conf"
        conf.write_text(
            f"[notifications]\ntransport_url = {node.url}\n[bus]\ntransport_url = {node.url}\n"
            f"[endpoint]\nendpoint_override = {endpoint.url}\n[audit]\nfile = {self._audit}\n"
        )
        argv = ["--config-file", str(conf), "--log-file", str(self.log)]
        listener, process = daemon(
            "listener", listener_groups(), listener_settings, build, description="", argv=argv
        )
        stack.enter_context(listener.running())
        self._registry = process.registry

    def feed(self, recorded: Sequence[Recorded]) -> bool:
        """Publish everything and wait until the listener has settled it; False when it does not come to that."""
        for message in recorded:
            self._bus.publish(
                message.body,
                priority=message.routing_key.rpartition(".")[2],
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=message.headers,
            )
        bar = _Bar(len(recorded))
        last, since = -1, time.monotonic()
        while True:
            taken = int(self._value("extend_bridge_listener_messages_total"))
            in_hand = int(self._value("extend_bridge_listener_in_hand"))
            bar.show(taken - in_hand)
            if taken >= len(recorded) and in_hand == 0:
                bar.end()
                return True
            if taken - in_hand != last:
                last, since = taken - in_hand, time.monotonic()
            if time.monotonic() - since > _PATIENCE:
                bar.end()
                return False
            time.sleep(0.02)

    def counts(self, messages: int) -> dict[str, Any]:
        """The counts of the last line."""
        seen: Counter[str] = Counter()
        for line in self._audit.read_text().splitlines() if self._audit.exists() else ():
            record = json.loads(line)
            event = record["event"]
            seen["events"] += event == "received" and "server" in record
            seen["delivered"] += event == "posted" and record["outcome"] == "delivered"
            seen["retried"] += event in {"held", "deferred"}
            seen["parked"] += event == "parked"
            seen["unreadable"] += event == "unreadable"
        skipped = {
            sample.labels["reason"]: int(sample.value)
            for metric in self._registry.collect()
            for sample in metric.samples
            if sample.name == "extend_bridge_listener_skipped_total"
        }
        names = ("events", "delivered", "retried", "parked", "unreadable")
        return {
            "messages": messages,
            **{name: seen[name] for name in names},
            "skipped": dict(sorted(skipped.items())),
        }

    def _value(self, name: str) -> float:
        return float(self._registry.get_sample_value(name) or 0)


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    _WIDTH: Final = 40

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._shown = sys.stderr.isatty()

    def show(self, done: int) -> None:
        """Draw it."""
        if self._shown and self._whole:
            filled = self._WIDTH * max(0, done) // self._whole
            sys.stderr.write(f"\r[{'#' * filled:<{self._WIDTH}}] {done}/{self._whole} messages")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave it standing."""
        if self._shown and self._whole:
            sys.stderr.write("\n")


if __name__ == "__main__":
    raise SystemExit(main())
