# SPDX-License-Identifier: Apache-2.0
"""The listener on a real RabbitMQ, its endpoint in another process; beside kombu alone on the same messages."""

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kombu
from oslo_config import cfg
from prometheus_client import CollectorRegistry

from bridge.core.extend import new_id
from bridge.runtime import config
from bridge.runtime.broker import kombu_connection
from bridge.runtime.process import Process
from listener.settings import listener_groups, listener_settings
from listener.wiring import build
from tests.benchmarks.measure import Row, cpu
from tests.benchmarks.workspace import Workspace
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.paths import ROOT
from tests.lab.recording import read_recording
from tests.lab.waiting import until

_NOISE = 6000
_MATCHED = 2000


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come."""
    directory = workspace.directory
    stream = read_recording(ROOT / "bridge" / "standin" / "recorded.jsonl")
    noise = [m.body for m in stream if b"volume.resize.end" not in m.body]
    noise = [noise[n % len(noise)] for n in range(workspace.count(_NOISE))]
    matched = [
        resize_end(volume_id=new_id(), server_id=new_id(), attachment_id=new_id(), host="h", size=2)[0]
        for _ in range(workspace.count(_MATCHED))
    ]
    endpoint = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.endpoint"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert endpoint.stdout is not None
        url = endpoint.stdout.readline().strip()
        bus = workspace.broker()
        bare_noise, ours_noise = _bare(bus, noise), _ours(bus, url, directory, noise)
        bare, ours = _bare(bus, matched), _ours(bus, url, directory, matched)
    finally:
        endpoint.kill()
        endpoint.wait()
    kombu_alone = "kombu: consume, ack each"
    yield Row(
        what="listener, other event types", value=ours_noise, budget=100, bare=bare_noise, bare_what=kombu_alone
    )
    yield Row(what="listener, matched, batches of 100", value=ours, budget=300, bare=bare, bare_what=kombu_alone)


def _publish(url: str, bodies: Sequence[bytes]) -> None:
    """From a process of its own, so that its CPU is not in the figure."""
    child = multiprocessing.get_context("fork").Process(target=_publish_all, args=(url, bodies))
    child.start()
    child.join()


def _publish_all(url: str, bodies: Sequence[bytes]) -> None:
    bus = CinderBus(url)
    for body in bodies:
        bus.publish(body)
    bus.close()


def _bare(url: str, bodies: Sequence[bytes]) -> float:
    _publish(url, bodies)
    left = [len(bodies)]

    def on_message(message: Any) -> None:
        message.ack()
        left[0] -= 1

    with kombu_connection(url, heartbeat=0, name="bare") as connection:
        queue = kombu.Queue("extend_bridge.info", no_declare=True)
        consumer = kombu.Consumer(
            connection.channel(),
            [queue],
            on_message=on_message,
            accept=None,
            prefetch_count=200,
            auto_declare=False,
        )
        with cpu() as used, consumer:
            while left[0]:
                connection.drain_events(timeout=10)
    return used() / len(bodies) * 1e6


def _ours(url: str, endpoint: str, directory: Path, bodies: Sequence[bytes]) -> float:
    conf_file = directory / f"listener-{new_id()}.conf"
    conf_file.write_text(
        f"[notifications]\ntransport_url = {url}\n[bus]\ntransport_url = {url}\n"
        f"[endpoint]\nendpoint_override = {endpoint}\n[audit]\nfile = {directory}/audit-listener.log\n"
    )
    conf: cfg.ConfigOpts = config.load(
        "bench", listener_groups(), ["--config-file", str(conf_file)], description=""
    )
    process = Process(conf=conf, registry=CollectorRegistry(), audit_file=conf.audit.file)
    parts = build(listener_settings(conf), process)
    _publish(url, bodies)
    name = "extend_bridge_listener_messages_total"
    settled = threading.Event()
    with cpu() as used:
        for part in parts:
            part.start()
        until(
            lambda: (
                (process.registry.get_sample_value(name) or 0) >= len(bodies)
                and process.registry.get_sample_value("extend_bridge_listener_in_hand") == 0
            ),
            "the listener settles everything",
            seconds=120,
        )
    settled.set()
    for part in parts:
        part.stop()
    for part in parts:
        part.join(10)
    return used() / len(bodies) * 1e6
