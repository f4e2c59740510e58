# SPDX-License-Identifier: Apache-2.0
"""Callers by their token, in the place of Keystone."""

from collections.abc import Mapping
from typing import Any

from bridge.api.identity import Identity
from tests.unit.api.fakes import Tokens


def table(tokens: Mapping[str, Mapping[str, Any]]) -> Tokens:
    """Who knows these (token → {"project_id", "roles"}) and refuses others as the recorded Nova."""
    return Tokens(
        {
            token: Identity(user="recorded", project=known["project_id"], roles=frozenset(known["roles"]))
            for token, known in tokens.items()
        }
    )
