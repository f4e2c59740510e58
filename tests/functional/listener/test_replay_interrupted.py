# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of a replay: what is in hand is finished, the next run goes on, nothing is sent twice."""

import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.lab.endpoint import RecordingEndpoint
from tests.lab.paths import ROOT
from tests.lab.trail import extend, lines
from tests.lab.waiting import until

pytestmark = pytest.mark.functional
EXTENDS = 150


def test_ctrl_c_and_the_same_command_again_send_each_event_once(tmp_path: Path) -> None:
    """Twice interrupted, then to the end."""
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{line}\n" for n in range(EXTENDS) for line in lines(extend(n))))
    with RecordingEndpoint() as endpoint:
        argv = [sys.executable, "-m", "bridge.cli.app", "replay", "--send", "--endpoint", endpoint.url, str(log)]
        for stage in (1, 2):
            before = len(endpoint.events)
            replay = subprocess.Popen([*argv, "--rate", "40"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
            until(partial(_more_than, endpoint, before + 4), "some events")
            replay.send_signal(signal.SIGINT)
            said = replay.communicate(timeout=600)[1]
            assert "the same command continues" in said, stage
            assert replay.returncode == 1  # what comes after it in a script waits for all of it
            assert "Traceback" not in said
            assert before < len(endpoint.events) < EXTENDS
        assert subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, timeout=600).returncode == 0
        sent = Counter(endpoint.events)
    assert len(sent) == EXTENDS
    assert set(sent.values()) == {1}


def _more_than(endpoint: RecordingEndpoint, number: int) -> bool:
    return len(endpoint.events) > number
