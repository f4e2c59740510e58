# SPDX-License-Identifier: Apache-2.0
"""bridge.wsgi:application, on a real journal in a file: nothing happens before the first request."""

import sqlite3
from pathlib import Path

import pytest
from falcon import testing

from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.runtime import config
from bridge.wsgi import CONFIG_VARIABLE, Application
from tests.unit.api.fakes import ON_HOST, PATH, VOLUME, event


@pytest.fixture(autouse=True)
def _logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """oslo.log would take the handlers of every other test away."""
    monkeypatch.setattr(config, "setup_logging", lambda *_: None)


HEADERS = {"OpenStack-API-Version": "compute 2.51"}


def configure(where: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> Path:
    """A configuration file; returns the journal's."""
    journal = where / "journal.sqlite3"
    text = [f"[journal]\nconnection = sqlite:///{journal}", f"[audit]\nfile = {where}/audit.log"]
    path = where / "extend-bridge.conf"
    path.write_text("\n".join([*text, "[api]\nwake_port = 0", *lines]) + "\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    return journal


def post(client: testing.TestClient) -> testing.Result:
    return client.simulate_post(PATH, json={"events": [event()]}, headers=HEADERS)


def test_it_serves_and_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 200 is a row that another connection can read."""
    journal = configure(tmp_path, monkeypatch, "force_noauth = true")
    client = testing.TestClient(Application())
    assert not journal.exists()
    migrate.upgrade(Database(JournalSettings(connection=f"sqlite:///{journal}")))
    with sqlite3.connect(journal) as reader:
        columns = [row[1] for row in reader.execute("pragma table_info(domains)")]
        values = {"server_id": ON_HOST, "host": "cmp-1", "state": "active"}
        row = [values.get(column, 0) for column in columns]
        reader.execute(f"insert into domains values ({','.join('?' * len(row))})", row)
    answer = post(client)
    assert (answer.status_code, answer.json["events"][0]["code"]) == (200, 200)
    with sqlite3.connect(journal) as reader:
        assert reader.execute("select server_id, volume_id, wanted_gen from extends").fetchall() == [
            (ON_HOST, VOLUME, 1)
        ]
    assert '"event":"accepted"' in (tmp_path / "audit.log").read_text()


def test_a_journal_without_tables_is_503_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on by itself once `db sync` was run."""
    journal = configure(tmp_path, monkeypatch, "force_noauth = true")
    client = testing.TestClient(Application())
    answer = post(client)
    assert (answer.status_code, list(answer.json)) == (503, ["serviceUnavailable"])
    assert "retry-after" in answer.headers
    migrate.upgrade(Database(JournalSettings(connection=f"sqlite:///{journal}")))
    assert post(client).status_code == 207


def test_noauth_is_refused_until_it_is_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """503 to the caller, one line to the operator; mended without a restart."""
    configure(tmp_path, monkeypatch)
    client = testing.TestClient(Application())
    answer = post(client)
    assert answer.status_code == 503
    assert "noauth" not in answer.text
    assert "noauth is refused under an external WSGI server" in caplog.text
    configure(tmp_path, monkeypatch, "force_noauth = true")
    assert post(client).status_code == 503  # the journal has no tables
    assert "each caller that can connect to this API" in caplog.text


def test_a_missing_file_is_named_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the caller is asked to come back."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "absent.conf"))
    answer = post(testing.TestClient(Application()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "absent.conf" in caplog.text
