# SPDX-License-Identifier: Apache-2.0
"""Who calls, and whether it may: what the door hands to the resource, and the two questions asked there.

The strategies behind the questions are `auth.py` (how a caller proves who it is) and `policy.py` (what its roles
allow). The application knows only what stands here.
"""

from dataclasses import dataclass
from typing import Protocol

import falcon


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller that proved who it is.

    `user` is Keystone's user id, or the name in the htpasswd file. `project` is the id of the token's project, None
    for a caller that belongs to any (without Keystone there are no projects). A token is scoped to a project, to a
    `domain`, to the whole `system` or to nothing.
    """

    user: str
    project: str | None = None
    roles: frozenset[str] = frozenset()
    domain: str | None = None
    system: bool = False


class Authenticator(Protocol):
    """Turns a request into an identity. Called before routing, once per request, by several threads at a time."""

    def authenticate(self, req: falcon.Request) -> Identity:
        """Who calls; raises FaultError: 401 for nobody we know, 503 where that cannot be found out now."""


class Policy(Protocol):
    """Decides what an identity may do. Asked after the schema, as Nova asks it."""

    def check(self, who: Identity) -> None:
        """Raises FaultError 403 where this one may not send external events."""
