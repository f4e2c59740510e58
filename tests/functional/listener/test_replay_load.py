# SPDX-License-Identifier: Apache-2.0
"""A multiplied and mutated replay through a real broker: the listener delivers every event of it."""

import json
from pathlib import Path

import pytest

from bridge.cli.app import main
from listener.cli.load import multiplied
from listener.cli.recordings import read
from tests.functional.listener.conftest import Lab
from tests.lab.cinder_bus import CinderBus
from tests.lab.paths import ROOT

pytestmark = pytest.mark.functional

STREAM = ROOT / "bridge" / "standin" / "recorded.jsonl"


def test_every_event_of_a_mutated_load_reaches_the_endpoint(
    lab: Lab, bus: CinderBus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {item.key for item in multiplied(read([STREAM]).items, 20)}
    state = tmp_path / "state"
    with lab.listening() as listener:
        listener.ready()
        load = ["--send", "--to", "broker", "--multiply", "20", "--mutate", "11", "--state", str(state)]
        code = main(["replay", "-f", "json", "--config-file", str(lab.conf), *load, str(STREAM)])
        rows = json.loads(capsys.readouterr().out)
        faults = {row["Reason"]: row["Count"] for row in rows if row["Verdict"] == "mutated"}
        extra = sum(count for kind, count in faults.items() if kind != "reordered")
        sent = sum(row["Count"] for row in rows if row["Verdict"] == "published")
        listener.settles(sent + extra)
    assert code == 0
    assert set(faults) == {"reordered", "duplicated", "cut", "poisoned"}
    assert {*lab.endpoint.events} == {(key.server_id, key.volume_id) for key in expected}
    assert lab.drain("extend_bridge.unreadable")
