# SPDX-License-Identifier: Apache-2.0
"""Random histories of a cloud: the logs tell of each extend what the journal keeps of it, and nothing else."""

import os
from pathlib import Path

import pytest

from bridge.audit import logfiles
from tests.lab.histories import PlayedHistory
from tests.lab.told_story import differences

SEEDS = range(60 if os.environ.get("EXTEND_BRIDGE_LONG") else 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trace_of_every_extend_tells_what_the_journal_keeps(tmp_path: Path, seed: int) -> None:
    """Reconciliation, the slow lane, two hosts, two guests of a volume, late reports, an operator, file systems."""
    history = PlayedHistory(tmp_path, seed, observe=seed % 2 == 1)
    try:
        history.play(150)
    finally:
        history.close()
    logs = logfiles.find([str(tmp_path / "*.audit.jsonl")])
    assert list(differences(logs, history.journal, killed=False)) == []
