# SPDX-License-Identifier: Apache-2.0
"""A larger or a worse load made from a recording: copies with their own ids, and messages with faults.

The load depends only on the recording and the given numbers, so the same command makes the same load.
"""

import json
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from bridge.core.extend import ExtendKey
from listener.cli.recordings import Item

MUTATION_HEADER: Final = "x-extend-bridge-mutation"
"""The header of each message that `replay --mutate` changed or added; its value is the Mutation."""

_NAMESPACE: Final = uuid.UUID("6f1d9c1e-4f0a-5f3b-9f59-5c6f1d0b7a21")
_WINDOW: Final = 10  # messages that may change places
_SHARE: Final = 0.2  # share of the messages that come twice, or have a bad message behind them
_DEEP: Final = 3000


class Mutation(StrEnum):
    """A fault of a replayed message."""

    REORDERED = "reordered"  # comes before or after its place in the recording
    DUPLICATED = "duplicated"  # comes a second time
    CUT = "cut"  # ends somewhere in its middle
    POISONED = "poisoned"  # is JSON that is not a notification, or not text at all


@dataclass(frozen=True, slots=True)
class LoadMessage:
    """A message to be published. `key`: its event, None for a message that cannot be acted on."""

    body: bytes
    key: ExtendKey | None
    mutation: Mutation | None = None


def multiplied(items: Sequence[Item], copies: int) -> list[Item]:
    """Return each event `copies` times, the first as recorded, the others with their own ids."""
    return [
        item if copy == 0 else replace(item, key=_copy_of(item.key, copy))
        for item in items
        for copy in range(copies)
    ]


def _copy_of(key: ExtendKey, copy: int) -> ExtendKey:
    def other(text: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{text} {copy}"))

    return ExtendKey(other(key.server_id), other(key.volume_id))


def volumes_of(items: Sequence[Item], hosts: int) -> list[dict[str, Any]]:
    """Return the volumes of a load in the form of the Cinder stand-in, their servers on `hosts` hosts in turn.

    A server is on one host, also with several volumes.
    """
    on: dict[str, str] = {}
    servers: dict[str, dict[str, None]] = {}
    for item in items:
        on.setdefault(item.key.server_id, f"host-{len(on) % hosts + 1}")
        servers.setdefault(item.key.volume_id, {})[item.key.server_id] = None
    return [
        {
            "id": volume_id,
            "size": 2,
            "attachments": [{"server_id": server_id, "host": on[server_id]} for server_id in attached],
        }
        for volume_id, attached in servers.items()
    ]


def mutated(messages: Sequence[LoadMessage], seed: int) -> Iterator[LoadMessage]:
    """Yield all messages reordered, some twice, with cut or poisoned messages between them."""
    draw = random.Random(seed)  # noqa: S311 - a load that can be repeated, not a secret
    order = sorted(range(len(messages)), key=lambda place: place + draw.random() * _WINDOW)
    for turn, place in enumerate(order):
        message = messages[place]
        yield message if turn == place else replace(message, mutation=Mutation.REORDERED)
        if draw.random() < _SHARE:
            yield replace(message, mutation=Mutation.DUPLICATED)
        if draw.random() < _SHARE:
            end = draw.randrange(1, len(message.body))
            yield LoadMessage(message.body[:end], None, Mutation.CUT)
        if draw.random() < _SHARE:
            yield LoadMessage(_poison(message.body, draw), None, Mutation.POISONED)


def _poison(body: bytes, draw: random.Random) -> bytes:
    envelope = json.loads(body)
    message = json.loads(envelope["oslo.message"])
    payload = message["payload"]
    bad_payloads: tuple[Any, ...] = (
        [],
        {**payload, "volume_id": "not-a-uuid"},
        {**payload, "volume_attachment": "none"},
        {key: value for key, value in payload.items() if key != "volume_id"},
    )
    kind = draw.randrange(4)
    if kind == 0:
        return bytes(draw.randrange(0x80, 0x100) for _ in range(64))
    if kind == 1:
        return b"[" * _DEEP
    if kind == 2:  # noqa: PLR2004 - one of four
        return json.dumps({**envelope, "oslo.version": "9.9"}).encode()
    message["payload"] = draw.choice(bad_payloads)
    return json.dumps({**envelope, "oslo.message": json.dumps(message)}).encode()
