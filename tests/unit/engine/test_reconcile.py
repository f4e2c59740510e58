# SPDX-License-Identifier: Apache-2.0
"""Reconciliation: what is behind is opened once, what cannot be seen is said, nothing comes twice or in a burst."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import ArrivalSource, Bytes, ExtendKey, gib, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.engine.cinder import Attached, CinderVolume, Gone, NotNow, Page, read_page
from bridge.engine.reconcile import RECONCILE, OpenRate, Reconciler
from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.findings import Findings
from bridge.journal.settings import JournalSettings
from bridge.journal.sweeps import Passes
from bridge.journal.tables import sightings
from bridge.runtime.health import Health
from bridge.runtime.metrics import ReconcileMetrics
from bridge.runtime.rest import Answer
from tests.unit.journal.conftest import Bench

HOST = "cmp-1"


def volume(key: ExtendKey, size: int = 2, *, extending: bool = False, host: str | None = HOST) -> CinderVolume:
    attached = Attached(server_id=key.server_id, attachment_id=new_id(), host=host)
    return CinderVolume(id=key.volume_id, size=gib(size), extending=extending, attached=(attached,))


@dataclass
class Cinder:
    """Pages of a cloud, one after the other; `gone` answers come first."""

    volumes: Sequence[CinderVolume] = ()
    first: list[Gone | NotNow] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)

    def extending(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        assert marker is None
        return Page(volumes=tuple(v for v in self.volumes if v.extending)[:limit], marker=None)

    def in_use(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        self.asked.append(marker)
        if self.first:
            return self.first.pop(0)
        start = 0 if marker is None else 1 + [v.id for v in self.volumes].index(marker)
        page = tuple(self.volumes[start : start + limit])
        more = start + limit < len(self.volumes)
        return Page(volumes=page, marker=page[-1].id if more else None)


@dataclass
class Audit:
    records: list[AuditRecord] = field(default_factory=list)

    def write(self, *records: AuditRecord) -> None:
        self.records += records


class Stop(threading.Event):
    """Waits no time; the waits that were asked for. Stops at the first of so many seconds: after a look that has
    nothing to do, if nothing else is said."""

    def __init__(self, ends: float = 5.0) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._ends = ends

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        if timeout == self._ends or len(self.waits) > 40:
            self.set()
        return self.is_set()


@dataclass
class Cloud:
    """A journal, a Cinder and what reconciliation makes of them."""

    bench: Bench
    cinder: Cinder = field(default_factory=Cinder)
    audit: Audit = field(default_factory=Audit)
    health: Health = field(default_factory=Health)
    woken: int = 0
    on_wake: Callable[[], None] = lambda: None

    def guest(
        self, key: ExtendKey, size: int | None, state: GuestState = GuestState.ACTIVE, host: str = HOST
    ) -> None:
        """The host says what this guest sees, in GiB."""
        disk = DiskSeen(volume_id=key.volume_id, size=None if size is None else gib(size))
        domain = DomainSeen(server_id=key.server_id, state=state, disks=(disk,))
        inventory = Inventory(full=False, domains=(domain,))
        self.bench.reported.take([self.bench.message(host, inventory=inventory)])

    def go(self, *volumes: CinderVolume, page: int = 10, opens: int = 60, ends: float = 5.0) -> Stop:
        """One pass of an engine of its own."""
        if volumes:
            self.cinder.volumes = volumes
        self.registry = CollectorRegistry()
        stop = Stop(ends)
        Reconciler(
            passes=Passes(self.bench.database, interval=600, clock=lambda: self.bench.now),
            sightings=Findings(self.bench.database),
            cinder=self.cinder,  # type: ignore[arg-type]
            database=self.bench.database,
            journal=self.bench.journal,
            pace=OpenRate(page=page, pause=1, opens=opens, host_timeout=60),
            on_due=self._wake,
            health=self.health,
            metrics=ReconcileMetrics(self.registry),
            audit=self.audit,
            clock=lambda: self.bench.now,
        ).run(stop)
        return stop

    def saw(self, sight: str) -> float:
        return self.registry.get_sample_value("extend_bridge_reconcile_guests", {"sight": sight}) or 0

    def opened(self) -> list[ExtendKey]:
        return [extend.key for extend in self.bench.claim()]

    def _wake(self) -> None:
        self.woken += 1
        self.on_wake()


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    database = Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'journal.sqlite3'}"))
    migrate.upgrade(database)
    return Cloud(Bench(database))


@pytest.fixture
def key() -> ExtendKey:
    return ExtendKey(new_id(), new_id())


def test_a_guest_that_is_behind_its_volume_gets_an_extend_nobody_asked_for(cloud: Cloud, key: ExtendKey) -> None:
    fine = ExtendKey(new_id(), new_id())
    cloud.guest(key, 1)
    cloud.guest(fine, 2)
    cloud.go(volume(key, 2), volume(fine, 2))
    assert cloud.opened() == [key]
    assert cloud.woken == 1
    behind, surveyed = cloud.audit.records
    assert (behind.event, behind.server, behind.volume, behind.host) == (
        AuditEvent.BEHIND, key.server_id, key.volume_id, HOST,
    )  # fmt: skip
    assert behind.data == {"size": gib(1), "wanted": gib(2), "source": ArrivalSource.RECONCILE.value}
    assert (surveyed.event, surveyed.data) == (AuditEvent.SURVEYED, {"behind": 1, "fine": 1})
    assert (cloud.saw("behind"), cloud.saw("fine")) == (1, 1)


def test_an_extend_that_is_on_its_way_is_left_alone(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    cloud.bench.arrive(key)
    cloud.go(volume(key))
    (extend,) = cloud.bench.claim()
    assert extend.wanted_gen == 1
    assert cloud.saw("open") == 1


@pytest.mark.parametrize(
    ("size", "state", "sight"),
    [
        (2, GuestState.ACTIVE, "fine"),
        (3, GuestState.ACTIVE, "fine"),
        (1, GuestState.OFF, "fine"),  # sees it when it starts
        (None, GuestState.OFF, "fine"),
        (None, GuestState.ACTIVE, "cannot_see"),
        (1, GuestState.INCOMING, "busy"),
    ],
)
def test_nothing_is_opened_for_a_guest_that_is_not_known_to_be_behind(
    size: int | None, state: GuestState, sight: str, cloud: Cloud, key: ExtendKey
) -> None:
    cloud.guest(key, size, state)
    cloud.go(volume(key))
    assert cloud.opened() == []
    assert cloud.saw(sight) == 1


def test_a_guest_nobody_reports_and_one_on_a_silent_host_cannot_be_seen(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    cloud.bench.now += 61
    cloud.go(volume(key), volume(ExtendKey(new_id(), new_id())))
    assert cloud.opened() == []
    assert cloud.saw("cannot_see") == 2


@pytest.mark.parametrize(("attached_to", "sight"), [(HOST, "cannot_see"), (None, "cannot_see"), ("h2", "fine")])
def test_a_shut_off_definition_elsewhere_is_not_the_guest_of_a_silent_host(
    cloud: Cloud, key: ExtendKey, attached_to: str | None, sight: str
) -> None:
    """Unless Cinder says that the guest is there now: it was evacuated."""
    cloud.guest(key, 1)
    cloud.bench.now += 61
    cloud.guest(key, 1, GuestState.OFF, host="h2")
    cloud.go(volume(key, host=attached_to))
    assert cloud.saw(sight) == 1
    assert cloud.opened() == []


def test_a_volume_that_is_still_extending_is_looked_at_in_the_next_pass(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    cloud.go(volume(key, extending=True))
    assert cloud.opened() == []


def test_a_guest_between_two_hosts_is_judged_where_it_runs(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1, GuestState.OFF, host="cmp-0")
    cloud.guest(key, 2, host="cmp-1")
    cloud.go(volume(key))
    assert cloud.saw("fine") == 1


def test_a_size_that_a_report_read_back_counts_until_the_host_says_otherwise(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    cloud.bench.now += 1
    cloud.bench.arrive(key)
    (attempt,) = cloud.bench.dispatch(cloud.bench.claim()[0], HOST)
    cloud.bench.report(attempt, Outcome.RESIZED, after=Bytes(gib(2)))
    cloud.go(volume(key))
    assert cloud.saw("fine") == 1, "the inventory is older than the report"
    cloud.bench.now += 601
    cloud.guest(key, 1)  # restored from an old save
    cloud.go()
    assert cloud.opened() == [key]


def test_what_was_given_up_on_is_not_tried_for_ever_but_a_larger_size_is(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    cloud.bench.arrive(key)
    (attempt,) = cloud.bench.dispatch(cloud.bench.claim()[0], HOST)
    cloud.bench.report(attempt, Outcome.UNSUPPORTED, after=None)
    cloud.go(volume(key, 2))
    assert cloud.opened() == []
    assert cloud.saw("failed") == 1
    cloud.bench.now += 600
    cloud.guest(key, 1)
    cloud.go(volume(key, 3))
    assert cloud.opened() == [key]


def test_after_a_long_outage_the_fleet_is_mended_and_not_stormed(cloud: Cloud) -> None:
    keys = [ExtendKey(new_id(), new_id()) for _ in range(10)]
    for each in keys:
        cloud.guest(each, 1)
    stop = cloud.go(*(volume(each) for each in keys), page=5, opens=6)
    assert len(cloud.opened()) == 10, "all of them within one pass"
    assert stop.waits[:10].count(10) >= 9, "one after the other, six a minute"
    assert cloud.saw("behind") == 10


def test_a_pass_that_loses_its_turn_while_it_opens_leaves_the_rest_to_the_next(cloud: Cloud) -> None:
    keys = [ExtendKey(new_id(), new_id()) for _ in range(10)]
    for each in keys:
        cloud.guest(each, 1)

    def takes_over() -> None:
        cloud.bench.now += 200  # slower than the turn is held
        assert Passes(cloud.bench.database, interval=600, clock=lambda: cloud.bench.now).take() is not None

    cloud.on_wake = takes_over
    cloud.go(*(volume(each) for each in keys), opens=6)
    assert len(cloud.opened()) == 1


def test_an_engine_told_to_stop_between_two_pages_leaves_the_rest_to_the_next_at_once(cloud: Cloud) -> None:
    first, second = (volume(ExtendKey(new_id(), new_id())) for _ in range(2))
    cloud.go(first, second, page=1, ends=1)
    assert cloud.cinder.asked == [None]
    cloud.go(page=1)
    assert cloud.cinder.asked == [None, first.id]
    assert cloud.saw("cannot_see") == 2, "one pass, of two engines"


def row(cloud: Cloud, key: ExtendKey) -> Any:
    """What is written down of this disk."""
    return cloud.bench.database.read(
        lambda c: c.execute(
            sa.select(sightings).where(
                sightings.c.server_id == key.server_id, sightings.c.volume_id == key.volume_id
            )
        ).one_or_none()
    )


def test_a_guest_that_is_behind_is_named_since_when_until_it_is_not(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    since = cloud.bench.now
    cloud.go(volume(key))
    first = row(cloud, key)
    assert (first.sight, first.reason, first.host) == ("behind", "nobody_told", HOST)
    assert (first.size, first.wanted, first.since) == (gib(1), gib(2), since)
    cloud.bench.now += 600
    cloud.guest(key, 1)
    cloud.go()
    again = row(cloud, key)
    assert (again.sight, again.reason, again.since) == ("open", "on_its_way", since)
    cloud.bench.now += 600
    cloud.guest(key, 2)
    cloud.go()
    assert row(cloud, key) is None


def test_a_volume_that_is_attached_no_more_is_forgotten_when_the_pass_ends(cloud: Cloud, key: ExtendKey) -> None:
    other = ExtendKey(new_id(), new_id())
    cloud.go(volume(key), volume(other))
    assert row(cloud, key) is not None
    cloud.bench.now += 600
    cloud.go(volume(other))
    assert (row(cloud, key), row(cloud, other).sight) == (None, "cannot_see")


def test_what_cannot_be_seen_is_named_with_its_reason(cloud: Cloud) -> None:
    silent, unsized, nowhere, elsewhere, hostless = (ExtendKey(new_id(), new_id()) for _ in range(5))
    cloud.guest(silent, 1, host="cmp-0")
    cloud.bench.now += 61
    cloud.guest(unsized, None)
    found = {
        silent: ("host_down", "cmp-0"),
        unsized: ("size_unknown", HOST),
        nowhere: ("disk_not_reported", HOST),
        elsewhere: ("no_agent", "cmp-9"),
        hostless: ("no_host", None),
    }
    volumes = [volume(silent), volume(unsized), volume(nowhere)]
    volumes += [volume(elsewhere, host="cmp-9"), volume(hostless, host=None)]
    cloud.go(*volumes)
    assert {key: (row(cloud, key).reason, row(cloud, key).host) for key in found} == found
    assert cloud.saw("cannot_see") == 5


def test_a_page_whose_last_volume_was_deleted_begins_the_pass_anew(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    turns = Passes(cloud.bench.database, interval=600, hold=0, clock=lambda: cloud.bench.now)
    turn = turns.take()
    assert turn is not None
    lost = new_id()
    assert turns.keep(type(turn)(marker=lost, started_at=turn.started_at, counts={"fine": 9}))
    cloud.cinder.first = [Gone()]
    cloud.go(volume(key))
    assert cloud.cinder.asked == [lost, None]
    assert (cloud.saw("behind"), cloud.saw("fine")) == (1, 0)


def test_a_cinder_that_is_away_is_said_and_asked_again(cloud: Cloud, key: ExtendKey) -> None:
    cloud.guest(key, 1)
    cloud.cinder.first = [NotNow(Reason.CINDER_UNREACHABLE), NotNow(Reason.CINDER_REFUSED)]
    cloud.go(volume(key))
    assert cloud.opened() == [key]
    assert cloud.health.checks()[RECONCILE].ok


def test_a_pass_that_cannot_go_on_stays_not_ready_whatever_the_last_one_saw(cloud: Cloud, key: ExtendKey) -> None:
    """Until it goes on, and not only for the moment of the answer."""
    cloud.go(volume(key))
    assert cloud.health.checks()[RECONCILE].ok
    cloud.bench.now += 700
    cloud.cinder.first = [NotNow(Reason.CINDER_REFUSED)]
    cloud.go(ends=1.0)  # the back-off of the first failure
    assert cloud.health.checks()[RECONCILE].reason == Reason.CINDER_REFUSED.text
    cloud.go()
    assert cloud.health.checks()[RECONCILE].ok


def test_a_page_keeps_what_can_be_read_and_its_marker() -> None:
    good = {"id": new_id(), "size": 2, "status": "in-use", "attachments": []}
    links = [{"rel": "next", "href": "http://cinder/v3/volumes/detail?marker=x"}]
    page = read_page(Answer(status=200, body={"volumes": [good, None, {"id": "x"}, good], "volumes_links": links}))
    assert isinstance(page, Page)
    assert (len(page.volumes), page.marker) == (2, good["id"])
    assert read_page(Answer(status=200, body={"volumes": [good]})) == Page(volumes=page.volumes[:1], marker=None)
    endless = read_page(Answer(status=200, body={"volumes": [good, {"id": "x"}], "volumes_links": links}))
    assert endless == NotNow(Reason.CINDER_BAD_ANSWER)  # there are more, and no way to them
    assert read_page(Answer(status=200, body={"volumes": "many"})) == NotNow(Reason.CINDER_BAD_ANSWER)
    assert read_page(Answer(status=403, body=None)) == NotNow(Reason.CINDER_REFUSED)
    assert read_page(Answer(status=502, body=None)) == NotNow(Reason.CINDER_UNREACHABLE)


def test_a_pass_shows_volumes_that_stay_extending_with_their_age(cloud: Cloud, key: ExtendKey) -> None:
    """No event and no page of the volumes in use names them."""
    now = cloud.bench.now
    long = dataclasses.replace(volume(key, extending=True), changed_at=now - 5000.0)
    short = dataclasses.replace(volume(ExtendKey(new_id(), new_id()), extending=True), changed_at=now - 5.0)
    cloud.go(long, short)
    rows = cloud.bench.database.read(lambda c: list(c.execute(sa.select(sightings))))
    assert [(row.volume_id, row.reason, row.since) for row in rows] == [
        (key.volume_id, "volume_extending", now - 5000.0)
    ]
    cloud.bench.now += 700
    cloud.go(dataclasses.replace(long, extending=False), short)
    assert cloud.bench.database.read(lambda c: list(c.execute(sa.select(sightings.c.reason)))) != [
        ("volume_extending",)
    ]
