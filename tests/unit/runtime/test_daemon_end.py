# SPDX-License-Identifier: Apache-2.0
"""A process that was told to stop is gone after its grace time, whatever its threads are at."""

import signal
import subprocess
import sys

from tests.lab.paths import ROOT

_STUCK = """
import threading
from bridge.runtime.daemon import Daemon

class Stuck:
    def start(self):
        threading.Thread(target=threading.Event().wait).start()
        print("started", flush=True)
    def stop(self): ...
    def join(self, seconds):
        return False

raise SystemExit(Daemon("d", [Stuck()], grace=0.1).run())
"""


def test_a_part_that_hangs_does_not_hold_the_process() -> None:
    """Its thread is no daemon thread, as those of the API's server: Python would wait for it."""
    argv = [sys.executable, "-c", _STUCK]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        with process.stdout as said:
            assert said.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 1
    finally:
        process.kill()
        process.wait()
