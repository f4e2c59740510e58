# SPDX-License-Identifier: Apache-2.0
"""Options of [engine], [cinder], [locator] and [nova]."""

from dataclasses import dataclass, field
from enum import StrEnum

from oslo_config import cfg

from bridge.journal.settings import JOURNAL_OPTS, JournalSettings, journal_settings
from bridge.runtime.config import (
    LOCATOR_OPTS,
    OPS_OPTS,
    BusSettings,
    LocatorSettings,
    OptGroups,
    bus_settings,
    locator_settings,
    section,
)
from bridge.runtime.endpoints import EndpointOpts, endpoint_opts, endpoint_sample_opts
from bridge.runtime.retry import Backoff

_CINDER_TIMEOUT = 10  # seconds
_NOVA_TIMEOUT = 10  # seconds


class Mode(StrEnum):
    """The part that extends guests: the host agents or Nova's computes."""

    EXTEND = "extend"  # the host agents
    OBSERVE = "observe"  # Nova's computes, which are prompted until the host agents have seen the size


ENGINE_OPTS = [
    cfg.IntOpt("batch", default=200, min=1, max=1000, help="Extends taken from the journal at a time."),
    cfg.FloatOpt(
        "report_within",
        default=300,
        min=1,
        help="Seconds a host has to report an order; then it is cast again. Longer than the host agent's "
        "device_wait, or slow storage is asked twice (harmless, but noisy).",
    ),
    cfg.FloatOpt(
        "host_timeout",
        default=60,
        min=1,
        help="Seconds of silence after which a host counts as down. Its extends wait and go out when it is back.",
    ),
    cfg.FloatOpt(
        "overdue_after",
        default=900,
        min=1,
        help="Seconds after which an open extend is marked overdue, for alarms. It goes on all the same.",
    ),
    cfg.FloatOpt(
        "retry_first", default=1, min=0.01, help="Seconds, upper bound of the first back-off of an extend."
    ),
    cfg.FloatOpt("retry_cap", default=600, min=1, help="Seconds, upper bound of every later back-off."),
    cfg.StrOpt(
        "mode",
        default=Mode.EXTEND.value,
        choices=[
            (Mode.EXTEND.value, "Host agents extend."),
            (
                Mode.OBSERVE.value,
                "Nova's computes extend; host agents only look and the event is posted to Nova ([nova]) again.",
            ),
        ],
        help="Who extends the guests' disks.",
    ),
    cfg.FloatOpt(
        "reconcile_interval",
        default=600,
        min=0,
        help="Seconds from one pass over all volumes in use to the next. In a pass every guest that is behind its "
        "volume gets an extend, whether or not anybody sent an event. One engine goes at a time. 0: never.",
    ),
    cfg.IntOpt("reconcile_page", default=500, min=1, max=1000, help="Volumes asked of Cinder at a time."),
    cfg.FloatOpt("reconcile_pause", default=1, min=0, help="Seconds between two such requests."),
    cfg.IntOpt(
        "reconcile_opens",
        default=60,
        min=1,
        help="Extends a pass opens in a minute at most: after a long outage the fleet is mended, not stormed.",
    ),
    cfg.BoolOpt(
        "accept_unbound_hosts",
        default=True,
        help="Believe messages of hosts whose name the broker does not vouch for: of host agents of 0.1.0, and of "
        "those whose broker user may not write the exchange extend_bridge.hosts yet. Set it to false when every "
        "host's user has the permissions that `extend-bridge-manage broker-commands` prints. A host whose living "
        "agent the broker vouches for is believed in that way alone, whatever this says.",
    ),
    cfg.HostAddressOpt("wake_host", default="127.0.0.1", help="Address to take the API's wake-up datagrams on."),
    cfg.PortOpt(
        "wake_port",
        default=9786,
        help="Port of the same. A lost or missing wake-up costs a second at most: the journal is polled besides.",
    ),
    *OPS_OPTS,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Values of [engine], [journal], [bus] and [locator]; times in seconds. `wake` is the address for wake-ups."""

    journal: JournalSettings
    bus: BusSettings
    backoff: Backoff
    batch: int = 200
    report_within: float = 300
    host_timeout: float = 60
    overdue_after: float = 900
    wake: tuple[str, int] = ("127.0.0.1", 0)
    mode: Mode = Mode.EXTEND
    reconcile_interval: float = 600
    reconcile_page: int = 500
    reconcile_pause: float = 1
    reconcile_opens: int = 60
    accept_unbound_hosts: bool = True
    locator: LocatorSettings = field(default_factory=LocatorSettings)


def engine_groups(endpoint: EndpointOpts = endpoint_opts) -> OptGroups:
    """Return the engine's option groups. `endpoint` returns the options of an endpoint."""
    return [
        ("engine", ENGINE_OPTS),
        ("journal", JOURNAL_OPTS),
        ("cinder", endpoint("block-storage", timeout=_CINDER_TIMEOUT)),
        ("locator", LOCATOR_OPTS),
        ("nova", endpoint("compute", timeout=_NOVA_TIMEOUT)),
    ]


def engine_settings(conf: cfg.ConfigOpts) -> EngineSettings:
    """Read the engine's settings from `conf`."""
    return section(
        conf,
        "engine",
        EngineSettings,
        journal=journal_settings(conf),
        bus=bus_settings(conf),
        backoff=section(conf, "engine", Backoff, prefix="retry_"),
        wake=(conf.engine.wake_host, conf.engine.wake_port),
        locator=locator_settings(conf),
    )


def list_opts() -> OptGroups:
    """List the engine's options for oslo-config-generator."""
    return engine_groups(endpoint_sample_opts)
