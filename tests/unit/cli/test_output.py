# SPDX-License-Identifier: Apache-2.0
"""What a host says reaches a person's terminal, spreadsheet, YAML reader and shell as text and as nothing else."""

import csv
import io
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from bridge.cli.app import main
from bridge.core.extend import new_id
from bridge.core.inventory import Inventory
from bridge.core.messages import HostMessage
from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.reports import Reported
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import hosts
from bridge.runtime.listing import PrintableStream, safe_row
from bridge.runtime.retry import Backoff

EVIL = {
    "terminal": "\x1b]0;owned\x07\x1b[2J",
    "surrogate": "\ud800",
    "direction": "\u202eevil",
    "formula": "=cmd|' /C calc'!A0",
    "number": "1e3",
    "shell": "$(touch /tmp/owned)`id`",
    "new line": "a\nb",
}

Run = Callable[..., tuple[int, str]]


def _execute(statement: sa.Update, connection: sa.Connection) -> None:
    connection.execute(statement)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`extend-bridge host list` on a journal whose hosts said evil things, also before they were cleaned."""
    url = f"sqlite:///{tmp_path / 'j.sqlite3'}"
    database = Database(JournalSettings(connection=url))
    migrate.upgrade(database)
    reported = Reported(database, backoff=Backoff(), host_timeout=60)
    for number, word in enumerate(EVIL.values()):
        message = HostMessage(
            host=f"h{number}", boot_id=new_id(), seq=1, sent_at=1.0,
            inventory=Inventory(full=False, capabilities=(word,), unsupported={word: word}),
        )  # fmt: skip
        reported.take([message])
    names = {f"h{n}": f"{w}" for n, w in enumerate(EVIL.values()) if "\ud800" not in w}
    for name, word in names.items():
        renamed = hosts.update().where(hosts.c.name == name).values(name=word)
        database.write(partial(_execute, renamed))
    database.dispose()
    conf = tmp_path / "c.conf"
    conf.write_text(f"[journal]\nconnection = {url}\n")

    def command(*argv: str) -> tuple[int, str]:
        code = main([*argv, "--config-file", str(conf)])
        return code, capsys.readouterr().out

    return command


@pytest.mark.parametrize("form", ["table", "json", "csv", "yaml", "value"])
def test_no_word_of_a_host_drives_a_terminal_or_ends_the_list(run: Run, form: str) -> None:
    code, out = run("host", "list", "-f", form)
    assert code == 0
    assert all(c.isprintable() or c in "\n\t\r" for c in out)
    assert "calc" in out
    out.encode()


def test_no_cell_of_a_csv_is_a_formula(run: Run) -> None:
    _, out = run("host", "list", "-f", "csv")
    cells = [cell for row in csv.reader(io.StringIO(out), escapechar="\\") for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "'=cmd|' /C calc'!A0" in cells


def test_a_text_is_quoted_in_yaml_so_that_no_reader_takes_it_for_a_number(run: Run) -> None:
    _, out = run("host", "list", "-f", "yaml")
    assert '"1e3"' in out
    assert {row["Host"] for row in yaml.safe_load(out)} >= {"1e3", "=cmd|' /C calc'!A0"}


def test_a_json_document_holds_the_same(run: Run) -> None:
    _, out = run("host", "list", "-f", "json")
    assert {row["Host"] for row in json.loads(out)} >= {"1e3"}


@pytest.mark.parametrize("word", EVIL.values(), ids=EVIL)
def test_a_shell_runs_nothing_of_it(word: str, tmp_path: Path) -> None:
    (quoted,) = safe_row("shell", [word.replace("/tmp", str(tmp_path))])
    line = 'v="%s"; printf %%s "$v"' % quoted.replace('"', '\\"')  # noqa: UP031 - as cliff writes it
    subprocess.run(["/bin/sh", "-c", line.encode(errors="replace")], check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_utf8_gets_escapes_instead_of_an_error() -> None:
    raw = io.BytesIO()
    stream: Any = PrintableStream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("größe \ud800\n")
    stream.flush()
    assert raw.getvalue() == b"gr\\xf6\\xdfe \\ufffd\n"
