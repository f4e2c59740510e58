# SPDX-License-Identifier: Apache-2.0
"""extend-bridge-status upgrade check, and db purge: what a new user sees, well and not."""

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from bridge.cmd.manage import main as manage
from bridge.cmd.status import main as status
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.journal import schema
from bridge.journal.settings import JournalSettings
from bridge.journal.store import open_journal
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
    assert said.count("Check: ") == 7
    assert "Traceback" not in said


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
    schema.upgrade(journal.database)
    journal.accept([Arrival(key=ExtendKey(new_id(), new_id())) for _ in range(3)])
    closed = sa.select(extends.c.id).limit(2).scalar_subquery()
    ended = {"open": None, "closed_at": time.time() - 99 * 86400, "state": "closed"}
    journal.database.write(lambda c: c.execute(sa.update(extends).where(extends.c.id.in_(closed)).values(**ended)))
    journal.database.dispose()
    assert manage(["--config-file", str(conf), "db", "purge"]) == 0
    assert capsys.readouterr().out == "2 rows deleted\n"
