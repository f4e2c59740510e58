# SPDX-License-Identifier: Apache-2.0
"""Callers with bad credentials: they cost bcrypt and Keystone work, and must cost nobody else time."""

import base64
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tests.attack.clients import crowd, exchange, status
from tests.attack.frame import Attack
from tests.attack.grounds import PATH, ApiGround
from tests.lab.proxy import Which

_GUESSERS: Final = 24
_AGAIN: Final = 0.1


def passwords(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Guess the good caller's password from many connections at once."""
    seen: list[int] = []

    def stranger(done: threading.Event) -> None:
        pair = base64.b64encode(b"cinder:" + os.urandom(6).hex().encode()).decode()
        request = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {pair}\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n"
        )
        seen.append(status(exchange(ground.port, request.encode(), seconds=60)))
        done.wait(_AGAIN)

    with crowd(_GUESSERS, stranger):
        time.sleep(seconds)
    complaints = [] if set(seen) <= {401, 429} else [f"answered {sorted(set(seen))}"]
    if 429 not in seen:
        complaints.append(f"none of {len(seen)} guesses at {_GUESSERS} at a time was answered 429")
    return complaints


def tokens(ground: ApiGround, seconds: float, *, ending: float = 45.0) -> Sequence[str]:
    """Show tokens that nobody knows while Keystone is as it is: each is answered in the end."""
    seen: list[int] = []

    def stranger(done: threading.Event) -> None:
        request = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {os.urandom(12).hex()}\r\nContent-Length: 0\r\n"
            "Connection: close\r\n\r\n"
        )
        seen.append(status(exchange(ground.port, request.encode(), seconds=ending)))
        done.wait(_AGAIN)

    with crowd(_GUESSERS, stranger):
        time.sleep(seconds)
    if not seen:
        return ["no token was ever answered"]
    return [] if set(seen) <= {401, 429, 503} else [f"answered {sorted(set(seen))}"]


def hung_keystone(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Freeze Keystone, old connections and new ones."""
    assert ground.proxy is not None
    ground.proxy.freeze(Which.ALL)
    try:
        return tokens(ground, max(seconds, 12.0))
    finally:
        ground.proxy.heal()


def dripping_keystone(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Have Keystone answer a few bytes a second: no read ever times out."""
    assert ground.proxy is not None
    ground.proxy.drip(8, Which.ALL)
    try:
        return tokens(ground, max(seconds, 12.0))
    finally:
        ground.proxy.heal()


def refusing_keystone(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Turn connections to Keystone away."""
    assert ground.proxy is not None
    ground.proxy.refuse()
    try:
        return tokens(ground, seconds)
    finally:
        with suppress(OSError):
            ground.proxy.heal()


ATTACKS: Final = (
    Attack(name="passwords", about="guess passwords from 24 connections", ground="basic", run=passwords),
    Attack(name="tokens", about="show tokens that nobody knows", ground="keystone", run=tokens, short=False),
    Attack(name="hung-keystone", about="the same while Keystone is frozen", ground="keystone", run=hung_keystone),
    Attack(
        name="dripping-keystone",
        about="the same while Keystone drips",
        ground="keystone",
        run=dripping_keystone,
        short=False,
    ),
    Attack(
        name="refusing-keystone",
        about="the same while Keystone refuses",
        ground="keystone",
        run=refusing_keystone,
        short=False,
    ),
)
