# SPDX-License-Identifier: Apache-2.0
"""The reader of Cinder's configuration: the options for notifications to us, and for Cinder's own call to Nova.

The call (cinder/compute/nova.py, extend_volume) cannot be turned off. [nova] sets only its endpoint and its user.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from oslo_config import cfg
from oslo_messaging import opts as messaging
from oslo_upgradecheck.upgradecheck import Code, Result

from bridge.cmd.broker_check import DELIVERIES, BrokerRelease
from bridge.core.errors import ConfigError

USUAL: Final = Path("/etc/cinder/cinder.conf")
_NOTIFIES: Final = frozenset({"messaging", "messagingv2"})
_GROUPS: Final = frozenset({"oslo_messaging_notifications", "oslo_messaging_rabbit"})
_NO_CATALOGUE: Final = frozenset({None, "none", "http_basic"})
_NOVA: Final = (cfg.StrOpt("auth_type"), cfg.StrOpt("endpoint"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CinderConf:
    """The relevant options of cinder.conf.

    `nova_auth`: the auth plugin with which Cinder calls Nova. With None, Cinder calls as the user who requested the
    resize. `nova_endpoint`: the endpoint of the call, for plugins without a service catalogue.
    """

    drivers: frozenset[str]
    topics: tuple[str, ...]
    durable: bool
    quorum: bool
    delivery_limit: int
    nova_auth: str | None
    nova_endpoint: str | None


def read(path: Path) -> CinderConf:
    """Read cinder.conf. Raises ConfigError when the file is missing, unreadable or not a configuration file."""
    conf = cfg.ConfigOpts()
    for group, options in messaging.list_opts():
        if group in _GROUPS:
            conf.register_opts(options, group=group)
    conf.register_opts(_NOVA, group="nova")
    try:
        with path.open():
            conf([], project="cinder", default_config_files=[str(path)], default_config_dirs=[])
        return CinderConf(
            drivers=frozenset(conf.oslo_messaging_notifications.driver or ()),
            topics=tuple(conf.oslo_messaging_notifications.topics or ()),
            durable=conf.oslo_messaging_rabbit.amqp_durable_queues
            or conf.oslo_messaging_rabbit.rabbit_quorum_queue,
            quorum=conf.oslo_messaging_rabbit.rabbit_quorum_queue,
            delivery_limit=conf.oslo_messaging_rabbit.rabbit_quorum_delivery_limit,
            nova_auth=conf.nova.auth_type,
            nova_endpoint=conf.nova.endpoint,
        )
    except OSError as ex:
        raise ConfigError(f"{path} cannot be read: {ex.strerror}") from ex
    except (cfg.Error, ValueError) as ex:
        raise ConfigError(
            f"{path} cannot be read: {type(ex).__name__}"
        ) from ex  # the error's text may quote a secret


def notifies(conf: CinderConf, topic: str | None, broker: BrokerRelease | None = None) -> Result:
    """Return whether Cinder's notifications reach us.

    `topic` is our topic, or None when we bind a queue to Cinder's exchange. `broker`: None when unknown.
    """
    section = "[oslo_messaging_notifications]"
    if not conf.drivers & _NOTIFIES:
        said = ", ".join(sorted(conf.drivers)) or "none"
        return Result(
            Code.FAILURE, f"Cinder sends no notifications: set {section} driver = messagingv2 (now {said})"
        )
    if topic is not None and topic not in conf.topics:
        said = ", ".join(conf.topics) or "none"
        return Result(
            Code.FAILURE, f"Cinder does not send to our topic: add {topic} to {section} topics (now {said})"
        )
    if not conf.durable and broker is not None and broker.refuses_transient_queues:
        return Result(
            Code.WARNING,
            f"{broker} refuses Cinder's queues, unless it permits transient_nonexcl_queues: set "
            "[oslo_messaging_rabbit] rabbit_quorum_queue and rabbit_transient_quorum_queue in cinder.conf",
        )
    if not conf.durable:
        return Result(
            Code.WARNING,
            "notifications reach us, but a restart of the broker empties their queues: set [oslo_messaging_rabbit] "
            "amqp_durable_queues or rabbit_quorum_queue (cinder-notifications.rst)",
        )
    if topic is not None and conf.quorum and not conf.delivery_limit and broker and broker.limits_deliveries:
        return Result(
            Code.WARNING,
            f"{broker} drops a notification after {DELIVERIES} deliveries, and a lost connection counts as one: "
            "set a policy or [oslo_messaging_rabbit] rabbit_quorum_delivery_limit (cinder-notifications.rst)",
        )
    return Result(Code.SUCCESS, "notifications reach us, in durable queues")


def double_path(conf: CinderConf | None, *, is_nova: bool, endpoint: str | None) -> Result:
    """Return whether Cinder's own call sends the same events to the same place.

    `endpoint` is the listener's endpoint, or None when the service catalogue names the endpoint.
    """
    if is_nova:
        said = "Cinder sends it the same event as well, and the second event finds the size there"
        if conf is not None and conf.nova_auth is None:
            said = (
                "without [nova] auth_type in cinder.conf, Cinder uses the user's own token, which Nova refuses, so "
                "the listener is needed"
            )
        return Result(Code.SUCCESS, f"the endpoint is a Nova: {said}")
    if endpoint is None:
        return Result(
            Code.WARNING,
            "the catalogue's compute endpoint is this bridge, so that Cinder and all other services send it every "
            "call for Nova: set [endpoint] endpoint_override and remove the bridge from the catalogue",
        )
    if conf is not None and _same_place(conf.nova_endpoint, endpoint):
        return Result(
            Code.WARNING,
            "[nova] endpoint in cinder.conf is this bridge, so that Cinder sends it every call for Nova: remove "
            "it, because notifications are enough",
        )
    if conf is not None and conf.nova_auth not in _NO_CATALOGUE:
        return Result(
            Code.WARNING,
            "Cinder sends events to a Nova ([nova] in cinder.conf), and the listener to a bridge: if both have the "
            "same guests, nova-compute and the host agent extend the same disks; let the listener post to that "
            "Nova",
        )
    return Result(Code.SUCCESS, "the endpoint is a bridge, and the catalogue does not name it as Nova")


def _same_place(one: str | None, other: str) -> bool:
    if one is None:
        return False
    left, right = urlsplit(one), urlsplit(other)
    return (left.hostname, left.port) == (right.hostname, right.port)
