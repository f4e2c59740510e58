# SPDX-License-Identifier: Apache-2.0
"""[api]: where it listens, who may come in, whom it wakes."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from oslo_config import cfg

from bridge.journal.settings import JOURNAL_OPTS, JournalSettings, journal_settings
from bridge.runtime.settings import OPS_OPTS, ConfigError


class AuthStrategy(StrEnum):
    """How a caller proves who it is."""

    NOAUTH = "noauth"  # not at all: loopback only


API_OPTS = [
    cfg.HostAddressOpt("bind_host", default="127.0.0.1", help="Address the built-in server listens on."),
    cfg.PortOpt("bind_port", default=8786, help="Port the built-in server listens on; 0 picks a free one."),
    cfg.IntOpt("threads", default=8, min=1, max=256, help="Requests the built-in server answers at a time."),
    cfg.StrOpt(
        "auth_strategy",
        default=AuthStrategy.NOAUTH.value,
        choices=[(AuthStrategy.NOAUTH.value, "Everybody may send events; for a loopback address only.")],
        help="How callers prove who they are.",
    ),
    cfg.BoolOpt(
        "force_noauth",
        default=False,
        help="Accept auth_strategy=noauth on any address and under an external WSGI server. Whoever reaches the "
        "port can then make compute hosts act.",
    ),
    cfg.HostAddressOpt(
        "wake_host",
        default="127.0.0.1",
        help="Address of the engine that is told by a datagram that there is work. It may get lost: the engine "
        "looks by itself every second.",
    ),
    cfg.PortOpt("wake_port", default=9786, help="UDP port of the same; 0 sends none."),
    *OPS_OPTS,
]

API_GROUPS: Final = (("api", API_OPTS), ("journal", JOURNAL_OPTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """As [api], with the journal it writes to. A `wake_port` of 0 wakes nobody."""

    journal: JournalSettings
    bind_host: str = "127.0.0.1"
    bind_port: int = 8786
    threads: int = 8
    auth_strategy: AuthStrategy = AuthStrategy.NOAUTH
    force_noauth: bool = False
    wake_host: str = "127.0.0.1"
    wake_port: int = 9786


def api_settings(conf: cfg.ConfigOpts) -> ApiSettings:
    """Read [api] and [journal]."""
    return ApiSettings(
        journal=journal_settings(conf),
        bind_host=conf.api.bind_host,
        bind_port=conf.api.bind_port,
        threads=conf.api.threads,
        auth_strategy=AuthStrategy(conf.api.auth_strategy),
        force_noauth=conf.api.force_noauth,
        wake_host=conf.api.wake_host,
        wake_port=conf.api.wake_port,
    )


def refuse_open_door(settings: ApiSettings, *, built_in: bool) -> None:
    """Refuse `noauth` where others than this machine could reach it; raises ConfigError.

    Under an external WSGI server (`built_in` false) we cannot see its address, so it is refused as well.
    """
    if settings.auth_strategy is not AuthStrategy.NOAUTH or settings.force_noauth:
        return
    if not built_in:
        raise ConfigError(
            "[api] auth_strategy=noauth is refused under an external WSGI server, whose address we cannot see; "
            "use extend-bridge-api on a loopback address, or set [api] force_noauth=true"
        )
    if not _is_loopback(settings.bind_host):
        raise ConfigError(
            f"[api] auth_strategy=noauth is refused on {settings.bind_host}: whoever reaches it can make compute "
            "hosts act; use a loopback address, or set [api] force_noauth=true"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def list_opts() -> Sequence[tuple[str, Sequence[cfg.Opt]]]:
    """For oslo-config-generator; [journal] is listed by the engine."""
    return [("api", API_OPTS)]
