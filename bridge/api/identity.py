# SPDX-License-Identifier: Apache-2.0
"""The identity of a caller, and the interfaces of the two checks of it: authentication and policy.

The strategies behind them are in `auth.py` (proof of the identity) and `policy.py` (permissions of its roles). The
application uses only these interfaces.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import falcon


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller with good credentials.

    `user` is Keystone's user id, or the name in the htpasswd file. `project` is the id of the token's project. It
    is None for a caller that belongs to any (projects exist only with Keystone). A token is scoped to a project, to
    a `domain`, to the whole `system` or to nothing. `good_for`: seconds until the credentials are checked again.
    """

    user: str
    project: str | None = None
    roles: frozenset[str] = frozenset()
    domain: str | None = None
    system: bool = False
    good_for: float = field(default=1.0, compare=False)


class Authenticator(Protocol):
    """The authentication of a request. Called before routing, once per request, by several threads at a time."""

    def authenticate(self, req: falcon.Request) -> Identity:
        """Return the caller. Raises FaultError: 401 for bad credentials, 429 or 503 while they are not checked."""


@runtime_checkable
class AsksService(Protocol):
    """An authenticator that asks another service."""

    def check(self) -> str | None:
        """Return the fault of that service and the option to set, None where the service works."""


class Policy(Protocol):
    """The permissions of an identity. Checked after the schema, as in Nova."""

    def check(self, who: Identity) -> None:
        """Raise FaultError 403 for an identity that may not send external events."""
