# SPDX-License-Identifier: Apache-2.0
"""Ports of tests: no two test processes of a machine are given the same one."""

import random
import socket
import subprocess
import sys
from itertools import chain

import pytest

from tests.lab import ports
from tests.lab.paths import ROOT


def test_a_port_of_another_test_process_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while its server has not begun to listen."""
    program = "from tests.lab.ports import steady_port; print(steady_port(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        drawn = chain([taken], range(31_000, 32_000))
        monkeypatch.setattr(random, "randrange", lambda *_bounds: next(drawn))
        assert 31_000 <= ports.steady_port() != taken
        other.communicate("\n")


def test_a_port_on_which_somebody_listens_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        drawn = chain([server.getsockname()[1]], range(31_000, 32_000))
        monkeypatch.setattr(random, "randrange", lambda *_bounds: next(drawn))
        assert ports.steady_port() in range(31_000, 32_000)
