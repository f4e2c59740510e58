# SPDX-License-Identifier: Apache-2.0
"""The sockets of a host: guests, strangers, guests that are gone, hung, replaced or there twice."""

import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from hostagent.drivers.base import GuestArrival
from hostagent.drivers.contract.plugin import HeardEvents
from hostagent.drivers.qmp.host import HEALTH
from hostagent.errors import NotAskedError, StepFailedError
from hostagent.resize import grow
from tests.unit.hostagent.drivers.qmp.played import PlayedMonitor, disk, opened

QUICK = 0.3
LONG = 60.0


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose sockets have short names."""
    directory = Path(tempfile.mkdtemp(prefix="eb-"))
    yield directory
    shutil.rmtree(directory)


def test_each_socket_is_a_guest_with_its_volumes(place: Path) -> None:
    one, other = PlayedMonitor(place / "a.qmp"), PlayedMonitor(place / "b.qmp")
    session = opened(place).session()
    listed = session.guests()
    assert (set(listed.server_ids), listed.complete) == ({one.server_id, other.server_id}, True)
    domain = session.domain(one.server_id)
    assert domain is not None
    assert (domain.state, [d.volume_id for d in domain.disks]) == (GuestState.ACTIVE, [one.volume_id])
    grow(session, other.server_id, session.domain(other.server_id).disks[0], 128 << 20)  # type: ignore[union-attr]
    assert session.capacity(other.server_id, "d0").capacity == 128 << 20
    assert session.capacity(one.server_id, "d0").capacity == 64 << 20


def test_a_qemu_without_uuid_is_known_by_the_name_of_its_socket(place: Path) -> None:
    named = str(uuid.uuid4())
    PlayedMonitor(place / f"{named.upper()}.qmp", server_id="00000000-0000-0000-0000-000000000000")
    PlayedMonitor(place / "nameless.qmp", server_id="00000000-0000-0000-0000-000000000000")
    assert opened(place).session().guests().server_ids == {named}


def test_two_guests_may_carry_one_volume(place: Path) -> None:
    one, other = PlayedMonitor(place / "a.qmp"), PlayedMonitor(place / "b.qmp")
    other.volume_id = one.volume_id
    session = opened(place).session()
    for guest in (one, other):
        [found] = session.domain(guest.server_id).disks_of(one.volume_id)  # type: ignore[union-attr]
        assert found.target == "d0"


@pytest.mark.parametrize(
    ("say", "says"),
    [
        (b"", "no answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "a line that is not JSON"),
        (b"[1, 2]\n", "a line that is not a JSON object"),
        (b'{"jsonrpc": "2.0"}\n', "the other side does not speak QMP"),
        (b"[" * 10_000 + b"\n", "a line that is not JSON"),
        (b'{"QMP": "' + b"x" * 100_000 + b'"}\n', "the other side does not speak QMP"),
        (b"x" * ((16 << 20) + 200_000), "a line of more than 16777216 bytes"),
    ],
    ids=["silence", "text", "a list", "another protocol", "deep", "a long greeting", "an endless line"],
)
def test_a_socket_that_is_somebody_elses_is_named_and_harms_no_guest(place: Path, say: bytes, says: str) -> None:
    stranger, guest = PlayedMonitor(place / "stranger.qmp", say=say), PlayedMonitor(place / "guest.qmp")
    health = Health()
    host = opened(place, limit=QUICK if not say else LONG, health=health)
    listed = host.session().guests()
    assert listed.server_ids == {guest.server_id}
    assert listed.complete == bool(say)  # a silent one may be a guest that hangs
    stop = threading.Event()
    thread = threading.Thread(target=host.sockets.keep_connected, args=(stop,))
    thread.start()
    try:
        assert until(lambda: says in health.checks()[HEALTH].reason)
        assert health.checks()[HEALTH].ok
    finally:
        stop.set()
        thread.join(LONG)
    stranger.end()


def until(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONG
    while not look() and time.monotonic() < deadline:
        time.sleep(0.01)
    return look()


def test_one_that_drips_costs_its_limit(place: Path) -> None:
    """A byte at a time is no progress: the deadline is the whole call's."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place / "drip.qmp"))
    listening.listen()
    done = threading.Event()

    def drip() -> None:
        client, _ = listening.accept()
        while not done.wait(0.02):
            client.sendall(b"{")

    threading.Thread(target=drip, daemon=True).start()
    assert not opened(place, limit=QUICK).session().guests().complete
    done.set()
    listening.close()


def test_one_that_takes_no_connections_and_files_that_are_no_sockets_are_passed_by(place: Path) -> None:
    full = socket.socket(socket.AF_UNIX)
    full.bind(str(place / "full.qmp"))
    full.listen(0)
    held = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for one in held:
        one.setblocking(False)
        one.connect_ex(str(place / "full.qmp"))
    (place / "file.qmp").write_text("x")
    (place / "directory.qmp").mkdir()
    (place / "loop.qmp").symlink_to(place / "loop.qmp")
    guest = PlayedMonitor(place / "guest.qmp")
    assert opened(place, limit=QUICK).session().guests().server_ids == {guest.server_id}
    for one in (*held, full):
        one.close()


def test_events_without_end_do_not_outlast_the_limit(place: Path) -> None:
    guest = PlayedMonitor(place / "guest.qmp")
    session = opened(place, limit=QUICK).session()
    assert session.domain(guest.server_id) is not None
    guest.before_answer = b'{"event": "BLOCK_IO_ERROR", "data": {}}\n' * 50_000
    began = time.monotonic()
    try:
        session.capacity(guest.server_id, "d0")
    except StepFailedError as ex:
        assert ex.reason is Reason.HYPERVISOR_TIMED_OUT  # noqa: PT017 - a quick machine reads them all
    assert time.monotonic() - began < LONG


def test_a_guest_that_hangs_costs_one_limit_and_is_not_asked_again_at_once(place: Path) -> None:
    hung, other = PlayedMonitor(place / "a.qmp"), PlayedMonitor(place / "b.qmp")
    session = opened(place, limit=QUICK).session()
    assert session.guests().complete
    hung.silent = True
    with pytest.raises(StepFailedError) as caught:
        session.capacity(hung.server_id, "d0")
    assert caught.value.reason is Reason.HYPERVISOR_TIMED_OUT
    asked = len(hung.commands)
    with pytest.raises(NotAskedError):
        session.on_guest(hung.server_id, lambda guest, _wanted: guest.look())
    assert len(hung.commands) == asked
    assert session.capacity(other.server_id, "d0").capacity == 64 << 20
    listed = session.guests()
    assert listed.complete
    assert hung.server_id in listed.server_ids


def test_a_qemu_that_was_killed_leaves_a_socket_and_no_guest(place: Path) -> None:
    guest = PlayedMonitor(place / "a.qmp")
    session = opened(place).session()
    assert session.domain(guest.server_id) is not None
    guest.end()
    assert session.domain(guest.server_id) is None
    listed = session.guests()
    assert (set(listed.server_ids), listed.complete) == (set(), True)
    with pytest.raises(StepFailedError) as caught:
        session.on_guest(guest.server_id, lambda handle, _wanted: handle.look())
    assert caught.value.reason is Reason.DOMAIN_ABSENT


def test_another_guest_behind_the_same_name_is_another_guest(place: Path) -> None:
    """Never the old one's disks: an order for it finds nobody."""
    old = PlayedMonitor(place / "a.qmp")
    session = opened(place).session()
    assert session.domain(old.server_id) is not None
    old.end()
    new = PlayedMonitor(place / "a.qmp")
    assert session.domain(old.server_id) is None
    assert session.domain(new.server_id) is not None
    assert session.guests().server_ids == {new.server_id}


def test_two_qemus_that_say_they_are_one_guest_are_refused(place: Path) -> None:
    one = PlayedMonitor(place / "a.qmp")
    PlayedMonitor(place / "b.qmp", server_id=one.server_id)
    session = opened(place).session()
    session.guests()
    with pytest.raises(StepFailedError, match="several QEMU processes have the UUID of this guest"):
        session.domain(one.server_id)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Cannot grow device files", Outcome.DEVICE_STALE),
        ("Node 'n0' is busy: block device is in use by block job: mirror", Outcome.BUSY),
        ("Block node is read-only", Outcome.UNSUPPORTED),
        ("Image format driver does not support resize", Outcome.UNSUPPORTED),
        ("No space left on device", Outcome.HYPERVISOR_FAILED),
    ],
)
def test_an_error_of_a_resize_gets_its_outcome(place: Path, text: str, outcome: Outcome) -> None:
    guest = PlayedMonitor(place / "a.qmp")
    guest.errors["block_resize"] = text
    session = opened(place).session()
    found = session.domain(guest.server_id)
    assert found is not None
    with pytest.raises(StepFailedError) as caught:
        grow(session, guest.server_id, found.disks[0], 128 << 20)
    assert (caught.value.outcome, text in caught.value.detail) == (outcome, True)


@pytest.mark.parametrize("status", ["inmigrate", "postmigrate"])
def test_a_guest_that_is_in_another_qemu_is_not_here(place: Path, status: str) -> None:
    guest = PlayedMonitor(place / "a.qmp")
    guest.status = status
    assert opened(place).session().state(guest.server_id) is GuestState.INCOMING


def test_the_guard_holds_where_qemu_has_none(place: Path) -> None:
    guest = PlayedMonitor(place / "a.qmp")
    session = opened(place).session()
    found = session.domain(guest.server_id)
    assert found is not None
    for size in (0, 512, (64 << 20) - 512):
        with pytest.raises(StepFailedError) as caught:
            grow(session, guest.server_id, found.disks[0], size)
        assert caught.value.reason is Reason.WOULD_SHRINK
    assert "block_resize" not in guest.commands


def test_events_are_handed_on_with_what_they_mean(place: Path) -> None:
    guest, heard = PlayedMonitor(place / "a.qmp"), HeardEvents()
    host = opened(place)
    session = host.session()
    session.watch(heard)
    session.guests()
    stop = threading.Event()
    thread = threading.Thread(target=host.sockets.read_events, args=(stop,))
    thread.start()
    try:
        guest.event("RESET", guest=True)
        assert heard.wait(lambda: (guest.server_id, GuestArrival.STARTED) in heard.arrivals, LONG)
        guest.event("RESUME")
        assert heard.wait(lambda: (guest.server_id, GuestArrival.CAME_BACK) in heard.arrivals, LONG)
        guest.event("DEVICE_DELETED", device="d0", path="/machine/peripheral/d0")
        assert heard.wait(lambda: (guest.server_id, "d0") in heard.removals, LONG)
        heard.changes.clear()
        guest.event("BLOCK_IO_ERROR", device="d0")
        assert heard.wait(lambda: guest.server_id in heard.changes, LONG)
        heard.changes.clear()
        guest.end()
        assert heard.wait(lambda: guest.server_id in heard.changes, LONG)
    finally:
        stop.set()
        thread.join(LONG)


def test_no_place_for_sockets_is_no_empty_host(place: Path) -> None:
    """An unmounted directory must not say that all guests have left."""
    session = opened(place / "gone").session()
    with pytest.raises(StepFailedError) as caught:
        session.guests()
    assert caught.value.reason is Reason.HYPERVISOR_DOWN
    assert opened(place).session().guests().server_ids == set()


def test_a_disk_on_a_silent_bus_an_overlay_and_a_strange_source(place: Path) -> None:
    guest = PlayedMonitor(place / "a.qmp")
    overlay = disk(guest.volume_id, 1)
    overlay["inserted"]["image"]["backing-image"] = {"filename": "/volumes/bottom", "format": "raw"}
    strange = disk(guest.volume_id, 2)
    strange["inserted"]["image"]["filename"] = 'json:{"driver": "nbd"}'
    guest.blocks = [overlay, strange, {"device": "cd0", "qdev": "cd0"}]
    found = opened(place).session().domain(guest.server_id)
    assert found is not None
    assert [(d.target, str(d.kind), d.source) for d in found.disks] == [
        ("d1", "file", f"/volumes/{guest.volume_id}"), ("d2", "other", None),
    ]  # fmt: skip
    assert found.disks[0].bottom is not None
    assert not found.disks[1].can_be_told


def test_a_guest_is_found_while_another_thread_connects_to_it(place: Path) -> None:
    """An order must not hear that the guest is not here because its socket has just been seen."""
    guest = PlayedMonitor(place / "a.qmp")
    guest.silent = True
    host = opened(place)
    connecting = threading.Thread(target=host.session().guests)
    connecting.start()
    assert until(lambda: "qmp_capabilities" in guest.commands)
    found: list[object] = []
    asking = threading.Thread(target=lambda: found.append(host.session().domain(guest.server_id)))
    asking.start()
    asking.join(0.2)
    guest.silent = False
    for thread in (connecting, asking):
        thread.join(LONG)
    assert found
    assert found[0] is not None
