# SPDX-License-Identifier: Apache-2.0
"""extend-bridge-status upgrade check, and db purge: what a new user sees, well and not."""

import time
from pathlib import Path

import pytest
import requests
import requests_mock
import sqlalchemy as sa

from bridge.cmd.manage import main as manage
from bridge.cmd.upgrade_check import main as status
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal import migrate
from bridge.journal.accept import open_journal
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import extends


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A stand-alone engine without a Cinder that answers."""
    path = tmp_path / "x.conf"
    path.write_text(
        f"[journal]\nconnection = sqlite:///{tmp_path / 'j.sqlite3'}\n[bus]\ntransport_url = memory://\n"
        "[cinder]\nauth_type = none\nendpoint_override = http://127.0.0.1:9/v3\n"
    )
    return path


def test_every_check_says_in_words_what_it_found(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2, since tables and Cinder are missing; one check that fails does not stop the next."""
    assert status(["--config-file", str(conf), "upgrade", "check"]) == 2
    said = capsys.readouterr().out
    assert "db sync" in said
    assert "[cinder] cannot be reached" in said
    assert said.count("Check: ") == 11
    assert "Traceback" not in said


def said_by(conf: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """The exit code, and what the table says as one line."""
    code = status(["--config-file", str(conf), *options, "upgrade", "check"])
    return code, " ".join(capsys.readouterr().out.replace("|", " ").split())


def test_a_hypervisor_is_asked_what_an_agent_needs(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No journal, no Cinder; and a lock directory that is not there is said, once."""
    with conf.open("a") as file:
        file.write(f"[hostagent]\nlibvirt_uri = test:///default\nlock_path = {tmp_path / 'gone'}\n")
    code, said = said_by(conf, capsys, "--part", "hostagent")
    assert code == 2
    assert "lock_path" in said
    assert "is not a directory" in said
    assert "Cinder" not in said
    assert "Journal" not in said


def test_a_check_of_a_hypervisor_creates_nothing(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may run on any machine, as any user, before the agent's first start."""
    before = sorted(tmp_path.rglob("*"))
    with conf.open("a") as file:
        file.write(f"[hostagent]\nlibvirt_uri = test:///default\nstate_path = {tmp_path / 'state'}\n")
    said_by(conf, capsys, "--part", "hostagent")
    assert sorted(tmp_path.rglob("*")) == before


def test_one_process_needs_no_broker_no_tables_and_no_endpoint_of_its_own(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """README: `--part all-in-one`, before its first start."""
    conf.write_text(
        f"[journal]\nconnection = sqlite:///{tmp_path / 'new'}\n[cinder]\nauth_type = none\n"
        "endpoint_override = http://127.0.0.1:9/v3\n[notifications]\ntransport_url = memory://\n"
        f"[hostagent]\nlibvirt_uri = test:///default\nlock_path = {tmp_path}\n"
    )
    _, said = said_by(conf, capsys, "--part", "all-in-one")
    assert "will be created at the first start" in said
    assert "Check: Our bus Result: Success Details: inside the process" in said
    assert "Check: Endpoint" not in said
    assert "Check: This host" in said
    assert not (tmp_path / "new").exists()


def test_a_part_that_does_not_exist_is_refused_with_the_names_of_those_that_do(
    conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["--config-file", str(conf), "--part", "agent", "upgrade", "check"]) == 2
    assert "the parts are listener, api, engine, hostagent and all-in-one" in capsys.readouterr().err


def test_a_configuration_no_part_would_start_with_is_said(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the part's own words."""
    with conf.open("a") as file:
        file.write("[api]\nbind_host = 0.0.0.0\nauth_strategy = noauth\n")
    code, said = said_by(conf, capsys, "--part", "api")
    assert code == 2
    assert "noauth is refused" in said


@pytest.mark.parametrize(
    ("newest", "code", "words"),
    [
        ("2.51", 0, "supports compute 2.51"),
        ("2.104", 0, "the second event finds the size there"),
        ("2.47", 2, "2.51 is needed"),
        (None, 1, "does not return a version document"),
    ],
)
def test_the_endpoint_is_asked_for_its_microversion(
    conf: Path, requests_mock: requests_mock.Mocker, capsys: pytest.CaptureFixture[str],
    newest: str | None, code: int, words: str,
) -> None:  # fmt: skip
    """A Nova before 16 would refuse every event."""
    url = "http://endpoint.example/v2.1"
    requests_mock.get(f"{url}/os-server-external-events", status_code=404)
    requests_mock.get(f"{url}/", json={"version": {"version": newest}} if newest else {})
    with conf.open("a") as file:
        file.write(f"[notifications]\ntransport_url = memory://\n[endpoint]\nendpoint_override = {url}\n")
    found, said = said_by(conf, capsys, "--part", "listener")
    assert words in said
    assert found == max(code, 1)  # nothing can be said of a queue inside another process: a warning at least


@pytest.mark.parametrize(
    ("answers", "rights", "words"),
    [
        (200, 200, "Success Details: shows volumes of every project"),
        (200, 403, "Failure Details: shows volumes of one project only: its user needs the role admin"),
        (403, 403, "Failure Details: answers 403: its user needs the role admin"),
        (404, 404, "Failure Details: answers 404: is [cinder] endpoint_override Cinder's v3 API?"),
    ],
)
def test_a_user_who_sees_one_projects_volumes_is_found_out(
    conf: Path, requests_mock: requests_mock.Mocker, capsys: pytest.CaptureFixture[str],
    answers: int, rights: int, words: str,
) -> None:  # fmt: skip
    """Cinder answers 200 to anybody who asks for all projects' volumes."""
    requests_mock.get("http://127.0.0.1:9/v3/volumes/detail", status_code=answers, json={"volumes": []})
    requests_mock.get("http://127.0.0.1:9/v3/volumes", json={"volumes": []})
    requests_mock.get("http://127.0.0.1:9/v3/os-services", status_code=rights, json={})
    _, said = said_by(conf, capsys, "--part", "engine")
    assert words in said


def test_cinders_own_configuration_is_looked_at_where_it_is_named(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Cinder that sends no notifications is found before anybody resizes a volume."""
    with conf.open("a") as file:
        file.write("[notifications]\ntransport_url = memory://\n[endpoint]\nauth_type = none\n")
    (tmp_path / "cinder.conf").write_text("[nova]\npassword = s3cret\n")
    code, said = said_by(conf, capsys, "--part", "listener", "--cinder-conf", str(tmp_path / "cinder.conf"))
    assert code == 2
    assert "Cinder sends no notifications" in said
    assert "s3cret" not in said
    code, said = said_by(conf, capsys, "--part", "listener", "--cinder-conf", str(tmp_path / "gone"))
    assert code == 2
    assert "cannot be read: No such file" in said


def test_a_connection_that_is_reset_once_is_no_failure_and_no_library_logs_above_the_table(
    conf: Path, requests_mock: requests_mock.Mocker, capfd: pytest.CaptureFixture[str]
) -> None:
    """FIELD section 4: a kept-alive connection that Cinder had just closed, and 500 characters of warnings."""
    requests_mock.get(
        "http://127.0.0.1:9/v3/volumes/detail", [{"exc": requests.ConnectionError}, {"json": {"volumes": []}}]
    )
    requests_mock.get("http://127.0.0.1:9/v3/volumes", exc=requests.ConnectionError)
    requests_mock.get("http://127.0.0.1:9/v3/os-services", json={})
    status(["--config-file", str(conf), "--part", "engine", "upgrade", "check"])
    said, logged = capfd.readouterr()
    assert "shows volumes of every project" in said
    assert logged == ""


def test_a_broker_that_is_away_is_a_failure(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its password."""
    conf.write_text(conf.read_text().replace("memory://", "rabbit://u:secret@127.0.0.1:9/"))
    assert status(["--config-file", str(conf), "upgrade", "check"]) == 2
    said = capsys.readouterr().out
    assert "[bus] transport_url cannot be reached" in " ".join(said.replace("|", " ").split())
    assert "secret" not in said


@pytest.mark.parametrize("argv", [[], ["upgrade"], ["check"]])
def test_wrong_usage_is_two_in_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And says what to type."""
    assert status(argv) == 2
    assert "upgrade check" in capsys.readouterr().err


def test_purge_deletes_what_is_older_than_the_options_say(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing that is open."""
    url = conf.read_text().split("connection = ")[1].split()[0]
    journal = open_journal(JournalSettings(connection=url))
    migrate.upgrade(journal.database)
    journal.accept([Arrival(key=ExtendKey(new_id(), new_id())) for _ in range(3)])
    closed = sa.select(extends.c.id).limit(2).scalar_subquery()
    ended = {"open": None, "closed_at": time.time() - 99 * 86400, "state": "closed"}
    journal.database.write(lambda c: c.execute(sa.update(extends).where(extends.c.id.in_(closed)).values(**ended)))
    journal.database.dispose()
    assert manage(["--config-file", str(conf), "db", "purge"]) == 0
    assert capsys.readouterr().out == "2 rows deleted\n"
