# SPDX-License-Identifier: Apache-2.0
"""How a caller proves who it is: one strategy per [api] auth_strategy, behind the guard that counts attempts."""

import logging
from typing import Final

import falcon
from oslo_config import cfg

from bridge.api.identity import Authenticator, Identity
from bridge.api.rate_limit import Guard
from bridge.api.settings import ApiSettings, AuthStrategy

LOG = logging.getLogger(__name__)

_EVERYBODY: Final = Identity(user="noauth", roles=frozenset({"admin"}))


class NoAuth:
    """Everybody on this machine is an administrator: `refuse_open_door` keeps the others out."""

    def authenticate(self, req: falcon.Request) -> Identity:
        """Anybody."""
        del req
        return _EVERYBODY


def authenticator(settings: ApiSettings, conf: cfg.ConfigOpts) -> Authenticator:
    """The strategy of the settings, guarded; raises ConfigError. Contacts nobody.

    The strategies' libraries are imported by those who use them only: keystonemiddleware alone is some 20 MiB.
    """
    return Guard(_strategy(settings, conf), requests=settings.rate, failures=settings.failures)


def _strategy(settings: ApiSettings, conf: cfg.ConfigOpts) -> Authenticator:
    if settings.auth_strategy is AuthStrategy.KEYSTONE:
        from bridge.api.auth_keystone import Keystone  # noqa: PLC0415

        return Keystone(conf)
    if settings.auth_strategy is AuthStrategy.HTTP_BASIC:
        from bridge.api.auth_basic import HttpBasic  # noqa: PLC0415

        return HttpBasic(settings.http_basic_auth_user_file)
    if settings.force_noauth:
        LOG.warning(
            "[api] force_noauth is set: whoever reaches this API can make compute hosts act, without a token"
        )
    return NoAuth()
