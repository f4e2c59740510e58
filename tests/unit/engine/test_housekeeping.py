# SPDX-License-Identifier: Apache-2.0
"""Housekeeping on a real SQLite file."""

import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.extend import ExtendKey, new_id
from bridge.engine.housekeeping import Sweeper
from bridge.journal import migrate
from bridge.journal.behind import Behind
from bridge.journal.database import Database
from bridge.journal.retention import Retention
from bridge.journal.settings import JournalSettings, Keep
from bridge.runtime.metrics import EngineMetrics
from tests.unit.api.fakes import ListAudit
from tests.unit.journal.conftest import REPORT_WITHIN, Bench


def test_a_claim_that_led_to_no_order_is_taken_up_by_the_next_sweep_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine died, or the database did with the answer to its commit; no host has an order to report on."""
    database = Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'journal.sqlite3'}"))
    migrate.upgrade(database)
    bench = Bench(database)
    sweeper = Sweeper(
        work=bench.work, behind=Behind(database), retention=Retention(database, Keep(), clock=lambda: bench.now),
        overdue_after=900, report_within=REPORT_WITHIN, metrics=EngineMetrics(CollectorRegistry()),
        audit=ListAudit(), clock=lambda: bench.now,
    )  # fmt: skip
    bench.arrive(ExtendKey(new_id(), new_id()))
    assert len(bench.claim()) == 1
    bench.now += 50
    with caplog.at_level(logging.WARNING):
        sweeper.sweep()
    assert [extend.attempt for extend in bench.claim()] == [2]
    assert "1 extends were claimed and no order was sent" in caplog.text
    database.dispose()
