# SPDX-License-Identifier: Apache-2.0
"""The rabbitmqctl commands that give each part and each host a broker user of its own, with minimal permissions.

etc/rabbitmq holds the same rules as files; a test compares the two sets.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

from bridge.core.errors import OperatorError

_HOST_MAX: Final = 255
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_PREFIX: Final = "extend-bridge-"
_NOTHING: Final = "^$"
OUR_VHOST: Final = "extend_bridge"
"""The virtual host of the samples."""


class Vhost(StrEnum):
    """A virtual host of the broker."""

    CINDER = "cinder"  # the virtual host of Cinder's notifications
    BRIDGE = "bridge"  # our own virtual host


class BrokerPart(StrEnum):
    """A part that connects to the broker. The API does not connect."""

    LISTENER = "listener"  # reads Cinder's notifications, writes the lanes
    ENGINE = "engine"  # casts orders, reads the hosts' messages
    HOSTAGENT = "hostagent"  # one user for each host
    OPERATOR = "operator"  # an operator with the command extend-bridge


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A line of etc/rabbitmq/permissions. `name` is the user in that file; HOST stands for the host's name."""

    name: str
    vhost: Vhost
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicGrant:
    """A line of etc/rabbitmq/topic_permissions: the routing keys a user may write and read at an exchange."""

    name: str
    vhost: Vhost
    exchange: str
    write: str
    read: str


GRANTS: Final = (
    Grant(
        name="listener-topic", vhost=Vhost.CINDER, configure="^$", write="^$",
        read=r"^(extend_bridge\.info|extend_bridge\.error)$",
    ),
    Grant(
        name="listener-bind", vhost=Vhost.CINDER, configure=r"^extend_bridge\.notifications$",
        write=r"^extend_bridge\.notifications$", read=r"^(openstack|extend_bridge\.notifications)$",
    ),
    Grant(
        name="listener", vhost=Vhost.BRIDGE,
        configure=r"^(extend_bridge\.due|extend_bridge\.slow\..*|extend_bridge\.parked|extend_bridge\.unreadable)$",
        write=r"^amq\.default$", read=r"^(extend_bridge\.due|extend_bridge\.slow\..*)$",
    ),
    Grant(
        name="engine", vhost=Vhost.BRIDGE,
        configure=r"^(extend_bridge|extend_bridge\.reports|extend_bridge\.hosts|extend_bridge\.from_hosts)$",
        write=r"^(extend_bridge|extend_bridge\.reports)$",
        read=r"^(extend_bridge\.reports|extend_bridge\.hosts|extend_bridge\.from_hosts)$",
    ),
    Grant(
        name="hostagent", vhost=Vhost.BRIDGE, configure=r"^extend_bridge_agent\.HOST$",
        write=r"^(extend_bridge_agent\.HOST|extend_bridge\.hosts)$",
        read=r"^(extend_bridge|extend_bridge_agent\.HOST)$",
    ),
    Grant(
        name="operator", vhost=Vhost.CINDER, configure=r"^extend_bridge\.record\..*$",
        write=r"^extend_bridge\.record\..*$", read=r"^(openstack|extend_bridge\.record\..*)$",
    ),
    Grant(
        name="operator", vhost=Vhost.BRIDGE, configure=r"^extend_bridge\.parked\.looked_at$",
        write=r"^amq\.default$", read=r"^extend_bridge\.parked$",
    ),
)  # fmt: skip

TOPIC_GRANTS: Final = (
    TopicGrant(
        name="hostagent", vhost=Vhost.BRIDGE, exchange="extend_bridge", write="^$",
        read=r"^extend_bridge_agent\.HOST$",
    ),
    TopicGrant(name="hostagent", vhost=Vhost.BRIDGE, exchange="extend_bridge.hosts", write="^HOST$", read="^$"),
)  # fmt: skip

EXCHANGES: Final = {"extend_bridge": False, "extend_bridge.hosts": True}
"""The topic exchanges of TOPIC_GRANTS, and whether each is durable, as the engine declares them."""


def commands(
    parts: Sequence[BrokerPart], hosts: Sequence[str], *, bridge: str, cinder: str, intake: str
) -> Iterator[str]:
    """Yield the shell lines for these parts, and for a host agent on each of these hosts.

    `bridge` and `cinder` are the virtual hosts; `intake` is [notifications] intake. The command add_user asks for
    the password. Raises OperatorError.
    """
    vhosts = {Vhost.BRIDGE: bridge, Vhost.CINDER: cinder}
    if bridge != "/":
        yield f"# {Vhost.BRIDGE.value}: [bus] transport_url\n{_line('add_vhost', bridge)}"
    for part in parts:
        if part is not BrokerPart.HOSTAGENT:
            names = {part.value, f"{part.value}-{intake}"}
            yield from _user(f"{_PREFIX}{part.value}", names, vhosts, "")
    if hosts:
        yield _exchanges(bridge)
    for host in hosts:
        _check(host)
        yield from _user(f"{_PREFIX}hostagent-{host}", {BrokerPart.HOSTAGENT.value}, vhosts, host)


def _exchanges(vhost: str) -> str:
    """Return the line that makes the exchanges of the topic permissions, unless they exist.

    RabbitMQ 4.3 refuses a topic permission for an exchange that does not exist. rabbitmqctl may change to another
    user, which has to read the file.
    """
    kind = {"type": "topic", "auto_delete": False, "internal": False, "arguments": {}}
    made = [{"name": name, "vhost": vhost, "durable": durable, **kind} for name, durable in EXCHANGES.items()]
    told = shlex.quote(json.dumps({"exchanges": made}))
    return (
        "\n# RabbitMQ 4.3 wants the exchanges of topic permissions to exist; the engine declares them as well\n"
        f'exchanges=$(mktemp) && chmod 644 "$exchanges" && printf %s {told} > "$exchanges" && '
        'rabbitmqctl import_definitions "$exchanges" && rm "$exchanges"'
    )


def literal(host: str) -> str:
    """Return the RabbitMQ regular expression that matches only this name."""
    return "".join(c if c in _PLAIN else f"\\{c}" for c in host)


def virtual_host(url: str) -> str:
    """Return the virtual host of a transport_url, by default /."""
    return unquote(urlsplit(url).path[1:]) or "/"


def _user(user: str, names: set[str], vhosts: dict[Vhost, str], host: str) -> Iterator[str]:
    yield f"\n# {user}"
    yield _line("add_user", user)
    name = literal(host)
    rights: dict[str, list[tuple[str, str, str]]] = {}
    for grant in GRANTS:
        if grant.name in names:
            rights.setdefault(vhosts[grant.vhost], []).append((grant.configure, grant.write, grant.read))
    for vhost, given in rights.items():  # set_permissions replaces what the user had at this virtual host
        together = (_either(each).replace("HOST", name) for each in zip(*given, strict=True))
        yield _line("set_permissions", "-p", vhost, user, *together)
    for topic in TOPIC_GRANTS:
        if topic.name in names:
            keys = (each.replace("HOST", name) for each in (topic.write, topic.read))
            yield _line("set_topic_permissions", "-p", vhosts[topic.vhost], user, topic.exchange, *keys)


def _either(rules: Sequence[str]) -> str:
    """Return the rule that allows what any of these rules allows."""
    some = [rule for rule in rules if rule != _NOTHING] or [_NOTHING]
    return (
        some[0] if len(some) == 1 else f"^({'|'.join(rule.removeprefix('^').removesuffix('$') for rule in some)})$"
    )


def _check(host: str) -> None:
    if not host or len(host.encode()) > _HOST_MAX or not host.isprintable() or any(c.isspace() for c in host):
        raise OperatorError(f"--host: {host!r} is not a name of 1 to {_HOST_MAX} bytes without spaces")


def _line(*words: str) -> str:
    return f"rabbitmqctl {' '.join(shlex.quote(word) for word in words)}"
