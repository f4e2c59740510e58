# SPDX-License-Identifier: Apache-2.0
"""The shell around the operator's commands."""

import pytest

from bridge.cli.app import behind_the_command


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--config-file a --config-dir=b event list -f json", "event list -f json --config-file a --config-dir=b"),
        ("event list --config-file a", "event list --config-file a"),
        ("-v event list", "-v event list"),
        ("--config-file", "--config-file"),
        ("", ""),
    ],
)
def test_the_configuration_may_be_named_in_front_of_the_command(given: str, meant: str) -> None:
    assert behind_the_command(given.split()) == meant.split()
