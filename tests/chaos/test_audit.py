# SPDX-License-Identifier: Apache-2.0
"""A run with kills: nothing is lost, and its audit logs come to what the journal of the same run holds."""

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from bridge.audit import logfiles, report, trace
from bridge.audit.schema import audit_schema
from tests.chaos.test_chaos import chaos
from tests.conftest import missing
from tests.lab.rabbitmq import have_rabbitmq
from tests.lab.told_story import differences

pytestmark = pytest.mark.functional


def not_as_described(logs: list[Path]) -> list[str]:
    """Return the lines that the audit log's schema does not describe."""
    schema = jsonschema.Draft202012Validator(audit_schema())
    return [line for log in logs for line in log.read_text().splitlines() if not schema.is_valid(json.loads(line))]


@dataclass(frozen=True, slots=True, kw_only=True)
class KilledRun:
    """A run with kills: its exit code, the numbers of its last line, what it said, and the directory it wrote."""

    code: int
    numbers: list[int]
    said: str
    directory: Path


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> KilledRun:
    """Two hundred extends, and every kind of part killed, stopped or restarted."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    directory = tmp_path_factory.mktemp("killed") / "run"
    code, numbers, said = chaos("--events", "200", "--kills", "8", "--spread", "20", keep=directory)
    return KilledRun(code=code, numbers=numbers, said=said, directory=directory)


def test_nothing_is_lost(killed: KilledRun) -> None:
    assert (killed.code, killed.numbers) == (0, [0, 0, 0]), killed.said


def test_the_trace_of_each_extend_tells_what_the_journal_keeps(killed: KilledRun) -> None:
    logs = logfiles.find([str(killed.directory / "*.audit.jsonl*")])
    assert list(differences(logs, killed.directory / "journal" / "journal.sqlite3", killed=True)) == []


def test_every_line_is_as_the_schema_describes_it(killed: KilledRun) -> None:
    assert not_as_described(logfiles.find([str(killed.directory / "*.audit.jsonl*")])) == []


def test_logs_alone_give_the_totals_of_the_journal_and_the_story_of_any_volume(killed: KilledRun) -> None:
    """Every extend the journal holds, all ended; with one part's logs missing it is said what cannot be known."""
    logs = logfiles.find([str(killed.directory / "*.audit.jsonl")])
    made = report.make(logs, older_than=0.0)
    journal = sqlite3.connect(killed.directory / "journal" / "journal.sqlite3")
    rows = journal.execute("select volume_id, outcome from extends").fetchall()
    journal.close()
    assert made.opened == len(rows)
    assert (made.wrong["stuck"], made.wrong["behind"], made.missing) == (0, 0, [])
    told, held = made.results, Counter(outcome for _, outcome in rows)
    # an end that a killed engine did not write is known by a report that came again, which may be another attempt's
    assert sum(told[o] for o in ("resized", "already")) == held["resized"] + held["already"]
    for volume in {volume for volume, _ in rows}:
        found = trace.trace(logs, volume)
        assert len([s for s in found.stories if s.ended is not None]) == sum(v == volume for v, _ in rows)
    for part, word in (("engine", "engine"), ("api", "API"), ("listener", "listener")):
        some = report.make([path for path in logs if not path.name.startswith(part)], older_than=0.0)
        assert any(word in line for line in some.missing)
