# SPDX-License-Identifier: Apache-2.0
"""The identity of a caller, and the two questions about it: is it true, and is it allowed.

The strategies behind the questions are in `auth.py` (how a caller proves its identity) and `policy.py` (what its
roles allow). The application knows only what stands here.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import falcon


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller with good credentials.

    `user` is Keystone's user id, or the name in the htpasswd file. `project` is the id of the token's project, None
    for a caller that belongs to any (without Keystone there are no projects). A token is scoped to a project, to a
    `domain`, to the whole `system` or to nothing. `good_for`: seconds in which these credentials need no new check.
    """

    user: str
    project: str | None = None
    roles: frozenset[str] = frozenset()
    domain: str | None = None
    system: bool = False
    good_for: float = field(default=1.0, compare=False)


class Authenticator(Protocol):
    """Turns a request into an identity. Called before routing, once per request, by several threads at a time."""

    def authenticate(self, req: falcon.Request) -> Identity:
        """Return the caller. Raises FaultError: 401 for bad credentials, 429 or 503 while they are not checked."""


@runtime_checkable
class AsksService(Protocol):
    """An authenticator that asks another service."""

    def check(self) -> str | None:
        """Return why that service cannot be used and what to set, None where it works."""


class Policy(Protocol):
    """Decides what an identity may do. Asked after the schema, as Nova asks it."""

    def check(self, who: Identity) -> None:
        """Raise FaultError 403 for an identity that may not send external events."""
