# SPDX-License-Identifier: Apache-2.0
"""Negotiation of the microversion by both headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.api.faults import FaultError
from bridge.api.request import MAX, MIN, Version, requested, supported


@pytest.mark.parametrize(
    ("standard", "legacy", "asked"),
    [
        (None, None, None),
        ("compute 2.51", None, "2.51"),
        ("COMPUTE latest", None, "latest"),
        ("compute LATEST", None, "LATEST"),
        ("  compute   2.51  ", None, "2.51"),
        ("volume 3.60, compute 2.51", None, "2.51"),
        ("compute 2.51, volume 3.60", None, "2.51"),
        ("compute 2.1, compute 2.51", None, "2.51"),
        ("volume 3.60", None, None),
        ("nova 2.51", None, None),
        ("compute", None, None),
        ("2.51", None, None),
        ("", None, None),
        (None, "2.51", "2.51"),
        (None, "2.1, 2.51", "2.51"),
        ("compute 2.51", "2.1", "2.51"),
        ("volume 3.60", "2.51", "2.51"),
    ],
)
def test_the_last_pair_for_compute_counts_then_the_older_header(
    standard: str | None, legacy: str | None, asked: str | None
) -> None:
    """As microversion_parse reads them."""
    assert requested(standard, legacy) == asked


@pytest.mark.parametrize(
    ("asked", "version"), [(None, MIN), ("latest", MAX), ("2.1", MIN), ("2.9", Version(2, 9)), ("2.51", MAX)]
)
def test_a_supported_version_is_taken(asked: str | None, version: Version) -> None:
    """2.1 where nothing is asked for; numbers, not decimals."""
    assert supported(asked) == version


@pytest.mark.parametrize(
    "asked",
    ["2.x", "two", "LATEST", "2.51.1", "2.051", "2.", ".51", "-2.1", "2.1\n", "\u0662.\u0661", "2" * 99 + ".1"],
)
def test_a_malformed_version_is_400(asked: str) -> None:
    """And its answer says nothing of versions."""
    with pytest.raises(FaultError) as refused:
        supported(asked)
    assert refused.value.status == 400
    assert not refused.value.headers


@pytest.mark.parametrize("asked", ["2.52", "2.999", "3.0", "2.0", "1.1"])
def test_an_unsupported_version_is_406_and_echoed(asked: str) -> None:
    """As Nova: the version headers name the version that was refused."""
    with pytest.raises(FaultError) as refused:
        supported(asked)
    assert refused.value.status == 406
    assert refused.value.headers["OpenStack-API-Version"] == f"compute {asked}"
    assert b"Minimum is 2.1 and maximum is 2.51." in refused.value.body


@given(st.text(), st.text())
def test_any_header_ends_in_a_version_or_a_refusal(standard: str, legacy: str) -> None:
    """Never in another error."""
    try:
        version: Version | None = supported(requested(standard, legacy))
    except FaultError:
        version = None
    assert version is None or MIN <= version <= MAX
