# SPDX-License-Identifier: Apache-2.0
"""What the audit logs of a run with kills come to, beside the journal of the same run."""

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from bridge.audit import logfiles, report, trace
from tests.chaos.test_chaos import chaos
from tests.conftest import missing
from tests.lab.rabbitmq import have_rabbitmq

pytestmark = pytest.mark.functional


def test_logs_alone_give_the_totals_of_the_journal_and_the_story_of_any_volume(tmp_path: Path) -> None:
    """Every extend the journal holds, all ended; with one part's logs missing it is said what cannot be known."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    code, _, said = chaos("--events", "150", "--kills", "8", "--spread", "20", keep=tmp_path / "run")
    assert code == 0, said
    logs = logfiles.find([str(tmp_path / "run" / "*.audit.jsonl")])
    made = report.make(logs, older_than=0.0)
    journal = sqlite3.connect(tmp_path / "run" / "journal" / "journal.sqlite3")
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
