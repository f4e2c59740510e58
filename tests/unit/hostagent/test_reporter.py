# SPDX-License-Identifier: Apache-2.0
"""What a host has to say reaches the broker, also when the broker is away for a while."""

import json
import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.file_systems import FileSystemSeen, FileSystemStep, FsState
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from bridge.runtime.metrics import AgentMetrics
from bridge.runtime.publisher import NotPublishedError
from bridge.runtime.retry import Backoff
from hostagent.reporter import HEALTH, Outbox, Reporter, merge
from tests.unit.hostagent.fakes import order
from tests.unit.hostagent.test_workers import S1, S2, V1, report_of

FAST = Backoff(first=0.001, cap=0.002)
LONG = 120.0


class Broker:
    """Takes messages while it is up; after `stop_after` of them it calls `full`."""

    def __init__(self) -> None:
        self.refusals = 0
        self.tried: list[bytes] = []
        self.taken: list[HostMessage] = []
        self.on_taken: Callable[[], None] = lambda: None

    def publish(self, body: bytes) -> None:
        self.tried.append(body)
        if self.refusals > 0:
            self.refusals -= 1
            raise NotPublishedError(Reason.RETURNED, "reports")
        self.taken.append(HostMessage.from_wire(json.loads(body)))
        self.on_taken()


def reporter(broker: Broker, *, kept_max: int = 100, interval: float = 1000.0) -> tuple[Reporter, Outbox, Health]:
    health = Health()
    outbox = Outbox(AgentMetrics(CollectorRegistry()), kept_max)
    made = Reporter("h1", outbox, lambda: broker, heartbeat_interval=interval, health=health, backoff=FAST)
    return made, outbox, health


def report(attempt_id: str) -> Report:
    return report_of(order(S1, V1, 1, attempt_id=attempt_id))


def run_until(made: Reporter, broker: Broker, outbox: Outbox, done: Callable[[], bool]) -> None:
    """Run in this thread until `done` holds after a message was taken."""
    stop = threading.Event()

    def look() -> None:
        if done():
            stop.set()
            outbox.close()

    broker.on_taken = look
    made.run(stop)


def test_the_first_message_is_a_sign_of_life() -> None:
    """A host exists before its inventory was read."""
    broker = Broker()
    made, outbox, health = reporter(broker)
    run_until(made, broker, outbox, lambda: True)
    [first] = broker.taken
    assert (first.host, first.seq, first.reports, first.inventory) == ("h1", 1, (), Inventory(full=False))
    assert health.checks()[HEALTH].ok


def test_what_gathered_goes_out_in_one_message() -> None:
    """Reports of several orders, and the inventory with them."""
    broker = Broker()
    made, outbox, _ = reporter(broker)
    outbox.add_reports([report("a"), report("b")])
    outbox.add_inventory(Inventory(full=True))
    run_until(made, broker, outbox, lambda: True)
    [message] = broker.taken
    assert [r.attempt_id for r in message.reports] == ["a", "b"]
    assert message.inventory == Inventory(full=True)


def test_a_refused_message_is_sent_again_the_very_same() -> None:
    """Same sequence number: should the broker have had it after all, the engine sees that it is a repetition."""
    broker = Broker()
    broker.refusals = 3
    made, outbox, _ = reporter(broker)
    outbox.add_reports([report("a")])
    run_until(made, broker, outbox, lambda: True)
    assert len(broker.tried) == 4
    assert len(set(broker.tried)) == 1
    assert [r.attempt_id for r in broker.taken[0].reports] == ["a"]


def test_being_refused_is_not_ready_with_the_reason() -> None:
    """And a stop leaves at once; the journal casts those orders again."""
    broker = Broker()
    broker.refusals = 10**6
    made, outbox, health = reporter(broker)
    outbox.add_reports([report("a")])
    stop = threading.Event()
    stop.set()
    made.run(stop)
    assert not health.checks()[HEALTH].ok
    assert "no queue" in health.checks()[HEALTH].reason
    broker.refusals = 0
    run_until(made, broker, outbox, lambda: True)
    assert [r.attempt_id for r in broker.taken[0].reports] == ["a"]


def test_sequence_numbers_grow_and_the_run_has_one_id() -> None:
    """What the engine orders inventories by."""
    broker = Broker()
    made, outbox, _ = reporter(broker, interval=0.001)
    run_until(made, broker, outbox, lambda: len(broker.taken) == 3)
    assert [m.seq for m in broker.taken][:3] == [1, 2, 3]
    assert {m.boot_id for m in broker.taken} == {made.boot_id}
    assert reporter(broker)[0].boot_id != made.boot_id


def test_reports_kept_are_bounded_and_the_newest_stay() -> None:
    """A broker away for days costs memory to a limit; what is dropped is cast again."""
    broker = Broker()
    made, outbox, _ = reporter(broker, kept_max=3)
    outbox.add_reports([report(str(n)) for n in range(10)])
    run_until(made, broker, outbox, lambda: True)
    assert [r.attempt_id for r in broker.taken[0].reports] == ["7", "8", "9"]


def test_many_reports_are_split_into_several_messages() -> None:
    """Nothing is lost between the messages."""
    broker = Broker()
    made, outbox, _ = reporter(broker, kept_max=1000)
    outbox.add_reports([report(str(n)) for n in range(250)])
    run_until(made, broker, outbox, lambda: sum(len(m.reports) for m in broker.taken) == 250)
    assert [r.attempt_id for m in broker.taken for r in m.reports] == [str(n) for n in range(250)]


def domain(server_id: str, size: int) -> DomainSeen:
    return DomainSeen(
        server_id=server_id, state=GuestState.ACTIVE, disks=(DiskSeen(volume_id=V1, size=Bytes(size)),)
    )


def test_a_change_laid_over_a_full_inventory_is_full() -> None:
    """As if both had been sent one after the other."""
    full = Inventory(full=True, domains=(domain(S1, 1),), capabilities=("block",))
    changed = merge(full, Inventory(full=False, domains=(domain(S1, 2), domain(S2, 1))))
    assert changed == Inventory(full=True, domains=(domain(S1, 2), domain(S2, 1)), capabilities=("block",))
    assert merge(changed, Inventory(full=False, gone=(S1,))).domains == (domain(S2, 1),)


def test_gone_and_back_again_is_there() -> None:
    """The later word counts, either way round."""
    gone = Inventory(full=False, gone=(S1,))
    back = Inventory(full=False, domains=(domain(S1, 1),))
    assert merge(gone, back) == back
    assert merge(back, gone) == gone


def test_a_newer_full_inventory_replaces_everything() -> None:
    """It is the whole truth."""
    newer = Inventory(full=True)
    assert merge(Inventory(full=False, gone=(S1,)), newer) is newer


def test_outcomes_survive_the_wire() -> None:
    """What the engine reads is what the worker said."""
    broker = Broker()
    made, outbox, _ = reporter(broker)
    sent = report_of(order(S1, V1, 5), Outcome.DEVICE_STALE, 3)
    outbox.add_reports([sent])
    run_until(made, broker, outbox, lambda: True)
    assert broker.taken[0].reports == (sent,)


def a_look(volume_id: str, *, grown: bool = False) -> FileSystemSeen:
    step = FileSystemStep(name="partition", ok=True, seconds=1.0, detail="growpart /dev/vdb 1 -> 0")
    return FileSystemSeen(
        key=ExtendKey(S1, volume_id), state=FsState.GROWN if grown else FsState.FITS,
        reason="fs_grown" if grown else "fs_fits", steps=(step,) if grown else (),
    )  # fmt: skip


def test_file_systems_go_out_also_without_any_report() -> None:
    broker = Broker()
    made, outbox, _ = reporter(broker)
    outbox.add_file_systems([a_look(V1)])
    run_until(made, broker, outbox, lambda: any(message.file_systems for message in broker.taken))
    [seen] = [each for message in broker.taken for each in message.file_systems]
    assert seen == a_look(V1)


def test_the_newest_look_at_a_volume_is_sent_and_what_was_done_in_a_guest_is_not_lost() -> None:
    """While the broker is away a look can come after a growth whose commands nobody has read yet."""
    _, outbox, _ = reporter(Broker())
    outbox.add_file_systems([a_look(V1, grown=True)])
    outbox.add_file_systems([a_look(V1)])
    assert [each.state for each in outbox.take_file_systems()] == [FsState.GROWN]
    outbox.add_file_systems([a_look(V1)])
    outbox.add_file_systems([a_look(V1, grown=True)])
    assert [each.state for each in outbox.take_file_systems()] == [FsState.GROWN]
    assert outbox.take_file_systems() == ()


def test_looks_that_nobody_takes_are_bounded() -> None:
    _, outbox, _ = reporter(Broker(), kept_max=3)
    outbox.add_file_systems([a_look(new_id()) for _ in range(9)])
    assert len(outbox.take_file_systems()) == 3
