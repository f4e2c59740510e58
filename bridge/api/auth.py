# SPDX-License-Identifier: Apache-2.0
"""Who calls. A strategy turns a request into a Caller or refuses it."""

import logging
from dataclasses import dataclass
from typing import Final, Protocol

import falcon

from bridge.api.settings import ApiSettings

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller that proved who it is. A `project_id` of None belongs to any project."""

    user: str
    project_id: str | None
    roles: frozenset[str]


class Authenticator(Protocol):
    """One strategy of [api] auth_strategy."""

    def authenticate(self, req: falcon.Request) -> Caller:
        """The caller; raises FaultError 401."""


_EVERYBODY: Final = Caller(user="noauth", project_id=None, roles=frozenset({"admin"}))


class NoAuth:
    """Everybody on this machine is an administrator: `refuse_open_door` keeps the others out."""

    def authenticate(self, req: falcon.Request) -> Caller:
        """Anybody."""
        del req
        return _EVERYBODY


def authenticator(settings: ApiSettings) -> Authenticator:
    """The strategy of the settings."""
    if settings.force_noauth:
        LOG.warning(
            "[api] force_noauth is set: whoever reaches this API can make compute hosts act, without a token"
        )
    return NoAuth()
