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
    cfg.IntOpt(
        "batch", default=200, min=1, max=1000, help="Extends that the engine reads from the journal at a time."
    ),
    cfg.FloatOpt(
        "report_within",
        default=300,
        min=1,
        help="Seconds a host has to report on an order. After that the order is sent again. Set it longer than the "
        "host agent's device_wait; otherwise slow storage gets each order twice, which does no harm.",
    ),
    cfg.FloatOpt(
        "host_timeout",
        default=60,
        min=1,
        help="Seconds without a message after which a host counts as down. Its extends wait until it is back.",
    ),
    cfg.FloatOpt(
        "overdue_after",
        default=900,
        min=1,
        help="Seconds after which an open extend is marked as overdue, for alerts. It is still tried again.",
    ),
    cfg.FloatOpt(
        "retry_first", default=1, min=0.01, help="Upper bound of the first back-off of an extend, in seconds."
    ),
    cfg.FloatOpt("retry_cap", default=600, min=1, help="Upper bound of every later back-off, in seconds."),
    cfg.StrOpt(
        "mode",
        default=Mode.EXTEND.value,
        choices=[
            (Mode.EXTEND.value, "Host agents extend."),
            (
                Mode.OBSERVE.value,
                "nova-compute extends; host agents only report sizes; events are posted to Nova ([nova]) again.",
            ),
        ],
        help="The service that extends the guests' disks.",
    ),
    cfg.FloatOpt(
        "reconcile_interval",
        default=600,
        min=0,
        help="Seconds between two reconcile passes over all volumes in use. A pass opens an extend for each guest "
        "that is behind its volume, also if no event was sent. One engine at a time makes it. 0: never.",
    ),
    cfg.IntOpt(
        "reconcile_page",
        default=500,
        min=1,
        max=1000,
        help="Volumes that a reconcile pass reads from Cinder in one request.",
    ),
    cfg.FloatOpt("reconcile_pause", default=1, min=0, help="Seconds between two requests of a reconcile pass."),
    cfg.IntOpt(
        "reconcile_opens",
        default=60,
        min=1,
        help="Extends that a pass opens per minute, at most. The limit protects the storage when many guests are "
        "behind after a long outage.",
    ),
    cfg.BoolOpt(
        "accept_unbound_hosts",
        default=True,
        help="Accept messages whose sender the broker has not verified: those of host agents of 0.1.0, and of "
        "agents whose broker user may not write to the exchange extend_bridge.hosts yet. Set it to false when "
        "every host's user has the permissions that `extend-bridge-manage broker-commands` prints. From a host "
        "whose running agent uses that exchange, unverified messages are never accepted.",
    ),
    cfg.HostAddressOpt(
        "wake_host", default="127.0.0.1", help="Address on which the engine receives the API's wake-up datagrams."
    ),
    cfg.PortOpt(
        "wake_port",
        default=9786,
        help="UDP port for these datagrams. A lost datagram costs at most one second, because the engine also "
        "polls the journal.",
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
