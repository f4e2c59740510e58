# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ users with the rights of etc/rabbitmq, or with less."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bridge.cmd.broker_commands import EXCHANGES
from tests.lab.paths import ROOT
from tests.lab.rabbitmq import RabbitNode

_ETC: Final = ROOT / "etc" / "rabbitmq"
_NOTHING: Final = "^$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """A line of the file; regular expressions."""

    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRights:
    """A line of the other one: routing keys."""

    exchange: str
    write: str
    read: str


def _lines(name: str, host: str) -> Iterator[list[str]]:
    for line in (_ETC / name).read_text().splitlines():
        if line and not line.startswith("#"):
            yield [word.replace("HOST", host.replace(".", r"\.")) for word in line.split()]


def documented(host: str) -> dict[tuple[str, str], Rights]:
    """By user and virtual host, with this name for HOST."""
    return {
        (user, vhost): Rights(configure=configure, write=write, read=read)
        for user, vhost, configure, write, read in _lines("permissions", host)
    }


def documented_topics(host: str) -> dict[tuple[str, str], list[TopicRights]]:
    """By user and virtual host, with this name for HOST."""
    rights: dict[tuple[str, str], list[TopicRights]] = {}
    for user, vhost, exchange, write, read in _lines("topic_permissions", host):
        rights.setdefault((user, vhost), []).append(TopicRights(exchange=exchange, write=write, read=read))
    return rights


def each_less(rights: Rights) -> Iterator[tuple[str, Rights]]:
    """What is left, each time with one name taken out of one expression, and what that was."""
    for column in ("configure", "write", "read"):
        names = getattr(rights, column).removeprefix("^").removesuffix("$").strip("()").split("|")
        for name in filter(None, names):
            rest = "|".join(other for other in names if other != name)
            yield f"{column} {name}", replace(rights, **{column: f"^({rest})$" if rest else _NOTHING})


NEEDS_EXCHANGES: Final = (4, 3)
"""The release of RabbitMQ that refuses a topic permission for an exchange that does not exist."""


class Broker:
    """Users and virtual hosts of a node, made many at a time: rabbitmqctl takes a second for each call."""

    def __init__(self, node: RabbitNode, directory: Path) -> None:
        self._node = node
        self._file = directory / "definitions.json"

    def make(
        self,
        cases: Mapping[str, Mapping[tuple[str, str], Rights]],
        topics: Mapping[tuple[str, str], list[TopicRights]],
    ) -> None:
        """Per case its virtual hosts `CASE-cinder` and `CASE-bridge`, and its users with these rights."""
        vhosts = [f"{case}-{name}" for case in cases for name in ("cinder", "bridge")]
        permissions: list[dict[str, str]] = [
            {"user": "guest", "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"} for vhost in vhosts
        ]
        for case, given in cases.items():
            permissions += [
                {
                    "user": f"{case}-{user}", "vhost": f"{case}-{vhost}", "configure": rights.configure,
                    "write": rights.write, "read": rights.read,
                }
                for (user, vhost), rights in given.items()
            ]  # fmt: skip
        users = sorted({permission["user"] for permission in permissions} - {"guest"})
        hashed = base64.b64encode(b"salt" + hashlib.sha256(b"saltsecret").digest()).decode()
        told: dict[str, Any] = {
            "vhosts": [{"name": vhost} for vhost in vhosts],
            "users": [
                {
                    "name": user, "password_hash": hashed,
                    "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "",
                }
                for user in users
            ],
            "permissions": permissions,
            "topic_permissions": [
                {
                    "user": f"{case}-{user}", "vhost": f"{case}-{vhost}", "exchange": rights.exchange,
                    "write": rights.write, "read": rights.read,
                }
                for case in cases for (user, vhost), every in topics.items() for rights in every
            ],
        }  # fmt: skip
        exchanges = [
            {
                "name": name, "vhost": f"{case}-bridge", "type": "topic", "durable": durable, "auto_delete": False,
                "internal": False, "arguments": {},
            }
            for case in cases for name, durable in EXCHANGES.items()
        ]  # fmt: skip
        if self._node.version < NEEDS_EXCHANGES:
            exchanges = []  # the engine declares them with its own rights
        for part in ({"vhosts": told["vhosts"], "exchanges": exchanges}, told):
            self._file.write_text(json.dumps(part))
            self._node.ctl("import_definitions", str(self._file))

    def url(self, case: str, user: str, vhost: str) -> str:
        """Of a user of a case."""
        return self._node.url_of(f"{case}-{vhost}").replace("guest:guest", f"{case}-{user}:secret")

    def own(self, case: str, vhost: str) -> str:
        """Of the test itself, which may do everything."""
        return self._node.url_of(f"{case}-{vhost}")
