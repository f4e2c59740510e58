# SPDX-License-Identifier: Apache-2.0
"""event, host, status on a journal of SQLite: what a person sees, and the two things a person may do."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from bridge.cli.app import main
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal import migrate
from bridge.journal.accept import open_journal
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import disks, domains, extends, hosts
from bridge.runtime.config import OpsSettings
from bridge.runtime.health import Health
from bridge.runtime.ops import OpsServer


@dataclass
class Shell:
    """`extend-bridge` with a configuration file."""

    conf: Path
    audit: Path
    url: str
    capsys: pytest.CaptureFixture[str]

    def run(self, *argv: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = main([*argv, "--config-file", str(self.conf)])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def rows(self, *argv: str) -> Any:
        """The JSON of a command that went well."""
        code, out, err = self.run(*argv, "-f", "json")
        assert code == 0, err
        return json.loads(out)

    def write(self, statement: sa.Executable) -> None:
        """Change the journal behind everybody's back."""
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(statement)
        engine.dispose()


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    """With two open extends."""
    url = f"sqlite:///{tmp_path / 'journal.sqlite3'}"
    conf, audit = tmp_path / "x.conf", tmp_path / "audit.log"
    conf.write_text(f"[journal]\nconnection = {url}\n[audit]\nfile = {audit}\n[bus]\ntransport_url = memory://\n")
    journal = open_journal(JournalSettings(connection=url))
    migrate.upgrade(journal.database)
    journal.accept([Arrival(key=ExtendKey(new_id(), new_id()), request_id="req-1") for _ in range(2)])
    journal.database.dispose()
    return Shell(conf, audit, url, capsys)


def test_event_list_shows_the_open_ones_and_show_their_history(shell: Shell) -> None:
    """In JSON as in a table."""
    rows = shell.rows("event", "list")
    assert [row["State"] for row in rows] == ["due", "due"]
    (one,) = shell.rows("event", "list", "--volume", rows[0]["Volume"])
    shown = shell.rows("event", "show", one["ID"])
    assert shown["volume_id"] == one["Volume"]
    assert "accepted" in shown["history"]


def test_discard_closes_and_retry_opens_again(shell: Shell) -> None:
    """Both are in the audit log, under the operator's name."""
    (row, _) = shell.rows("event", "list")
    assert shell.run("event", "discard", row["ID"])[0] == 0
    assert len(shell.rows("event", "list")) == 1
    assert shell.rows("event", "show", row["ID"])["outcome"] == "discarded"
    assert shell.run("event", "discard", row["ID"])[0] == 1
    assert shell.run("event", "retry", row["ID"])[0] == 0
    again = shell.rows("event", "list", "--volume", row["Volume"])
    assert [new["ID"] != row["ID"] for new in again] == [True]
    lines = [json.loads(line) for line in shell.audit.read_text().splitlines()]
    assert [(line["part"], line["event"]) for line in lines] == [
        ("operator", "discarded"),
        ("operator", "accepted"),
    ]


def test_retry_makes_one_that_waits_due_now(shell: Shell) -> None:
    """Whatever its back-off."""
    (row, _) = shell.rows("event", "list")
    shell.write(sa.update(extends).values(due_at=time.time() + 500))
    shell.run("event", "retry", row["ID"])
    assert float(shell.rows("event", "show", row["ID"])["wanted_gen"]) == 2


def test_an_extend_nobody_knows_is_one_line_and_one(shell: Shell) -> None:
    """Of each command."""
    for argv in (("event", "show", "x"), ("event", "retry", "x"), ("event", "discard", "x"), ("host", "show", "x")):
        code, _, err = shell.run(*argv)
        assert code == 1
        assert len(err.splitlines()) == 1


def test_host_list_and_show(shell: Shell) -> None:
    """Alive or silent, and what its guests see."""
    server, volume = new_id(), new_id()
    common = {"boot_id": new_id(), "seq": 1, "turns": 0}
    told = '{"can": ["nfs"], "cannot": {"nvmeof": "not installed: nvme"}}'
    shell.write(sa.insert(hosts).values(name="up", heartbeat_at=time.time(), capabilities=told, **common))
    older = {"heartbeat_at": time.time() - 999, "capabilities": '["file"]'}
    shell.write(sa.insert(hosts).values(name="down", **older, **common))
    shell.write(sa.insert(domains).values(server_id=server, host="up", state="active", seen_at=1))
    shell.write(sa.insert(disks).values(server_id=server, volume_id=volume, host="up", size=2**30))
    rows = {row["Host"]: row for row in shell.rows("host", "list")}
    assert (rows["up"]["Alive"], rows["up"]["Servers"], rows["down"]["Alive"]) == (True, 1, False)
    assert (rows["up"]["Capabilities"], rows["down"]["Capabilities"]) == ("nfs", "file")
    assert shell.rows("host", "show", "up") == [{"Server": server, "Volume": volume, "Bytes": 2**30}]
    assert shell.rows("host", "show", "up", "--volume-types") == [
        {"Volume type": "nfs", "Extended": True, "Why not": ""},
        {"Volume type": "nvmeof", "Extended": False, "Why not": "not installed: nvme"},
    ]


def test_status_exits_with_one_only_when_a_person_is_needed(shell: Shell) -> None:
    """Open extends are no alarm; overdue ones and failed ones are, until a newer extend of that disk."""
    assert shell.rows("status")["open"] == 2
    (row, _) = shell.rows("event", "list")
    shell.write(
        sa.update(extends).where(extends.c.id == row["ID"]).values(state="closed", open=None, outcome="refused")
    )
    code, out, _ = shell.run("status", "-f", "json")
    assert (code, json.loads(out)["behind (failed)"]) == (1, 1)
    shell.run("event", "retry", row["ID"])
    assert shell.run("status")[0] == 0
    shell.write(sa.update(extends).where(extends.c.open == 1).values(overdue_at=1.0))
    assert shell.run("status")[0] == 1


def test_status_asks_the_daemons_of_this_node(shell: Shell) -> None:
    """By their ops ports: one that is not ready says why and is an alarm; one that is not here is none."""
    health = Health()
    server = OpsServer(OpsSettings(host="127.0.0.1", port=0), health, CollectorRegistry())
    server.start()
    with shell.conf.open("a") as conf:
        conf.write(f"[engine]\nops_port = {server.port}\n[listener]\nops_port = 9\n")
    try:
        health.bad("engine.bus", "our own message bus ([bus] transport_url) cannot be reached: OSError")
        code, out, _ = shell.run("status", "-f", "json")
        said = json.loads(out)
        assert (code, said["engine here"]) == (
            1,
            "not ready: engine.bus: our own message bus ([bus] transport_url) cannot be reached: OSError",
        )
        assert "does not answer" in said["listener here"]
        assert "api here" not in said
        health.ok("engine.bus")
        assert shell.rows("status")["engine here"] == "ready"
    finally:
        server.stop()
        server.join(120)


def test_status_with_a_bus_that_is_away_says_so(shell: Shell) -> None:
    """Nobody knows what is parked then; its password is not in the line."""
    text = shell.conf.read_text().replace("memory://", "rabbit://u:secret@127.0.0.1:9/")
    shell.conf.write_text(text)
    code, out, _ = shell.run("status", "-f", "json")
    assert (code, "cannot be reached" in json.loads(out)["parked"], "secret" in out) == (1, True, False)


def test_a_journal_that_cannot_be_reached_is_three(shell: Shell) -> None:
    """In one line, without a traceback."""
    shell.conf.write_text("[journal]\nconnection = sqlite:////nowhere/journal.sqlite3\n")
    code, _, err = shell.run("event", "list")
    assert code == 3
    assert len(err.splitlines()) == 1


def test_a_configuration_that_is_not_there_is_two(shell: Shell) -> None:
    """In one line."""
    shell.conf.unlink()
    code, _, err = shell.run("status")
    assert code == 2
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("event", "list"), "no extend is open"),
        (("event", "list", "--state", "all"), "the journal has no extend"),
        (("event", "list", "--volume", "x"), "no such extend is open"),
        (("host", "list"), "no host has reported yet"),
        (("behind",), "no guest is behind its volume, as far as known: no reconcile pass has ended yet"),
        (("behind", "--cannot-see"), "the size in every guest is known, as far as known"),
    ],
)
def test_an_empty_list_says_in_words_what_it_means(shell: Shell, argv: tuple[str, ...], words: str) -> None:
    """Beside the output, where a program finds the empty list of its format."""
    shell.write(sa.delete(extends))
    code, out, err = shell.run(*argv)
    assert (code, out) == (0, "")
    assert err.startswith(words)
    assert shell.rows(*argv) == []


def test_what_is_not_known_is_a_dash_for_a_person_and_null_for_a_program(shell: Shell) -> None:
    _, out, _ = shell.run("event", "list")
    assert "None" not in out
    assert " - " in out
    assert shell.rows("event", "list")[0]["Outcome"] is None
    assert "None" not in shell.run("status")[1]


def test_a_journal_that_is_not_there_is_said_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made by who looks, it would be his, and no daemon could write it."""
    (tmp_path / "x.conf").write_text(
        f"[journal]\nconnection = sqlite:///{tmp_path / 'gone.sqlite3'}\n"
        "[cinder]\nauth_type = none\nendpoint_override = http://127.0.0.1:9/v3\n"
    )
    for argv in (["event", "list"], ["status"], ["reconcile", "--dry-run"]):
        assert main([*argv, "--config-file", str(tmp_path / "x.conf")]) == 3
        assert "does not exist: give the daemons' configuration file" in capsys.readouterr().err
    assert not (tmp_path / "gone.sqlite3").exists()


def test_a_journal_without_tables_says_what_makes_them(shell: Shell) -> None:
    shell.write(sa.text("DROP TABLE alembic_version"))
    code, _, err = shell.run("event", "list")
    assert code == 3
    assert "extend-bridge-manage db sync" in err


@pytest.mark.parametrize("number", ["0", "-3", "many"])
def test_a_limit_is_a_number_of_things(shell: Shell, number: str) -> None:
    with pytest.raises(SystemExit) as ended:
        shell.run("event", "list", "--limit", number)
    assert ended.value.code == 2


@pytest.mark.parametrize("argv", [("parked", "list"), ("record", "--for", "1s")])
def test_a_bus_in_a_daemons_memory_is_nothing_to_look_into(shell: Shell, argv: tuple[str, ...]) -> None:
    with shell.conf.open("a") as conf:
        conf.write("[notifications]\ntransport_url = memory://\n")
    code, _, err = shell.run(*argv)
    assert code == 2
    assert "in the memory of the daemon" in err
