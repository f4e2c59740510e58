# SPDX-License-Identifier: Apache-2.0
"""Shared by all rings: native threads first, then the rule that a missing part skips here and fails in CI."""

import bridge.runtime.threads  # noqa: F401 - must come before anything that imports oslo.messaging or os-brick

# isort: split
import faulthandler
import os
from typing import Final, NoReturn

import hypothesis
import pytest
from cheroot.server import HTTPServer

# what a busy machine is slow at is no fault of a test
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

HTTPServer.expiration_interval = 0.05  # seconds between looks of the built-in server whether it is to end, else 0.5


_TO_END: Final = 60.0
"""Seconds from the last test to the end of the process."""


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """A thread that never ends would hold the process after the last test: it is shown, and the run fails."""
    faulthandler.dump_traceback_later(_TO_END, exit=True, file=2)


def missing(part: str) -> NoReturn:
    """A real part is not installed: skip on a laptop, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{part} is missing; in CI every real part must be there (tools/test installs it)")
    pytest.skip(f"{part} is missing; tools/test installs it")
