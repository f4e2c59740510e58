# SPDX-License-Identifier: Apache-2.0
"""Which guests are behind, since when, why: status, behind, reconcile; against a Cinder stand-in over HTTP."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bridge.cli.app import main
from bridge.core.extend import Arrival, ExtendKey, gib, new_id
from bridge.engine.cinder import Attached, CinderVolume
from bridge.engine.compare import stuck
from bridge.engine.reconcile import finding_of
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.behind import Behind
from bridge.journal.database import Database
from bridge.journal.findings import Finding, Findings, FindingState
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import disks, domains, extends, file_systems, hosts
from bridge.standin.cinder import Attachment, Fault, StandInCinder

HOST = "cmp-1"


@dataclass
class Cloud:
    """A Cinder, a journal, and `extend-bridge` with a configuration that names both."""

    cinder: StandInCinder
    database: Database
    conf: Path
    audit: Path
    capsys: pytest.CaptureFixture[str]

    def guest(self, size: int, *, sees: int | None, host: str = HOST) -> ExtendKey:
        """A volume of `size` GiB, its guest seeing so much; None: no host reports it."""
        key = ExtendKey(new_id(), new_id())
        self.cinder.add_volume(key.volume_id, size, Attachment(server_id=key.server_id, host=host))
        if sees is not None:
            self.write(
                sa.insert(domains).values(server_id=key.server_id, host=host, state="active", seen_at=1),
                sa.insert(disks).values(
                    server_id=key.server_id, volume_id=key.volume_id, host=host, size=gib(sees)
                ),
            )
        return key

    def write(self, *statements: sa.Executable) -> None:
        """Into the journal, as somebody else."""

        def work(connection: sa.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        self.database.write(work)

    def run(self, *argv: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = main([*argv, "--config-file", str(self.conf)])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def rows(self, *argv: str) -> Any:
        """The JSON of a command."""
        _, out, err = self.run(*argv, "-f", "json")
        assert out, err
        return json.loads(out)

    def open(self) -> list[tuple[str, str]]:
        """(volume, source) of what is open."""
        query = sa.select(extends.c.volume_id, extends.c.source).where(extends.c.open == 1)
        return self.database.read(lambda c: [(volume, source) for volume, source in c.execute(query)])


@pytest.fixture
def cloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Cloud]:
    """With one living host."""
    url = f"sqlite:///{tmp_path / 'journal.sqlite3'}"
    database = Database(JournalSettings(connection=url))
    migrate.upgrade(database)
    cinder = StandInCinder()
    server = cinder.server()
    server.start()
    conf, audit = tmp_path / "x.conf", tmp_path / "audit.log"
    conf.write_text(
        f"[journal]\nconnection = {url}\n[audit]\nfile = {audit}\n"
        f"[cinder]\nauth_type = none\nendpoint_override = {server.url}/v3\n[engine]\nreconcile_page = 2\n"
        "[bus]\ntransport_url = memory://\n"
    )
    made = Cloud(cinder, database, conf, audit, capsys)
    made.write(
        sa.insert(hosts).values(
            name=HOST, boot_id=new_id(), seq=1, turns=0, capabilities="[]", heartbeat_at=time.time()
        )
    )
    yield made
    server.stop()
    server.join(120)
    database.dispose()


def test_a_dry_run_names_what_is_not_fine_and_opens_nothing(cloud: Cloud) -> None:
    """Over several pages; the exit code says that a guest is behind."""
    behind = cloud.guest(2, sees=1)
    unseen = cloud.guest(2, sees=None, host="cmp-9")
    for _ in range(3):
        cloud.guest(2, sees=2)
    code, out, _ = cloud.run("reconcile", "--dry-run", "-f", "json")
    rows = {row["Volume"]: row for row in json.loads(out)}
    assert code == 1
    assert rows.keys() == {behind.volume_id, unseen.volume_id}
    one = rows[behind.volume_id]
    assert (one["Sight"], one["Why"], one["Host"], one["Opened"]) == ("behind", "nobody_told", HOST, False)
    assert (one["Sees"], one["Wanted"]) == (gib(1), gib(2))
    other = rows[unseen.volume_id]
    assert (other["Sight"], other["Why"], other["Host"]) == ("cannot_see", "no_agent", "cmp-9")
    assert cloud.open() == []


def test_once_opens_what_is_behind_and_writes_it_to_the_audit_log(cloud: Cloud) -> None:
    """A second run finds it on its way."""
    behind = cloud.guest(2, sees=1)
    code, out, _ = cloud.run("reconcile", "--once", "-f", "json")
    assert (code, json.loads(out)[0]["Opened"]) == (0, True)
    assert cloud.open() == [(behind.volume_id, "reconcile")]
    (line,) = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert (line["part"], line["event"], line["volume"]) == ("operator", "behind", behind.volume_id)
    (again,) = cloud.rows("reconcile", "--once")
    assert (again["Sight"], again["Opened"]) == ("open", False)


def test_one_volume_can_be_asked_for_alone(cloud: Cloud) -> None:
    """The other one stays as it is."""
    one, _ = cloud.guest(2, sees=1), cloud.guest(2, sees=1)
    (row,) = cloud.rows("reconcile", "--once", "--volume", one.volume_id.upper())
    assert row["Volume"] == one.volume_id
    assert cloud.open() == [(one.volume_id, "reconcile")]


def test_what_cannot_be_done_is_said_in_one_line(cloud: Cloud) -> None:
    """A volume nobody knows, an id that is none, a Cinder that is away."""
    cloud.guest(2, sees=1)
    for argv, wanted in (
        (("--dry-run", "--volume", new_id()), 1),
        (("--dry-run", "--volume", "x"), 2),
    ):
        code, _, err = cloud.run("reconcile", *argv)
        assert (code, len(err.splitlines())) == (wanted, 1), err
    cloud.cinder.fail(Fault.UNAVAILABLE)
    code, _, err = cloud.run("reconcile", "--once")
    assert (code, err.splitlines()[-1]) == (3, "Cinder cannot be reached or answered 5xx: 503 for GET /os-services")
    assert cloud.open() == []


def test_status_and_behind_say_which_since_when_and_why(cloud: Cloud) -> None:
    """One waits for its host, one was given up on, one was seen and is not opened yet, one nobody can see."""
    waits, failed, seen, mended, unseen = (ExtendKey(new_id(), new_id()) for _ in range(5))
    Journal(cloud.database).accept([Arrival(key=key) for key in (waits, failed)])
    cloud.write(
        sa.update(extends)
        .where(extends.c.volume_id == waits.volume_id)
        .values(reason="host_down", waiting_for="cmp-7", opened_at=50.0),
        sa.update(extends)
        .where(extends.c.volume_id == failed.volume_id)
        .values(open=None, state="closed", outcome="refused", reason="wrong_device", opened_at=40.0, closed_at=41),
        sa.insert(disks).values(server_id=mended.server_id, volume_id=mended.volume_id, host=HOST, size=gib(2)),
    )

    def sighting(key: ExtendKey, sight: FindingState, reason: str, size: int | None) -> Finding:
        return Finding(key=key, sight=sight, reason=reason, host=HOST, size=size, wanted=gib(2))

    Findings(cloud.database).note(
        [],
        [
            sighting(seen, FindingState.BEHIND, "nobody_told", gib(1)),
            sighting(mended, FindingState.BEHIND, "nobody_told", gib(1)),
            sighting(unseen, FindingState.CANNOT_SEE, "size_unknown", None),
        ],
        at=60.0,
    )
    code, out, _ = cloud.run("status", "-f", "json")
    status = json.loads(out)
    assert code == 1
    assert (status["behind now"], status["behind since"]) == (3, "1970-01-01T00:00:40Z")
    assert status["behind why"] == "1 host_down, 1 nobody_told, 1 wrong_device"
    assert (status["cannot see"], status["cannot see why"]) == (1, "1 size_unknown")
    assert [(row["Volume"], row["Why"], row["Host"], row["Sees"]) for row in cloud.rows("behind")] == [
        (failed.volume_id, "wrong_device", None, None),
        (waits.volume_id, "host_down", "cmp-7", None),
        (seen.volume_id, "nobody_told", HOST, gib(1)),
    ]
    (row,) = cloud.rows("behind", "--cannot-see")
    assert (row["Volume"], row["Why"]) == (unseen.volume_id, "size_unknown")
    numbers = Behind(cloud.database).numbers()
    assert (sum(numbers.behind.values()), numbers.since) == (3, 40.0)


def test_a_volume_stuck_in_extending_shows_in_behind_and_status_with_its_age(cloud: Cloud) -> None:
    volume, server = new_id(), new_id()
    cloud.cinder.add_volume(volume, 2, Attachment(server_id=server), status="extending", updated_at=1000.0)
    found = CinderVolume(
        id=volume, size=gib(2), extending=True, changed_at=1000.0,
        attached=(Attached(server_id=server, attachment_id=new_id(), host=HOST),),
    )  # fmt: skip
    findings = Findings(cloud.database)
    findings.begin()
    seen = [finding_of(each) for each in stuck(found, now=9000.0, after=900)]
    findings.note({volume}, seen, at=9000.0)
    _, out, _ = cloud.run("behind", "-f", "json")
    (row,) = json.loads(out)
    assert (row["Volume"], row["Why"], row["Since"]) == (volume, "volume_extending", "1970-01-01T00:16:40Z")
    _, out, _ = cloud.run("status", "-f", "json")
    assert json.loads(out)["extending since"] == "1970-01-01T00:16:40Z"
    _, out, _ = cloud.run("behind", "--cannot-see", "-f", "json")
    assert json.loads(out) == []


def test_file_systems_that_leave_room_are_listed_and_counted(cloud: Cloud) -> None:
    """Nothing is known at first, and the command says what to set."""
    _, _, err = cloud.run("behind", "--filesystem")
    assert "[guest] filesystems" in err
    key = cloud.guest(2, sees=2)
    row = {
        "server_id": key.server_id, "volume_id": key.volume_id, "host": HOST, "state": "refused",
        "reason": "fs_luks", "layout": "mapped", "follow": "no", "kind": "", "mount_point": "", "disk": gib(2),
        "size": gib(1), "asked": 1, "since": 1.0, "seen_at": 2.0,
    }  # fmt: skip
    cloud.write(sa.insert(file_systems).values(**row))
    [shown] = cloud.rows("behind", "--filesystem")
    assert (shown["Volume"], shown["State"], shown["Why"]) == (key.volume_id, "refused", "fs_luks")
    assert (shown["Can follow"], shown["Unused"], shown["Host"]) == ("no", gib(1), HOST)
    status = cloud.rows("status")
    assert (status["file systems behind"], status["file systems why"]) == (1, "1 refused")
