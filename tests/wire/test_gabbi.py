# SPDX-License-Identifier: Apache-2.0
"""The API's spec in gabbits/*.yaml, run against the application in this process.

One pytest test per file; gabbi's own pytest plugin is not used, since it takes hold of every other test's name.
"""

import unittest
from pathlib import Path

import pytest
from gabbi import driver

from bridge.runtime.http_server import WsgiApp
from tests.unit.api.fakes import Api

STORIES = Path(__file__).parent / "gabbits"


def _app() -> WsgiApp:
    return Api().app


SUITES = {
    next(iter(suite)).__class__.__name__.split("_")[0]: suite
    for suite in driver.build_tests(str(STORIES), unittest.TestLoader(), intercept=_app, test_loader_name="api")
}


@pytest.mark.parametrize("name", sorted(SUITES))
def test_story(name: str) -> None:
    """Every request of the file is answered as it says."""
    result = unittest.TestResult()
    SUITES[name].run(result)
    assert result.testsRun > 0
    assert not [f"{test}: {text}" for test, text in result.failures + result.errors]


def test_every_file_is_run() -> None:
    """A file that gabbi does not find would pass unseen."""
    assert set(SUITES) == {path.stem for path in STORIES.glob("*.yaml")}
