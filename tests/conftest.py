# SPDX-License-Identifier: Apache-2.0
"""Shared by all rings: native threads first, then the rule that a missing part skips here and fails in CI."""

import bridge.runtime.threads  # noqa: F401 - must come before anything that imports oslo.messaging or os-brick

# isort: split
import faulthandler
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import hypothesis
import pytest
from cheroot.server import HTTPServer
from xdist.scheduler import LoadScopeScheduling

from tests.lab.install import LEFT_OUT
from tests.lab.leftovers import RUN, TIMES, guarded, of_run
from tests.lab.waiting import LONGEST, until

# a busy machine is not a fault of a test
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

HTTPServer.expiration_interval = 0.05  # seconds between looks of the built-in server whether it is to end, else 0.5

_GUARDED: Final = guarded(os.environ)
"""Whether this process is the one that is guarded: neither a worker of it nor a part of another run."""
tempfile.tempdir = os.environ.get("TMPDIR")
_SHARED: Final = ("tests/functional/qemu/", "tests/functional/wire/", "tests/functional/journal/")
"""Folders whose tests share a real part that takes long to start: one worker runs them all."""
_APART: Final = "tests/model/test_model.py"
"""The file whose tests share nothing and take long: each may go to another worker than the others."""
_LONG: Final = (
    "tests/functional/wire/",
    "tests/functional/qemu/",
    "tests/functional/api/test_keystone.py",
    "tests/functional/journal/",
    "tests/functional/listener/test_broker_restart.py",
    "tests/functional/listener/test_bind.py",
    "tests/functional/deploying/test_permissions.py",
    "tests/functional/test_upgrade.py",
    "tests/functional/listener/test_memory.py",
    "tests/functional/listener/test_outage.py",
    "tests/functional/listener/test_slow_lane.py",
)
"""Folders and files that take longest, in the order in which they begin."""
_TO_LEAVE: Final = 20.0
"""Seconds that the processes of the tests may take to end after the last test."""
_TO_END: Final = 600.0
"""Seconds from the last test to the end of the process."""


@pytest.fixture(autouse=True)
def _of_the_process() -> Iterator[None]:
    """Give back the umask and the maker of log records, which each of our programs sets for its process."""
    mask = os.umask(0o022)
    os.umask(mask)
    factory = logging.getLogRecordFactory()
    yield
    os.umask(mask)
    logging.setLogRecordFactory(factory)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put the temporary directories of the tests into the run's directory, where the guard removes them."""
    if _GUARDED and config.option.basetemp is None:
        config.option.basetemp = Path(os.environ[RUN]) / "t"  # short: sockets lie below it (108 bytes)


class _LongFirst(OrderedDict[str, Any]):
    """The work that waits: a long file of few tests begins early, or one worker waits for it at the end."""

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        """Return the next work; xdist has put files of many tests first."""
        del last
        scope = next((scope for scope in _LONG if scope in self), None) or next(iter(self))
        return scope, self.pop(scope)


class _ByFile(LoadScopeScheduling):
    """Tests of one file, or of one folder with a shared real part, go to one worker."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self.workqueue = _LongFirst()

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file == _APART:
            return nodeid
        return next((folder for folder in _SHARED if file.startswith(folder)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByFile:
    """Return the scheduler of tests in several processes."""
    return _ByFile(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down each ended phase of a test for tools/test."""
    if _GUARDED and TIMES in os.environ:
        with Path(os.environ[TIMES]).open("a") as times:
            times.write(f"{report.duration:.2f} {report.nodeid}\n")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves a process running, and name the process; the guard ends it."""
    if not _GUARDED:
        return
    directory = Path(os.environ[RUN])
    try:
        until(
            lambda: not of_run(directory),
            "every process has ended",
            seconds=min(_TO_LEAVE, LONGEST),
        )
    except AssertionError:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        for pid, command in of_run(directory).items():
            session.config.get_terminal_writer().line(f"\nleft running: {pid} {command[:300]}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """End a process that a thread holds after the last test: the thread is shown, and the run fails."""
    faulthandler.dump_traceback_later(_TO_END, exit=True, file=2)


def missing(part: str, *, extra: str = "") -> NoReturn:
    """Skip a test whose real part is missing; in CI fail it, unless the set-up left out `extra` by name."""
    left_out = LEFT_OUT.read_text().split() if LEFT_OUT.exists() else []
    if os.environ.get("CI") == "true" and extra not in left_out:
        pytest.fail(f"{part} is missing; in CI every real part must be there (tools/test installs it)")
    pytest.skip(f"{part} is missing; tools/test installs it")


@pytest.fixture(autouse=True)
def _umask_and_log_of_the_run() -> Iterator[None]:
    """Give umask and root logger back: an entry point that is run in this process sets both for good."""
    before, root = os.umask(0o022), logging.getLogger()
    os.umask(before)
    handlers = list(root.handlers)
    yield
    os.umask(before)
    for handler in list(root.handlers):
        if handler not in handlers and not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
