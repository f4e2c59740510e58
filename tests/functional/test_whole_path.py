# SPDX-License-Identifier: Apache-2.0
"""Notification in, grown disk out: four processes, a real broker, a real guest, and what goes wrong in between."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bridge.audit.story import is_replayed
from bridge.core.extend import gib
from bridge.journal.tables import attempts, extends
from bridge.standin.cinder import StandInCinder
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.functional.small_cloud import SmallCloud, small_cloud
from tests.lab.deploy import Deployment, Processes, run_processes
from tests.lab.disks import Disk
from tests.lab.guest import Guest
from tests.lab.hypervisor import Hypervisor, have_hypervisor
from tests.lab.paths import ROOT
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

WRITTEN = {"posted", "accepted", "dispatched", "step", "closed"}


@dataclass(kw_only=True)
class Cloud:
    """A small cloud, and the bridge as four processes."""

    small: SmallCloud
    bridge: Deployment

    @property
    def hypervisor(self) -> Hypervisor:
        """The libvirt."""
        return self.small.hypervisor

    @property
    def guest(self) -> Guest:
        """The guest."""
        return self.small.guest

    @property
    def disk(self) -> Disk:
        """Its volume."""
        return self.small.disk

    @property
    def cinder(self) -> StandInCinder:
        """The Cinder."""
        return self.small.cinder

    @property
    def processes(self) -> Processes:
        """The four."""
        assert self.bridge.processes is not None
        return self.bridge.processes

    def extend(self, size: int) -> str:
        """What Cinder does: the volume grows (GiB), then the notification; the id of the user's request."""
        body, request_id = self.small.grow(size)
        self.bridge.bus.publish(body)
        return request_id

    def rows(self, table: sa.Table) -> list[dict[str, object]]:
        """Rows of the journal, oldest first."""
        journal = self.bridge.site.journal()
        try:
            return journal.database.read(lambda c: [dict(row) for row in c.execute(sa.select(table)).mappings()])
        finally:
            journal.database.dispose()

    def closed(self) -> list[dict[str, object]]:
        """Closed extends."""
        return [row for row in self.rows(extends) if row["open"] is None]

    def hang_qemu(self) -> int:
        """Stop QEMU as a hung storage does: whoever asks it something waits. Its pid."""
        (pid,) = self.hypervisor.pids().values()
        os.kill(pid, signal.SIGSTOP)
        return pid

    def wait_in_flight(self) -> None:
        """Until the host agent works on an order."""
        until(
            lambda: self.processes.metric("hostagent", "extend_bridge_hostagent_in_flight") >= 1, "an order in hand"
        )


@pytest.fixture
def cloud(vhost: Vhost) -> Iterator[Cloud]:
    """Everything ready, the guest known."""
    if not have_hypervisor():
        missing("QEMU, libvirt or gcc")
    with ExitStack() as stack:
        small = small_cloud(stack, vhost)
        bridge = run_processes(small.site, stack)
        until(lambda: small.site.knows(small.guest.server_id), "the guest is known")
        yield Cloud(small=small, bridge=bridge)


def test_an_extend_reaches_the_guest_and_closes_as_resized(cloud: Cloud) -> None:
    cloud.extend(2)
    cloud.guest.wait_size(gib(2))
    until(cloud.closed, "the extend closes")
    (row,) = cloud.closed()
    assert (row["outcome"], row["wanted_gen"], row["attempt"]) == ("resized", 1, 1)
    (attempt,) = cloud.rows(attempts)
    assert (attempt["size_before"], attempt["size_after"], attempt["target"]) == (gib(1), gib(2), gib(2))


def test_the_users_request_id_is_in_every_log_and_audit_line(cloud: Cloud) -> None:
    """From Cinder's notification by the HTTP header, the journal, the cast and the report."""
    request_id = cloud.extend(2)
    until(cloud.closed, "the extend closes")
    (row,) = cloud.closed()
    lines = [json.loads(line) for line in cloud.bridge.site.audit_file.read_text().splitlines()]
    told = {line["event"]: line for line in lines if line.get("volume") == cloud.disk.volume_id}
    assert {"received", "posted", "accepted", "dispatched", "step", "closed"} <= told.keys()
    for event, line in told.items():
        assert request_id in {line.get("request_id"), line.get("global_request_id")}, event
    assert {told[event]["extend_id"] for event in ("accepted", "dispatched", "step", "closed")} == {row["id"]}
    for part in ("api", "hostagent"):
        assert request_id in cloud.processes.log(part).read_text(), part


@pytest.mark.parametrize("to", ["endpoint", "broker"])
def test_a_replayed_extend_is_told_from_a_real_one_in_every_line(cloud: Cloud, tmp_path: Path, to: str) -> None:
    """The mark goes by the HTTP header, through journal and engine; the agent does what it does for any other."""
    cloud.extend(2)
    site, recording = cloud.bridge.site, tmp_path / "recording.log"
    until(lambda: _events(_lines(site.audit_file)) >= WRITTEN, "all is written down")
    recording.write_text(site.audit_file.read_text())
    assert not any(map(is_replayed, _request_ids(_lines(site.audit_file))))
    argv = [sys.executable, "-m", "bridge.cli.app", "replay", "--send", "--to", to, "--config-file", str(site.conf)]
    subprocess.run([*argv, str(recording)], cwd=ROOT, check=True, capture_output=True, timeout=600)
    known = len(_lines(recording))
    until(lambda: _events(_lines(site.audit_file)[known:]) >= WRITTEN | {"replayed"}, "all is written down again")
    assert [row["outcome"] for row in cloud.closed()] == ["resized", "already"]
    again = _lines(site.audit_file)[known:]
    assert all(map(is_replayed, _request_ids(again)))
    argv = [sys.executable, "-m", "bridge.cli.app", "audit", "trace", "-f", "json", cloud.disk.volume_id]
    argv += ["--log", str(site.audit_file)]
    told = json.loads(subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=600).stdout)
    marked = {row["Part"] for row in told if "replayed" in row["What"]}
    assert marked >= {"operator", "api", "engine", *(["listener"] if to == "broker" else [])}


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def _events(lines: Sequence[dict[str, Any]]) -> set[str]:
    return {line["event"] for line in lines}


def _request_ids(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Of each line the id it carries through all parts; "" where it has none."""
    return [line.get("global_request_id") or line.get("request_id") or "" for line in lines]


def test_the_same_notification_again_finds_the_size_there_and_touches_nothing(cloud: Cloud) -> None:
    cloud.extend(2)
    until(cloud.closed, "the extend closes")
    body, _ = cloud.small.notification(1)  # an old one, with an old size: no size in a message reaches a disk
    cloud.bridge.bus.publish(body)
    until(lambda: len(cloud.closed()) == 2, "the second extend closes")
    assert [row["outcome"] for row in cloud.closed()] == ["resized", "already"]
    assert cloud.guest.sizes() == [gib(1), gib(2)]


def test_a_volume_grown_behind_our_back_reaches_the_guest_without_any_event(cloud: Cloud) -> None:
    with cloud.bridge.site.conf.open("a") as conf:
        conf.write("[engine]\nreconcile_interval = 1\n")
    cloud.processes.stop("engine")
    cloud.processes.start("engine")
    cloud.cinder.extend(cloud.disk.volume_id, 2)
    cloud.guest.wait_size(gib(2))
    until(cloud.closed, "the extend closes")
    (row,) = cloud.closed()
    assert (row["source"], row["outcome"]) == ("reconcile", "resized")
    asked = sum(n for (_, path), n in cloud.cinder.requests.items() if path.endswith("/volumes/detail"))
    until(
        lambda: (
            sum(n for (_, path), n in cloud.cinder.requests.items() if path.endswith("/volumes/detail")) > asked + 1
        ),
        "two more passes",
    )
    assert len(cloud.rows(extends)) == 1, "a size that a report read back is not mended again"


def test_an_agent_killed_between_cast_and_report_finishes_after_its_restart(cloud: Cloud) -> None:
    pid = cloud.hang_qemu()
    try:
        cloud.extend(2)
        cloud.wait_in_flight()
        cloud.processes.kill("hostagent")
        assert cloud.closed() == []
    finally:
        os.kill(pid, signal.SIGCONT)
    cloud.processes.start("hostagent")
    cloud.guest.wait_size(gib(2))
    until(cloud.closed, "the extend closes")
    (row,) = cloud.closed()
    assert row["outcome"] in {"resized", "already"}
    assert int(str(row["attempt"])) >= 2, "the order that died with the agent must have been cast again"


def test_a_second_extend_while_the_first_is_on_its_way_ends_at_the_larger_size(cloud: Cloud) -> None:
    pid = cloud.hang_qemu()
    try:
        cloud.extend(2)
        cloud.wait_in_flight()
        cloud.extend(3)
        until(lambda: cloud.rows(extends)[0]["wanted_gen"] == 2, "the second arrival raises the generation")
    finally:
        os.kill(pid, signal.SIGCONT)
    cloud.guest.wait_size(gib(3))
    until(cloud.closed, "the extend closes")
    (row,) = cloud.closed()
    assert (row["wanted_gen"], row["open"]) == (2, None)
    assert cloud.guest.sizes() == sorted(cloud.guest.sizes())


def test_what_is_extended_while_the_host_is_down_arrives_when_it_is_back(cloud: Cloud) -> None:
    cloud.processes.stop("hostagent")
    cloud.extend(2)
    until(lambda: cloud.rows(attempts), "the order waits in the host's queue")
    cloud.processes.start("hostagent")
    cloud.guest.wait_size(gib(2))
    until(cloud.closed, "the extend closes")


def test_every_part_ends_in_order_on_sigterm(cloud: Cloud) -> None:
    assert cloud.processes.stop() == dict.fromkeys(("engine", "api", "hostagent", "listener"), 0)


def test_a_volume_that_was_detached_or_deleted_meanwhile_closes_without_touching_the_guest(cloud: Cloud) -> None:
    cloud.cinder.volumes.change(cloud.disk.volume_id, attachments=(), status="available")
    cloud.extend(2)
    until(cloud.closed, "the extend closes")
    cloud.cinder.volumes.remove(cloud.disk.volume_id)
    body, _ = cloud.small.notification(3)
    cloud.bridge.bus.publish(body)
    until(lambda: len(cloud.closed()) == 2, "the second extend closes")
    assert [row["outcome"] for row in cloud.closed()] == ["detached", "volume_gone"]
    assert cloud.guest.sizes() == [gib(1)]
