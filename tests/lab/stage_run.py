# SPDX-License-Identifier: Apache-2.0
"""The run of tools/test's stages: some alone, then two at a time. Standard library only."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tests.lab.install import TREE, say
from tests.lab.leftovers import TIMES

SIDE_BY_SIDE: Final = "-n2"
"""Tests in two processes: real parts are mostly waited for. Each process has real parts of its own."""
_TESTS_FAILED: Final = 1
"""pytest's exit code for that; every other code but 0 says that the run itself went wrong."""
_FEW: Final = 3
"""Tests of real parts that may fail at the first try: a machine that stood still, not a defect they share."""
_CACHES: Final = Path(".pytest_cache")
_LAST_FAILED: Final = Path("v/cache/lastfailed")
_SILENT: Final = 7200.0
"""Seconds after which a command hangs when neither the command nor one of its tests has ended."""
_LOOK_EVERY: Final = 0.2  # seconds
_SAY_EVERY: Final = 60.0  # seconds
_SLOWEST: Final = 10
_LANES: Final = 2


@dataclass(frozen=True)
class Stage:
    """Commands of a run; `{bin}` is the virtualenv's bin directory."""

    name: str
    about: str
    commands: tuple[tuple[str, ...], ...]
    thorough: tuple[tuple[str, ...], ...] = ()  # the commands with --long, where there are others
    only_long: bool = False  # runs with --long or when it is named, never by default
    real: bool = False  # needs the hypervisor and the broker
    again: bool = False  # a few tests that fail are run once more, by themselves, and named
    packages: tuple[str, ...] = ()  # Debian packages that only this stage needs
    beside: bool = False  # runs beside another stage, after those that run alone


@dataclass(slots=True)
class StageRun:
    """A stage under way and what came of it. `output`: its file, None where it writes to the terminal."""

    stage: Stage
    environment: dict[str, str]
    output: IO[bytes] | None = None
    cpu: float = 0.0  # seconds, of the commands and all that they waited for
    unsteady: list[str] = field(default_factory=list)
    failed: str = ""

    def passes(self, command: Sequence[str]) -> bool:
        """Run a command; where the stage may, a few failed tests once more."""
        if not self.stage.again:
            return self.run(command) == 0
        cache = TREE / _CACHES / self.stage.name
        last_failed = cache / _LAST_FAILED
        last_failed.unlink(missing_ok=True)
        command = [*command[:-1], "-o", f"cache_dir={cache}", command[-1]]
        if (code := self.run(command)) != _TESTS_FAILED:
            return code == 0
        few = sorted(json.loads(last_failed.read_text())) if last_failed.exists() else []
        if not 0 < len(few) <= _FEW:
            return False
        say(f"=== {self.stage.name}: once more {', '.join(few)}")
        if self.run([*(part for part in command[:-1] if part != SIDE_BY_SIDE), *few]) != 0:
            return False
        self.unsteady += few
        return True

    def run(self, command: Sequence[str]) -> int:
        """Return the exit code of a command, which the kernel ends when tools/test is gone, in whatever way.

        A command that hangs is aborted: pytest then shows the stack of each of its threads.
        """
        ended = Path(self.environment.get(TIMES, os.devnull))
        began = time.time()
        tied = [*(("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()), *command]
        with subprocess.Popen(
            tied, cwd=TREE, env=self.environment, stdout=self.output, stderr=self.output
        ) as process:
            try:
                while process.returncode is None:
                    self._look(process)
                    if time.time() - max(began, ended.stat().st_mtime) > _SILENT:
                        process.send_signal(signal.SIGABRT)
                    time.sleep(_LOOK_EVERY)
            finally:
                process.terminate()
        return process.returncode

    def _look(self, process: "subprocess.Popen[bytes]") -> None:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            self.cpu += usage.ru_utime + usage.ru_stime


class _Run:
    """One call of tools/test: the stages that ended, and whether to go on."""

    def __init__(self, bin_directory: Path, *, long: bool) -> None:
        self._bin = bin_directory
        self._long = long
        self._lock = threading.Lock()
        self._under_way: dict[str, float] = {}
        self._times: list[tuple[str, float]] = []
        self._tests: Counter[str] = Counter()
        self._unsteady: list[str] = []
        self._failed: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether a stage failed, which outside CI keeps the later stages from running."""
        return bool(self._failed) and os.environ.get("CI") != "true"

    def in_order(self, stages: Iterable[Stage], *, shown_whole: bool = False) -> None:
        """Run stages one after another; in a lane each one's output is shown when it has ended."""
        for stage in stages:
            if self.stopped:
                return
            self._under_way[stage.name] = time.monotonic()
            with self._output(shown_whole) as output, tempfile.NamedTemporaryFile("r", prefix="eb-times-") as tests:
                say(f"=== {stage.name}: {stage.about}{' (its output follows at its end)' if shown_whole else ''}")
                run = StageRun(stage, self._environment(tests.name), output)
                self._run(run)
                with self._lock:
                    self._note(run, time.monotonic() - self._under_way.pop(stage.name), tests.read())

    def side_by_side(self, stages: Sequence[Stage]) -> None:
        """Run the stages in two lanes, of which each takes the next one; say each minute what is under way."""
        waiting = deque(stages)
        with ThreadPoolExecutor(_LANES, thread_name_prefix="lane") as pool:
            lanes = [pool.submit(self.in_order, _taken_from(waiting), shown_whole=True) for _ in range(_LANES)]
            while wait(lanes, _SAY_EVERY).not_done:
                now = time.monotonic()
                say("=== " + ", ".join(f"{n} for {now - s:.0f} s" for n, s in list(self._under_way.items())))
            for ended in lanes:
                ended.result()

    def _run(self, run: StageRun) -> None:
        stage = run.stage
        for command in (stage.thorough if self._long else ()) or stage.commands:
            if not run.passes([part.format(bin=self._bin) for part in command]):
                run.failed = " ".join(command).format(bin=".venv/bin")
                return

    @contextmanager
    def _output(self, shown_whole: bool) -> Iterator[IO[bytes] | None]:
        """Yield the file for a stage's output in a lane, None for the terminal; show the file at the end."""
        if not shown_whole:
            yield None
            return
        with tempfile.TemporaryFile() as output:
            try:
                yield output
            finally:
                with self._lock:
                    output.seek(0)
                    sys.stdout.flush()
                    shutil.copyfileobj(output, sys.stdout.buffer)
                    sys.stdout.flush()

    def _environment(self, tests: str) -> dict[str, str]:
        path = f"{self._bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return dict(os.environ, PYTHONPATH=str(TREE), PATH=path, **{TIMES: tests})

    def _note(self, run: StageRun, took: float, tests: str) -> None:
        name = run.stage.name
        self._times.append((name, took))
        self._unsteady += run.unsteady
        self._tests += seconds_of(tests)
        if not run.failed:
            say(f"=== {name} passed in {took:.1f} s ({run.cpu:.1f} s of CPU)")
            return
        say(f"=== {name} failed after {took:.1f} s: {run.failed}")
        self._failed.append(name)

    def summary(self) -> int:
        """Print times, the slowest tests and what failed; return the exit code."""
        for test, seconds in self._tests.most_common(_SLOWEST):
            say(f"=== {seconds:6.1f} s {test}")
        say("=== " + ", ".join(f"{name} {took:.1f} s" for name, took in self._times))
        for test in self._unsteady:
            say(f"=== passed at the second try only, find out why: {test}")
        if self._failed:
            say(f"=== failed: {', '.join(self._failed)}")
        return 1 if self._failed else 0


def run_stages(stages: Sequence[Stage], bin_directory: Path, *, long: bool, lanes: bool) -> int:
    """Run stages; in CI a stage that fails does not keep the others from running.

    With `lanes` stages that may do so run two at a time, after those that run alone: real parts are mostly waited
    for, and one lane alone leaves half of two cores idle.
    """
    run, began = _Run(bin_directory, long=long), time.monotonic()
    beside = [stage for stage in stages if stage.beside]
    if not lanes or len(beside) < _LANES:
        beside = []
    run.in_order(stage for stage in stages if stage not in beside)
    run.side_by_side(beside)
    code = run.summary()
    say(f"=== {time.monotonic() - began:.1f} s in all")
    return code


def _taken_from(waiting: "deque[Stage]") -> Iterator[Stage]:
    """Yield the stages that no other lane has taken."""
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


def seconds_of(ended: str) -> Counter[str]:
    """Return the seconds of each test; `ended` has a line of seconds and name for each phase of a test."""
    seconds: Counter[str] = Counter()
    for line in ended.splitlines():
        took, _, test = line.partition(" ")
        seconds[test] += float(took)  # type: ignore[assignment]
    return seconds
