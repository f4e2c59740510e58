# SPDX-License-Identifier: Apache-2.0
"""The cheap check decides exactly as the JSON Schema does, and a refusal has Nova's words."""

import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oslo_utils import uuidutils

from bridge.api import request, schema
from bridge.api.request import MAX, MIN, Version
from tests.unit.api.fakes import ON_HOST, event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "server_uuid", "tag", "status", "code", "NAME"])
VALUES = st.one_of(
    JSON,
    st.sampled_from(["volume-extended", "network-changed", "completed", "ok", ON_HOST, "x" * 255, "x" * 256, ""]),
    st.uuids().map(str),
    st.uuids().map(lambda value: value.hex),
    st.uuids().map(lambda value: value.urn),
)
BODIES = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"events": st.lists(st.dictionaries(KEYS, VALUES, max_size=5), max_size=3) | JSON},
        optional={"more": JSON},
    ),
    st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["volume-extended", "network-vif-plugged"]), "server_uuid": VALUES},
            optional={"tag": VALUES, "status": VALUES},
        ),
        max_size=3,
    ).map(lambda events: {"events": events}),
)


@given(BODIES, st.sampled_from([MIN, Version(2, 50), MAX]))
def test_the_cheap_check_is_the_schema(body: Any, version: Version) -> None:
    """What it accepts the schema accepts, what it refuses the schema words."""
    formats = jsonschema.FormatChecker(formats=())
    formats.checks("uuid")(uuidutils.is_uuid_like)
    valid = jsonschema.Draft202012Validator(schema.schema(version), format_checker=formats).is_valid(body)
    assert schema.accepts(body, version) is valid
    words = schema.refusal(body, version)
    assert (words is None) is valid
    assert words != "Malformed request body"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "None is not of type 'object'"),
        ({}, "'events' is a required property"),
        ({"events": []}, "Invalid input for field/attribute events. Value: []. [] should be non-empty"),
        ({"events": [event("a")]}, "Invalid input for field/attribute server_uuid. Value: a. 'a' is not a 'uuid'"),
        ({"events": [{}]}, "Invalid input for field/attribute 0. Value: {}. 'name' is a required property"),
    ],
)  # fmt: skip
def test_a_refusal_has_novas_words(body: Any, words: str) -> None:
    """A script may look for them."""
    assert schema.refusal(body, MAX) == words


def test_volume_extended_begins_with_2_51() -> None:
    """Below, the name is unknown: a caller without a version header speaks 2.1."""
    body = {"events": [event()]}
    assert schema.refusal(body, request.VOLUME_EXTENDED) is None
    words = schema.refusal(body, Version(2, 50))
    assert words is not None
    assert "'volume-extended' is not one of ['network-changed'" in words


@pytest.mark.parametrize("depth", [300, 5000, 100_000])
@pytest.mark.parametrize("outer", ["list", "object", "both"])
def test_a_value_too_deep_to_be_worded_is_still_a_refusal(depth: int, outer: str) -> None:
    """Whatever the caller nests, it gets 400: on each Python, however deep that one can go."""
    deep: Any = []
    for n in range(depth):
        deep = [deep] if outer == "list" or (outer == "both" and n % 2) else {"a": deep}
    with_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(500_000)  # as Python 3.14: a repr of this does not end by a RecursionError
    try:
        assert schema.refusal({"events": [event(tag=deep)]}, MAX) == "Malformed request body"
    finally:
        sys.setrecursionlimit(with_limit)


@pytest.mark.parametrize(
    "body",
    [
        {"events": [event(name="x" * 100_000)]},
        {"events": [event(tag="x" * 100_000)]},
        {"events": [{**event(), "y" * 100_000: 1}]},
        {"events": "z" * 100_000},
        {"events": [], "a" * 50_000: "b" * 50_000},
        [1] * 50_000,
        {"events": [{"name": {"k" * 1000: ["v"] * 1000}}] * 50},
    ],
    ids=["name", "tag", "key", "events", "keys", "list", "many"],
)
def test_a_refusal_quotes_no_more_than_a_little_of_the_caller(body: Any) -> None:
    words = schema.refusal(body, MAX)
    assert words is not None
    assert words != "Malformed request body"
    assert len(words) < 3500
