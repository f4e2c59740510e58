# SPDX-License-Identifier: Apache-2.0
"""Guests are looked into beside the extends: whatever an agent does, no extend waits, and no wish is lost."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.file_systems import FileSystemSeen, FsState
from bridge.core.inventory import DomainSeen, GuestState, Inventory
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.runtime.metrics import AgentMetrics
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.drivers.base import AgentTrouble, Capacity, GuestAgentError
from hostagent.guest.keeper import GuestKeeper, GuestLimits
from hostagent.guest.mode import FileSystemMode
from hostagent.guest.wishes import FILE_NAME, GrowWish, GrowWishes
from hostagent.workers import Workers
from tests.lab.played_guest import MIB, SERVER, VOLUME, PlayedGuest
from tests.lab.waiting import LONGEST, until

KEY = ExtendKey(SERVER, VOLUME)
ORDER = Order(
    attempt_id="a", key=KEY, gen=1, target=Bytes(768 * MIB), global_request_id="req-of-the-owner",
    grow_file_system=True,
)  # fmt: skip


def report(order: Order, outcome: Outcome = Outcome.RESIZED) -> Report:
    return Report(
        attempt_id=order.attempt_id, key=order.key, gen=order.gen, outcome=outcome, reason="size_reached",
        target=order.target,
    )  # fmt: skip


class PlayedHost:
    """A hypervisor with one guest."""

    def __init__(self, guest: PlayedGuest) -> None:
        self.guest = guest
        self.silent = False
        self.asked = 0

    def domain(self, server_id: str) -> Domain | None:
        disk = Disk(
            target="vdb",
            kind=SourceKind.BLOCK,
            source="/dev/sdb",
            driver_format="raw",
            volume_id=VOLUME,
            type="block",
        )
        return Domain(server_id=server_id, state=GuestState.ACTIVE, disks=(disk,), run="1")

    def capacity(self, _server_id: str, _target: str) -> Capacity:
        return Capacity(self.guest.disk * MIB, self.guest.disk * MIB)

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        self.asked += 1
        if self.silent:
            raise GuestAgentError(AgentTrouble.SILENT, "no answer")
        return self.guest.agent(server_id, command, limit)

    def close(self) -> None:
        pass


@contextmanager
def keeping(
    host: PlayedHost, mode: FileSystemMode = FileSystemMode.GROW, wishes: GrowWishes | None = None
) -> Iterator[tuple[GuestKeeper, list[FileSystemSeen]]]:
    told: list[FileSystemSeen] = []
    keeper = GuestKeeper(
        mode, 2, make_session=lambda: host, tell=told.extend, wishes=wishes or GrowWishes(None),
        limits=GuestLimits(call=5, growth=60, interval=3600),
    )  # fmt: skip
    keeper.start()
    try:
        yield keeper, told
    finally:
        keeper.stop()
        keeper.join(5)


def test_a_volume_whose_owner_asked_is_grown_after_its_extend_under_the_owners_request() -> None:
    host = PlayedHost(PlayedGuest())
    with keeping(host) as (keeper, told):
        keeper.note(ORDER, report(ORDER))
        until(lambda: bool(told), "the look")
    assert (told[0].state, told[0].asked) == (FsState.GROWN, True)
    assert told[0].global_request_id == "req-of-the-owner"


@pytest.mark.parametrize("mode", [FileSystemMode.SEE, FileSystemMode.GROW])
def test_without_the_owners_word_or_the_operators_nothing_in_the_guest_changes(mode: FileSystemMode) -> None:
    host = PlayedHost(PlayedGuest())
    order = ORDER if mode is FileSystemMode.SEE else Order(attempt_id="a", key=KEY, gen=1, target=ORDER.target)
    with keeping(host, mode) as (keeper, told):
        keeper.note(order, report(order))
        until(lambda: bool(told), "the look")
    assert told[0].state is FsState.BEHIND
    assert host.guest.ran == []


def test_an_extend_that_failed_leads_to_no_look() -> None:
    host = PlayedHost(PlayedGuest())
    with keeping(host) as (keeper, _):
        keeper.note(ORDER, report(ORDER, Outcome.DEVICE_STALE))
    assert host.asked == 0


def test_every_guest_is_looked_at_now_and_then() -> None:
    host = PlayedHost(PlayedGuest(covered=767, partition=767))
    told: list[FileSystemSeen] = []
    keeper = GuestKeeper(
        FileSystemMode.SEE, 1, make_session=lambda: host, tell=told.extend, wishes=GrowWishes(None),
        limits=GuestLimits(call=5, growth=60, interval=0.01),
    )  # fmt: skip
    keeper.start()
    keeper.present(Inventory(full=True, domains=(DomainSeen(server_id=SERVER, state=GuestState.ACTIVE),)))
    until(lambda: len(told) > 2, "several looks")
    keeper.stop()
    keeper.join(5)
    assert {seen.state for seen in told} == {FsState.FITS}


def test_an_agent_that_is_silent_keeps_the_wish_and_a_restart_takes_it_up_again(tmp_path: Path) -> None:
    host = PlayedHost(PlayedGuest())
    host.silent = True
    with keeping(host, wishes=GrowWishes(tmp_path)) as (keeper, told):
        keeper.note(ORDER, report(ORDER))
        until(lambda: bool(told), "the first look")
    assert (told[0].state, told[0].reason) == (FsState.UNKNOWN, "fs_agent_silent")
    assert (tmp_path / FILE_NAME).stat().st_size > 0
    host.silent = False
    with keeping(host, wishes=GrowWishes(tmp_path)) as (_, told):
        until(lambda: bool(told), "the look after the restart")
    assert told[0].state is FsState.GROWN
    assert GrowWishes(tmp_path).servers() == set()


def test_a_volume_that_is_extended_while_it_is_grown_is_grown_once_more(tmp_path: Path) -> None:
    guest = PlayedGuest()
    host, newer, wishes = PlayedHost(guest), replace(ORDER, gen=2, target=Bytes(1024 * MIB)), GrowWishes(tmp_path)
    with keeping(host, wishes=wishes) as (keeper, told):
        plain = guest.agent

        def extended_meanwhile(server_id: str, command: Mapping[str, Any], limit: float) -> Any:
            answer = plain(server_id, command, limit)
            if guest.disk == 768 and "resize2fs" in guest.touched:
                guest.disk = 1024
                keeper.note(newer, report(newer))
            return answer

        guest.agent = extended_meanwhile  # type: ignore[assignment, method-assign]
        keeper.note(ORDER, report(ORDER))
        until(lambda: len(told) > 1, "the second look")
    assert [seen.state for seen in told[:2]] == [FsState.GROWN, FsState.GROWN]
    assert guest.covered == 1023
    assert wishes.servers() == set()


def test_a_wish_neither_waits_for_the_disk_nor_writes_those_of_others_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes, synced = GrowWishes(tmp_path), list[int]()
    monkeypatch.setattr("os.fsync", synced.append)
    size = 0
    for number in range(100):
        wishes.add(ExtendKey(str(UUID(int=number)), VOLUME), GrowWish())
        grown = (tmp_path / FILE_NAME).stat().st_size - size
        assert 0 < grown < 300
        size += grown
    assert synced == []
    wishes.make_safe()
    wishes.make_safe()
    assert len(synced) == 1
    assert len(GrowWishes(tmp_path).servers()) == 100


def test_finished_wishes_leave_the_file_and_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    wishes, file = GrowWishes(tmp_path), tmp_path / FILE_NAME
    for _ in range(2000):
        wish = GrowWish()
        wishes.add(KEY, wish)
        wishes.finish({KEY: wish})
    wishes.add(KEY, GrowWish(request_id="req-1"))
    before = file.stat().st_size
    wishes.tidy()
    assert file.stat().st_size < before / 100
    with file.open("a") as out:
        out.write('{"server_id": "1111')
    again = GrowWishes(tmp_path)
    assert again.get(KEY) == GrowWish(request_id="req-1")
    again.add(ExtendKey(VOLUME, SERVER), GrowWish())
    assert GrowWishes(tmp_path).servers() == {SERVER, VOLUME}


@pytest.mark.parametrize("words", ["", "{", "[]", '{"server_id": 3}', '[1]\n{"server_id": "x"}\n\x00\x00'])
def test_a_file_of_wishes_that_cannot_be_read_is_forgotten(tmp_path: Path, words: str) -> None:
    (tmp_path / FILE_NAME).write_text(words)
    wishes = GrowWishes(tmp_path)
    assert wishes.servers() == set()
    wishes.add(KEY, GrowWish())
    assert GrowWishes(tmp_path).servers() == {SERVER}


def test_an_owner_who_does_not_ask_any_more_has_nothing_grown(tmp_path: Path) -> None:
    host, wishes = PlayedHost(PlayedGuest()), GrowWishes(tmp_path)
    host.silent = True
    with keeping(host, wishes=wishes) as (keeper, told):
        keeper.note(ORDER, report(ORDER))
        until(lambda: bool(told), "the look that fails")
        host.silent = False
        withdrawn = replace(ORDER, gen=2, grow_file_system=False)
        keeper.note(withdrawn, report(withdrawn))
        until(lambda: told[-1].state is FsState.BEHIND, "the look after the second extend")
    assert host.guest.touched == []
    assert GrowWishes(tmp_path).servers() == set()


class SomeHang(PlayedHost):
    """A hypervisor with many guests. The agents of those in `held` answer only when let go, one call at a time."""

    def __init__(self, held: set[str]) -> None:
        super().__init__(PlayedGuest())
        self.held = held
        self.hanging: set[str] = set()
        self.go = threading.Event()

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        if server_id in self.held:
            self.hanging.add(server_id)
            self.go.wait()
            self.hanging.discard(server_id)
            raise GuestAgentError(AgentTrouble.SILENT, "no answer")
        return super().agent(server_id, command, limit)


def test_guests_whose_agents_hang_leave_threads_for_the_others() -> None:
    servers = [f"{n}1111111-2222-4333-8444-555555555555" for n in range(3)]
    *bad, good = servers
    orders = {server: replace(ORDER, key=ExtendKey(server, VOLUME)) for server in servers}
    host, told = SomeHang(set(bad)), list[FileSystemSeen]()
    keeper = GuestKeeper(
        FileSystemMode.GROW, 2, make_session=lambda: host, tell=told.extend, wishes=GrowWishes(None),
        limits=GuestLimits(call=0.0, growth=60, interval=3600),  # every answer takes longer than that
    )  # fmt: skip
    keeper.start()
    for server in bad:
        keeper.note(orders[server], report(orders[server]))
    until(lambda: host.hanging == set(bad), "both threads hang")
    host.go.set()
    until(lambda: {seen.key.server_id for seen in told} == set(bad), "both have been given up")
    host.go.clear()
    for server in (*bad, good):
        keeper.note(orders[server], report(orders[server]))
    until(lambda: any(seen.key.server_id == good for seen in told), "the guest that answers")
    host.go.set()
    keeper.stop()
    keeper.join(5)


class HangingHost(PlayedHost):
    """A hypervisor whose guests' agents never answer, not even within their limit."""

    def __init__(self) -> None:
        super().__init__(PlayedGuest())
        self.released = threading.Event()

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        self.asked += 1
        self.released.wait()
        raise GuestAgentError(AgentTrouble.SILENT, "no answer")


def extends(count: int, after: Callable[[Order, Report], None]) -> list[float]:
    """Return the seconds of each of many extends, one after the other."""
    done = threading.Event()

    class Tool:
        def __call__(self, order: Order) -> Report:
            made = report(order)
            after(order, made)
            return made

        def close(self) -> None:
            pass

    workers = Workers(
        2, make_tool=Tool, report=lambda _reports: done.set(), stopping=threading.Event(),
        metrics=AgentMetrics(CollectorRegistry()),
    )  # fmt: skip
    workers.start()
    took = []
    for _ in range(count):
        done.clear()
        began = time.monotonic()
        workers.submit([ORDER])
        assert done.wait(LONGEST)
        took.append(time.monotonic() - began)
    workers.stop()
    workers.join(5)
    return took


def test_extends_go_on_while_every_agent_hangs(capsys: pytest.CaptureFixture[str]) -> None:
    host, count = HangingHost(), 100
    off = sorted(extends(count, lambda _order, _report: None))
    with keeping(host) as (keeper, _):
        keeper.note(ORDER, report(ORDER))
        until(lambda: host.asked > 0, "an agent that hangs")
        grow = sorted(extends(count, keeper.note))
        host.released.set()
    medians = f"off {1e3 * off[count // 2]:.2f} ms, grow with agents that hang {1e3 * grow[count // 2]:.2f} ms"
    with capsys.disabled():
        print(f"\nan extend, median of {count}: {medians}")
