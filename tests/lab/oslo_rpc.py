# SPDX-License-Identifier: Apache-2.0
"""Casts by oslo.messaging: either side as version 0.1.0 had it."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import oslo_messaging
from oslo_config import cfg
from oslo_messaging import opts as messaging_opts

from bridge.core.messages import VERSION
from bridge.runtime.broker import AGENT_EXCHANGE, AGENT_TOPIC

_UNLISTED_OPTIONS: Final = (
    ("oslo_messaging._metrics.client", "oslo_messaging_metrics"),
    ("oslo_messaging._tracing.client", "oslo_messaging_tracing"),
)
"""Options oslo.messaging reads on every cast and registers on the global CONF only; a version may lack one."""


def oslo_conf(**rabbit: object) -> cfg.ConfigOpts:
    """Return a configuration of 0.1.0, with these options of [oslo_messaging_rabbit]."""
    conf = cfg.ConfigOpts()
    for group, opts in messaging_opts.list_opts():
        conf.register_opts(opts, group=group)
    conf([])
    for name, value in rabbit.items():
        conf.set_override(name, value, group="oslo_messaging_rabbit")
    return conf


def oslo_transport(url: str, conf: cfg.ConfigOpts | None = None) -> oslo_messaging.Transport:
    """Return oslo.messaging's transport."""
    conf = conf or oslo_conf()
    for module, group in _UNLISTED_OPTIONS:
        with suppress(ImportError):
            conf.register_opts(getattr(importlib.import_module(module), group), group=group)
    return oslo_messaging.get_rpc_transport(conf, url=url)


class _Endpoint:
    """An agent's interface in 0.1.0."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, take: Callable[[Sequence[Any]], None]) -> None:
        self._take = take

    def extend(self, ctxt: Any, orders: Any = None, version: Any = VERSION, **_newer: Any) -> None:
        """Take the orders of one cast."""
        del ctxt, version
        self._take(orders)


def oslo_agent(
    url: str, host: str, take: Callable[[Sequence[Any]], None], conf: cfg.ConfigOpts | None = None
) -> oslo_messaging.MessageHandlingServer:
    """Return the RPC server of a host agent of 0.1.0, not yet started."""
    conf = conf or oslo_conf()
    transport = oslo_transport(url, conf)
    conf.set_default("executor_thread_pool_size", 2)
    return oslo_messaging.get_rpc_server(
        transport,
        oslo_messaging.Target(exchange=AGENT_EXCHANGE, topic=AGENT_TOPIC, server=host),
        [_Endpoint(take)],
        executor="threading",
    )


def oslo_caster(url: str, conf: cfg.ConfigOpts | None = None) -> Callable[[str, Sequence[Any]], None]:
    """Return the cast of an engine of 0.1.0: raises MessageUndeliverable where the host has no queue."""
    client = oslo_messaging.get_rpc_client(
        oslo_transport(url, conf),
        oslo_messaging.Target(exchange=AGENT_EXCHANGE, topic=AGENT_TOPIC, version="1.0"),
        retry=1,
        transport_options=oslo_messaging.TransportOptions(at_least_once=True),
    )
    return lambda host, orders: client.prepare(server=host).cast({}, "extend", version=1, orders=list(orders))
