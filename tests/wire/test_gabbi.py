# SPDX-License-Identifier: Apache-2.0
"""The API's spec in gabbits*/*.yaml, run against the application in this process and beside openapi.yaml.

One pytest test per file; gabbi's own pytest plugin is not used, since it takes hold of every other test's name.
"""

import json
import unittest
from collections.abc import Callable
from pathlib import Path

import pytest
from gabbi import driver
from hypothesis import given

from bridge.api import schema
from bridge.api.identity import Identity
from bridge.api.policy import OsloPolicy
from bridge.api.request import MAX
from bridge.api.settings import API_GROUPS
from bridge.http.server import WsgiApp
from bridge.runtime import config
from tests.lab.openapi import Document, checked
from tests.unit.api.fakes import PATH, Api, Tokens
from tests.unit.api.test_schema import BODIES

STORIES = Path(__file__).parent / "gabbits"  # without authentication
DOOR = Path(__file__).parent / "gabbits_door"  # with tokens and the policy
DOCUMENT = Document()
PROBLEMS: list[str] = []
CALLERS = {
    role: Identity(user="u", project="a" * 32, roles=frozenset({role})) for role in ("admin", "service", "member")
}


def _open() -> WsgiApp:
    return checked(Api().app, DOCUMENT, PROBLEMS)


def _guarded() -> WsgiApp:
    policy = OsloPolicy(config.load("extend-bridge-api", API_GROUPS, [], description=""))
    return checked(Api(auth=Tokens(CALLERS), policy=policy).app, DOCUMENT, PROBLEMS)


def _suites(directory: Path, app: Callable[[], WsgiApp]) -> dict[str, unittest.TestSuite]:
    built = driver.build_tests(str(directory), unittest.TestLoader(), intercept=app, test_loader_name="api")
    return {next(iter(suite)).__class__.__name__.split("_")[0]: suite for suite in built}


SUITES = {**_suites(STORIES, _open), **_suites(DOOR, _guarded)}


@pytest.mark.parametrize("name", sorted(SUITES))
def test_each_request_of_a_story_is_answered_as_it_says(name: str) -> None:
    """Every request of the file is answered as it says, and as the OpenAPI document says."""
    PROBLEMS.clear()
    result = unittest.TestResult()
    SUITES[name].run(result)
    assert result.testsRun > 0
    assert not [f"{test}: {text}" for test, text in result.failures + result.errors]
    assert PROBLEMS == []


def test_every_file_of_stories_is_run() -> None:
    """A file that gabbi does not find would pass unseen."""
    assert set(SUITES) == {path.stem for where in (STORIES, DOOR) for path in where.glob("*.yaml")}


@given(BODIES)
def test_the_document_accepts_the_bodies_the_api_accepts(body: object) -> None:
    """In 2.51. A UUID without dashes or in braces is the API's own leniency, as Nova's."""
    accepted = schema.accepts(body, MAX)
    if DOCUMENT.accepts_request("POST", PATH, body):
        assert accepted
    elif accepted:
        stripped = json.loads(json.dumps(body))
        for event in stripped["events"]:
            event["server_uuid"] = "11111111-1111-4111-8111-111111111101"
        assert DOCUMENT.accepts_request("POST", PATH, stripped)
