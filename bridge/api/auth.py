# SPDX-License-Identifier: Apache-2.0
"""How a caller proves who it is: one strategy per [api] auth_strategy."""

import logging
from typing import Final

import falcon

from bridge.api.identity import Authenticator, Identity
from bridge.api.settings import ApiSettings

LOG = logging.getLogger(__name__)


_EVERYBODY: Final = Identity(user="noauth", roles=frozenset({"admin"}))


class NoAuth:
    """Everybody on this machine is an administrator: `refuse_open_door` keeps the others out."""

    def authenticate(self, req: falcon.Request) -> Identity:
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
