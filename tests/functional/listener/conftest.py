# SPDX-License-Identifier: Apache-2.0
"""A listener between a real broker and an endpoint that does as it is told."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kombu
import pytest

from bridge.runtime.health import Check
from bridge.runtime.process import Process, daemon
from listener.settings import listener_groups, listener_settings
from listener.wiring import build
from tests.functional.conftest import Vhost
from tests.lab.cinder_bus import CinderBus
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.ports import steady_port
from tests.lab.waiting import until

PREFIX = "extend_bridge_listener_"


@dataclass(kw_only=True)
class Lab:
    """Cinder's bus, an endpoint, and where the listener between them writes. `more`: options by group."""

    vhost: Vhost
    endpoint: RecordingEndpoint
    directory: Path
    heartbeat: int = 30
    lanes_url: str | None = None
    ops_port: int = field(default_factory=steady_port)
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """Its configuration."""
        path = self.directory / "listener.conf"
        path.write_text(
            f"[notifications]\ntransport_url = {self.vhost.url}\n"
            f"[bus]\ntransport_url = {self.lanes_url or self.vhost.url}\nheartbeat = {self.heartbeat}\n"
            f"[endpoint]\nendpoint_override = {self.endpoint.url}\ntimeout = 2\n"
            f"[listener]\nretry_cap = 0.3\nops_port = {self.ops_port}\n"
            f"[audit]\nfile = {self.directory / 'audit.jsonl'}\n"
            + "".join(f"[{group}]\n{text}\n" for group, text in self.more.items())
        )
        return path

    @property
    def log(self) -> Path:
        """Its log."""
        return self.directory / "listener.log"

    @contextmanager
    def listening(self) -> Iterator["Running"]:
        """A listener in this process."""
        wired, process = daemon(
            "listener",
            listener_groups(),
            listener_settings,
            build,
            description="",
            argv=["--config-file", str(self.conf), "--log-file", str(self.log)],
        )
        with wired.running() as ended:
            yield Running(process, self)
        assert ended(), "the listener must end within its grace"

    def records(self, event: str) -> list[dict[str, Any]]:
        """Audit records of one kind; the listener may be writing, so a line counts once it is whole."""
        path = self.directory / "audit.jsonl"
        lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == event]

    def drain(self, queue: str) -> list[tuple[bytes, Mapping[str, Any]]]:
        """Body and headers of every message of a queue, which is empty afterwards."""
        taken = []
        with self.vhost.connection() as connection:
            channel = connection.channel()
            channel.auto_decode = False
            bound = kombu.Queue(queue, channel=channel, no_declare=True)
            while (message := bound.get(accept=None)) is not None:
                body = message.body if isinstance(message.body, bytes) else message.body.encode()
                taken.append((body, message.headers))
                message.ack()
        return taken

    def waiting(self, queue: str) -> int:
        """Messages of a queue that are ready to be delivered."""
        with self.vhost.connection() as connection:
            declared = kombu.Queue(queue, channel=connection.channel()).queue_declare(passive=True)
            return int(declared.message_count)


@dataclass(frozen=True)
class Running:
    """What can be seen of a running listener."""

    process: Process
    lab: Lab

    def count(self, name: str, **labels: str) -> int:
        """A metric."""
        return int(self.process.registry.get_sample_value(f"{PREFIX}{name}", labels) or 0)

    def counts(self, name: str) -> dict[str, int]:
        """A metric with the label `reason`, by reason."""
        return {
            sample.labels["reason"]: int(sample.value)
            for metric in self.process.registry.collect()
            for sample in metric.samples
            if sample.name == f"{PREFIX}{name}"
        }

    def check(self, name: str) -> Check:
        """One check of its health."""
        return self.process.health.checks()[f"listener.{name}"]

    def settles(self, messages: int) -> None:
        """Wait until so many messages, in all, are taken and acknowledged."""
        until(
            lambda: self.count("messages_total") >= messages and self.count("in_hand") == 0,
            f"{messages} messages are settled",
        )

    def ready(self) -> None:
        """Wait until it is."""
        until(self.process.health.ready, f"ready, beside {self.process.health.checks()}")


@pytest.fixture
def endpoint() -> Iterator[RecordingEndpoint]:
    """Takes every event until told otherwise."""
    with RecordingEndpoint() as recording:
        yield recording


@pytest.fixture
def lab(vhost: Vhost, endpoint: RecordingEndpoint, tmp_path: Path) -> Lab:
    """Nothing runs yet but broker and endpoint."""
    return Lab(vhost=vhost, endpoint=endpoint, directory=tmp_path)


@pytest.fixture
def bus(vhost: Vhost) -> Iterator[CinderBus]:
    """Cinder's side, its queues declared."""
    cinder = CinderBus(vhost.url)
    yield cinder
    cinder.close()
