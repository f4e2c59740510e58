# SPDX-License-Identifier: Apache-2.0
"""Callers by their token, in the place of Keystone."""

from collections.abc import Mapping
from typing import Any, Final

import falcon

from bridge.api.faults import unauthorized
from bridge.api.identity import Identity

_CHALLENGE: Final = 'Keystone uri="http://127.0.0.1:5000/v3"'  # as in the recordings


class TokenTable:
    """An Authenticator that knows its tokens by heart: token → {"project_id", "roles"}."""

    def __init__(self, tokens: Mapping[str, Mapping[str, Any]]) -> None:
        self._tokens = tokens

    def authenticate(self, req: falcon.Request) -> Identity:
        """The caller; raises FaultError 401 as keystonemiddleware words it."""
        found = self._tokens.get(req.get_header("X-Auth-Token") or "")
        if found is None:
            raise unauthorized(_CHALLENGE)
        return Identity(user="recorded", project=found["project_id"], roles=frozenset(found["roles"]))
