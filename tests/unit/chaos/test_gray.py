# SPDX-License-Identifier: Apache-2.0
"""What a seed decides of gray faults, and when a second counts as blind."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.chaos import blind
from tests.chaos.blind import BlindWatch, StandingStill
from tests.chaos.gray_plan import LINK_FAULTS, USES, Gray, GrayFault, Service, gray_plan, gray_spread
from tests.chaos.ledger import DiskId
from tests.chaos.libvirt_socket import SOCKET, LibvirtWire, PlayedLibvirtd, socket_of
from tests.chaos.options import options
from tests.lab.http_standin import HttpStandIn, QuietHandler
from tests.lab.paths import ROOT
from tests.lab.proxy import Proxy
from tests.lab.waiting import until

ONE: DiskId = ("server-1", "volume-1")
TWO: DiskId = ("server-2", "volume-2")


def faults(*more: str) -> list[GrayFault]:
    return gray_plan(options(["--gray", *more]))


def test_the_same_seed_gives_the_same_faults() -> None:
    assert faults("--seed", "7") == faults("--seed", "7")
    assert faults("--seed", "7") != faults("--seed", "8")


def test_a_dry_run_needs_nothing_but_python() -> None:
    """It is the first thing that is tried on a machine where nothing is installed."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(('sqlalchemy', 'kombu', 'amqp', 'oslo_config')))"
    show = "from tests.chaos.options import options; from tests.chaos.plan import show; show(options(['--gray']))"
    done = subprocess.run([sys.executable, "-c", f"{blocked}; {show}"], cwd=ROOT, capture_output=True, check=True)
    assert b"freeze-old" in done.stdout


@pytest.mark.parametrize("db", ["sqlite", "postgresql", "mariadb"])
def test_every_fault_meets_every_link_in_time(db: str) -> None:
    every = faults("--kills", "200", "--db", db)
    links = {
        (kind, service)
        for kind, services in USES.items()
        for service in services
        if db != "sqlite" or service is not Service.JOURNAL
    }
    met = {(fault.kind, fault.service, fault.fault) for fault in every if fault.service is not None}
    assert met >= {(*link, fault) for link in links for fault in LINK_FAULTS}
    of_servers = {fault.fault for fault in every if fault.service is None}
    of_database = {Gray.LOCKED, Gray.FULL} if db == "sqlite" else {Gray.LOCKED, Gray.READ_ONLY}
    assert of_servers == {Gray.BLOCKED, *of_database}


def test_the_first_half_comes_alone_and_lasts_longer_than_a_check_may_be_silent() -> None:
    every = faults("--kills", "20")
    alone = every[:10]
    for one, next_one in zip(alone, every[1:11], strict=True):
        assert one.at + one.seconds + 15 < next_one.at
    assert all(fault.seconds > 30 for fault in every if fault.fault is not Gray.RESET)
    assert gray_spread(options(["--gray", "--kills", "20"])) == max(f.at + f.seconds for f in every)


def test_the_oldest_disk_that_does_not_move_counts() -> None:
    standing = StandingStill()
    assert standing.look({}, 0) == 0
    assert standing.look({ONE: 1}, 10) == 0
    assert standing.look({ONE: 1, TWO: 1}, 30) == 20
    assert standing.look({ONE: 2, TWO: 1}, 45) == 15, "the first one has moved"
    assert standing.look({TWO: 1}, 50) == 20
    assert standing.look({}, 60) == 0
    assert standing.look({TWO: 1}, 70) == 0, "it is behind anew"


def test_faults_of_one_link_are_of_every_kind_and_of_no_other_link() -> None:
    every = faults("--kills", "7", "--link", "engine:nova", "--lasts", "4")
    assert {(fault.kind, fault.service) for fault in every} == {("engine", Service.NOVA)}
    assert {fault.fault for fault in every} == set(LINK_FAULTS)
    assert {fault.seconds for fault in every} == {4.0, 0.0}


def test_a_fault_can_be_named_with_its_link() -> None:
    every = faults("--kills", "3", "--link", "engine:nova:freeze", "--lasts", "4")
    assert {(fault.kind, fault.service, fault.fault) for fault in every} == {("engine", Service.NOVA, Gray.FREEZE)}


@pytest.mark.parametrize(
    "wrong", [("--link", "engine:libvirt"), ("--link", "engine"), ("--link", "engine:journal")], ids=str
)
def test_a_link_that_is_not_there_is_refused_in_words(
    wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options(["--gray", *wrong])
    assert "--link" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        options(["--link", "engine:nova"])


@contextmanager
def serving(status: HTTPStatus) -> Iterator[int]:
    """Answer every request with this status, for a readiness page; yield the port."""

    class Page(HttpStandIn):
        def handler(self) -> type[QuietHandler]:
            class Handler(QuietHandler):
                def do_GET(self) -> None:  # noqa: N802 - the name of http.server
                    self.send(status.value, "application/json", b'{"checks": {}}')

            return Handler

    with Page() as page:
        yield int(page.root.rpartition(":")[2])


def test_a_process_that_reads_ready_behind_a_dead_link_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing is due, which is when nobody else would notice."""
    monkeypatch.setattr(blind, "DEAD_LINK", 0.5)
    monkeypatch.setattr(blind, "_LOOK_EVERY", 0.02)
    with serving(HTTPStatus.OK) as ready, serving(HTTPStatus.SERVICE_UNAVAILABLE) as honest:
        cut = time.monotonic()
        watch = BlindWatch(
            {"engine-0": ready, "engine-1": honest, "api-0": ready}, dict, lambda: ("freeze",),
            lambda: {"engine-0": cut, "engine-1": cut},
        )  # fmt: skip
        watch.start()
        until(lambda: bool(watch.blind), "a blind second", seconds=30)
        watch.close()
    assert all(second.silent == ("engine-0",) for second in watch.blind)
    assert watch.seconds > 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_a_played_libvirtd_answers_and_its_frozen_socket_holds_the_caller(tmp_path: Path, stack: ExitStack) -> None:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eb-")))  # a socket's path is short
    server, proxied = directory / "server", directory / "proxy"
    with PlayedLibvirtd(server), Proxy(server, listen=proxied) as proxy:
        (tmp_path / SOCKET).symlink_to(proxied)
        path = socket_of(tmp_path)
        wire = LibvirtWire(path)
        wire.call()
        proxy.freeze()
        caller = threading.Thread(target=wire.call, daemon=True)
        caller.start()
        caller.join(0.2)
        assert caller.is_alive()
        proxy.heal()
        caller.join(30)
        assert not caller.is_alive()
        proxy.reset()
        with pytest.raises(ConnectionError):
            wire.call()
        assert not wire.alive
    assert socket_of(directory) is None
    LibvirtWire(None).call()
