# SPDX-License-Identifier: Apache-2.0
"""Units and rules before the tools that read them on an operator's machine; neither needs a running systemd."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.runtime.config import OPS_PORTS
from tests.conftest import missing
from tests.lab.paths import ROOT

pytestmark = pytest.mark.functional

UNITS = sorted((ROOT / "etc" / "systemd").glob("*.service"))
RULES = ROOT / "etc" / "prometheus" / "extend-bridge.rules.yml"
EXPOSED = {"extend-bridge-hostagent": 4.5, "extend-bridge-all-in-one": 4.5}
"""The host agent is root by trade; all else is to be tight."""


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Or skip where it is not installed."""
    if shutil.which(tool) is None:
        missing(tool)
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_valid_and_tight(unit: Path, tmp_path: Path) -> None:
    """No unknown key, no word of complaint; exposure as systemd itself counts it."""
    copy = tmp_path / unit.name  # the command of the unit is not installed here; another stands in
    copy.write_text(re.sub(r"/opt/extend-bridge/bin/\S+", sys.executable, unit.read_text()))
    verified = run("systemd-analyze", "verify", "--man=no", str(copy))
    said = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, said) == (0, [])
    secure = run("systemd-analyze", "security", "--offline=true", str(copy))
    found = re.search(r"exposure level for \S+: ([\d.]+)", secure.stdout + secure.stderr)
    assert found is not None
    assert float(found.group(1)) <= EXPOSED.get(unit.stem, 1.5)


def test_promtool_takes_the_rules() -> None:
    """Their expressions parse, their templates as well."""
    done = run("promtool", "check", "rules", str(RULES))
    assert done.returncode == 0, done.stderr


def alert(name: str, series: dict[str, str], minute: int, fires: str = "", **labels: str) -> dict[str, Any]:
    """A test of promtool's: whether the alert fires after so many minutes of these series, with this summary."""
    (rule,) = (r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"] if r["alert"] == name)
    expected = {
        "exp_labels": {"severity": "warning", **labels},
        "exp_annotations": {"summary": fires, "description": rule["annotations"]["description"]},
    }
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": [expected] if fires else []}
        ],
    }


def test_alerts_of_guests_behind_and_unseen_fire_when_they_should(tmp_path: Path) -> None:
    """Once, whatever engine says it; not where a pass finds and mends, nor where passes are switched off."""
    behind, unseen = "extend_bridge_behind_oldest_seconds", "extend_bridge_unseen_guests"
    passed = "extend_bridge_reconcile_last_pass_timestamp_seconds"
    grows = {f'{behind}{{instance="{engine}"}}': "0+60x120" for engine in "ab"}
    gone = {f'{unseen}{{instance="{engine}",reason="no_agent"}}': "3x90" for engine in "ab"}
    said = {
        "ExtendBridgeGuestsBehind": "a guest has been behind its volume for 1h 10m 0s",
        "ExtendBridgeGuestsUnseen": "the size in 3 guests is not known: no_agent",
        "ExtendBridgeNobodyLooks": "no reconcile pass has ended for 2h 10m 0s",
    }
    one, other, third = said
    tests = [
        alert(one, grows, 70, said[one]),
        alert(one, grows, 50),
        alert(other, gone, 70, said[other], reason="no_agent"),
        alert(other, gone, 50),
        alert(other, {f'{unseen}{{reason="no_agent"}}': "3x30 0x90"}, 70),
        alert(third, {passed: "600x200"}, 140, said[third]),
        alert(third, {passed: "0+60x200"}, 140),
        alert(third, {passed: "0x200"}, 140),
    ]
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    done = run("promtool", "test", "rules", str(tmp_path / "test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_of_parts_that_do_not_move_fire_when_they_should(tmp_path: Path) -> None:
    """Not for work that comes and goes, nor for one restart."""
    due, ready = "extend_bridge_oldest_due_seconds", "extend_bridge_ready"
    labels = {"check": "engine.due", "instance": "a"}
    series = '{check="engine.due",instance="a"}'
    stuck = "engine.due of a has not moved for 4m 0s"
    flaps = "engine.due of a changes between ready and not ready"
    tests = [
        alert("ExtendBridgeStuck", {due + series: "0+60x20"}, 4, stuck, **(labels | {"severity": "critical"})),
        alert("ExtendBridgeStuck", {due + series: "0 30 0 50 0 20 59 0"}, 7),
        alert("ExtendBridgeFlaps", {ready + series: "1 0 1 0 1 0 1 0 1 0 1"}, 10, flaps, **labels),
        alert("ExtendBridgeFlaps", {ready + series: "1 1 1 0 0 1 1 1 1 1 1"}, 10),
    ]
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    done = run("promtool", "test", "rules", str(tmp_path / "test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_scrape_configuration_and_its_ports_are_the_daemons() -> None:
    """Rules without a scrape example, and a port that was another at each start."""
    example = RULES.with_name("prometheus.yml")
    done = run("promtool", "check", "config", str(example))
    assert done.returncode == 0, done.stdout + done.stderr
    ports = {
        job["job_name"]: {target.rpartition(":")[2] for target in job["static_configs"][0]["targets"]}
        for job in yaml.safe_load(example.read_text())["scrape_configs"]
    }
    wanted = {f"extend-bridge-{part}": {str(port)} for part, port in OPS_PORTS.items() if part != "all_in_one"}
    assert ports == wanted
