# SPDX-License-Identifier: Apache-2.0
"""[api] auth_strategy=http_basic: names and passwords in an htpasswd file of bcrypt hashes.

For clouds without Keystone. Make the file with `htpasswd -B -C 12 -c FILE NAME`. Each user in it has the role
`service`.
A bcrypt check is slow on purpose, so a pair that was good is remembered by a keyed hash; an unknown name costs the
same check against a hash nobody knows the password of.
"""

import base64
import binascii
import hmac
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bcrypt
import falcon

from bridge.api.faults import unauthorized
from bridge.api.identity import Identity
from bridge.core.errors import ConfigError

LOG = logging.getLogger(__name__)

_CHALLENGE: Final = 'Basic realm="Extend Bridge", charset="UTF-8"'
_HASH: Final = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}")
_MIN_COST: Final = 8
_MAX_COST: Final = 15  # some two seconds a check; each more doubles it, and the start makes one of the highest
_LOOK_EVERY: Final = 1.0  # seconds between looks whether the file has changed
_REMEMBERED: Final = 1000
_MAX_PASSWORD: Final = 72  # bytes; bcrypt reads no further
_ROLES: Final = frozenset({"service"})
_LOOSE: Final = stat.S_IWGRP | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class _Users:
    """What the file said: name to hash; `stamp` changes with the file."""

    hashes: Mapping[str, bytes]
    dummy: bytes
    stamp: tuple[int, ...]


class HttpBasic:
    """Knows the users of one file; reads it again when it has changed."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError for a file that cannot be used."""
        self._path = Path(path)
        self._users = _read(self._path)
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def authenticate(self, req: falcon.Request) -> Identity:
        """The user; FaultError 401 for no, a malformed or a wrong pair."""
        pair = _pair(req.get_header("Authorization"))
        if pair is None:
            raise unauthorized(_CHALLENGE)
        users = self._current()
        name, password = pair
        expected = users.hashes.get(name)
        proof = hmac.digest(self._key, (expected or b"") + b"\0" + name.encode() + b"\0" + password, "sha256")
        if expected is not None and self._remembered(proof):
            return Identity(user=name, roles=_ROLES)
        fits = len(password) <= _MAX_PASSWORD and b"\0" not in password
        right = bcrypt.checkpw(password if fits else b"-", expected or users.dummy)
        if expected is None or not fits or not right:
            raise unauthorized(_CHALLENGE)
        self._remember(proof)
        return Identity(user=name, roles=_ROLES)

    def _current(self) -> _Users:
        """The users; a file that has changed and cannot be used is said once, and the last good one stays."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return self._users
        with self._lock:
            self._looked = now
            try:
                if _stamp(self._path.stat()) != self._users.stamp:
                    self._users = _read(self._path)
                    LOG.info("%s was read again: %d users", self._path, len(self._users.hashes))
            except (OSError, ConfigError) as ex:
                LOG.error("the users stay as they were: %s", ex)  # noqa: TRY400 - the text says it all
            return self._users

    def _remembered(self, proof: bytes) -> bool:
        with self._lock:
            if proof not in self._good:
                return False
            self._good.move_to_end(proof)
            return True

    def _remember(self, proof: bytes) -> None:
        with self._lock:
            self._good[proof] = None
            while len(self._good) > _REMEMBERED:
                self._good.popitem(last=False)


def _pair(header: str | None) -> tuple[str, bytes] | None:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def _read(path: Path) -> _Users:
    """Raises ConfigError that names the line, and never its hash."""
    option = "[api] http_basic_auth_user_file"
    try:
        with path.open(encoding="utf-8-sig") as file:
            state = os.fstat(file.fileno())
            lines = file.read().splitlines()
    except OSError as ex:
        raise ConfigError(f"{option}: {path} cannot be read: {ex.strerror}") from ex
    except UnicodeDecodeError as ex:
        raise ConfigError(f"{option}: {path} is not UTF-8") from ex
    if state.st_mode & _LOOSE:
        raise ConfigError(f"{option}: {path} can be changed or read by others; chmod it to 0640 or less")
    if state.st_uid not in {0, os.geteuid()}:
        raise ConfigError(f"{option}: {path} belongs to uid {state.st_uid}; it must be root's or this user's")
    hashes: dict[str, bytes] = {}
    cost = _MIN_COST
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, text = line.strip().partition(":")
        match = _HASH.fullmatch(text)
        if not name or match is None or not _MIN_COST <= int(match["cost"]) <= _MAX_COST:
            raise ConfigError(
                f"{option}: line {number} of {path} is not name:bcrypt-hash of "
                f"a cost from {_MIN_COST} to {_MAX_COST}; make it with htpasswd -B -C 12"
            )
        cost = max(cost, int(match["cost"]))
        hashes[name] = text.encode()
    if not hashes:
        raise ConfigError(f"{option}: {path} names no user")
    dummy = bcrypt.hashpw(secrets.token_hex(16).encode(), bcrypt.gensalt(cost))
    return _Users(hashes, dummy, _stamp(state))


def _stamp(state: os.stat_result) -> tuple[int, ...]:
    return (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode, state.st_uid)
