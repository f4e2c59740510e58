# SPDX-License-Identifier: Apache-2.0
"""Commands that read storage, with one total deadline each."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_REAP: Final = 1.0  # seconds for a killed command to end


def run_within(limit: float, command: Sequence[str], pass_fds: Sequence[int] = ()) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and error output. Raises TimeoutError after `limit` seconds.

    A command that cannot die, because its storage holds it inside the kernel, is left behind.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace", pass_fds=pass_fds, env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
    )  # fmt: skip
    try:
        said, complaint = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as ex:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_REAP)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        raise TimeoutError from ex
    return process.returncode, said, complaint
