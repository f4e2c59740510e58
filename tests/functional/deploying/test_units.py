# SPDX-License-Identifier: Apache-2.0
"""Units and rules before the tools that read them on an operator's machine; neither needs a running systemd."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.lab.paths import ROOT

pytestmark = pytest.mark.functional

UNITS = sorted((ROOT / "etc" / "systemd").glob("*.service"))
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
    done = run("promtool", "check", "rules", str(ROOT / "etc" / "prometheus" / "extend-bridge.rules.yml"))
    assert done.returncode == 0, done.stderr
