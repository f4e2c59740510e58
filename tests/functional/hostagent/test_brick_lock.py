# SPDX-License-Identifier: Apache-2.0
"""os-brick itself, its lock held by another process as nova-compute holds it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.errors import StepFailedError
from tests.functional.hostagent.conftest import Bench
from tests.lab.brick import start_process

pytestmark = pytest.mark.functional

NOVA = textwrap.dedent("""
    import sys
    import bridge.runtime.threads
    from oslo_concurrency import lockutils
    lockutils.set_defaults(sys.argv[1])
    with lockutils.lock("extend_volume", "os-brick-", external=True):
        print("held", flush=True)
        input()
""")
NOT_CONNECTED = {"target_portal": "127.0.0.1:3260", "target_iqn": "iqn.2000-01.test:x", "target_lun": 1}


def _extend(bench: Bench) -> StepFailedError:
    with pytest.raises(StepFailedError) as caught:
        bench.brick.extend("ISCSI", NOT_CONNECTED)
    return caught.value


def test_while_somebody_else_extends_the_outcome_says_who(bench: Bench, tmp_path: Path) -> None:
    """Within lock_limit; after that os-brick is asked as ever, and finds that the volume is not connected."""
    nova = subprocess.Popen(
        [sys.executable, "-c", NOVA, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert nova.stdout is not None
        assert nova.stdout.readline() == "held\n"
        start_process(bench.brick)
        error = _extend(bench)
        assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.BRICK_LOCK_HELD)
        assert f"process {nova.pid} " in error.detail
    finally:
        nova.kill()
        nova.wait()
    assert _extend(bench).reason is Reason.BRICK_RAISED
