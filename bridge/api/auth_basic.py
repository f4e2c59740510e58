# SPDX-License-Identifier: Apache-2.0
"""[api] auth_strategy=http_basic: names and passwords in an htpasswd file of bcrypt hashes.

For clouds without Keystone. Make the file with `htpasswd -B -C 12 -c FILE NAME`. Each user in it has the role
`service`.
A bcrypt check is slow on purpose. A good pair is remembered by a keyed hash. An unknown name costs the same check,
against the hash of a random password. At most two checks run at a time, one of them for addresses with a recent
failure. All other attempts are answered 429, because guessers must hold neither all threads nor all processors.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bcrypt
import falcon
from cachetools import LRUCache, TTLCache

from bridge.api.faults import too_often, unauthorized
from bridge.api.forwarded import key_of
from bridge.api.identity import Identity
from bridge.core.errors import ConfigError

LOG = logging.getLogger(__name__)

_CHALLENGE: Final = 'Basic realm="Extend Bridge", charset="UTF-8"'
_HASH: Final = re.compile(r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{53}")
_MIN_COST: Final = 8
_MAX_COST: Final = 15  # some two seconds a check; each step doubles it, and the start makes one of the highest
_LOOK_EVERY: Final = 1.0  # seconds between checks for a changed file
_REMEMBERED: Final = 1000
_CHECKS: Final = 2
_SUSPECT_SECONDS: Final = 60.0
_SUSPECTS: Final = 10_000
_MAX_PASSWORD: Final = 72  # bytes; bcrypt reads no further
_ROLES: Final = frozenset({"service"})
_LOOSE: Final = stat.S_IWGRP | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class _Users:
    """The users of the file: name to hash. `stamp` changes with the file."""

    hashes: Mapping[str, bytes]
    dummy: bytes
    stamp: tuple[int, ...]


class _Checks:
    """The bcrypt checks that run now. No method waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[bool] = []
        """One flag for each check: True for the check of a suspect."""
        self._suspects: TTLCache[str, None] = TTLCache(_SUSPECTS, _SUSPECT_SECONDS)

    @contextmanager
    def one(self, address: str) -> Iterator[None]:
        """Count one check of a caller at this address; raises FaultError 429 where too many checks run."""
        with self._lock:
            suspect = address in self._suspects
            if len(self._running) >= _CHECKS or (suspect and True in self._running):
                raise too_often(1)
            self._running.append(suspect)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(suspect)

    def failed(self, address: str) -> None:
        """Suspect the callers at this address for a while."""
        with self._lock:
            self._suspects[address] = None


class HttpBasic:
    """The strategy that authenticates by the users of one file, which is read again after a change."""

    def __init__(self, path: str) -> None:
        """Read the file; raises ConfigError where the file cannot be used."""
        self._path = Path(path)
        self._users = _read(self._path)
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._good: LRUCache[bytes, None] = LRUCache(_REMEMBERED)
        self._checks = _Checks()

    def authenticate(self, req: falcon.Request) -> Identity:
        """Return the user; raises FaultError 401 for an absent, malformed or wrong pair, 429 for too many."""
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
        address = key_of(req.remote_addr or "")
        with self._checks.one(address):
            right = bcrypt.checkpw(password if fits else b"-", expected or users.dummy)
        if expected is None or not fits or not right:
            self._checks.failed(address)
            raise unauthorized(_CHALLENGE)
        with self._lock:
            self._good[proof] = None
        return Identity(user=name, roles=_ROLES)

    def _current(self) -> _Users:
        """Return the users; log a changed file that cannot be used once, and keep the last good users."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return self._users
        with self._lock:
            self._looked = now
            try:
                if _stamp(self._path.stat()) != self._users.stamp:
                    self._users = _read(self._path)
                    LOG.info("%s was read again: it has %d users", self._path, len(self._users.hashes))
            except (OSError, ConfigError) as ex:
                LOG.error("the htpasswd file was changed, but cannot be used; the users before stay valid: %s", ex)  # noqa: TRY400 - the text says it all
            return self._users

    def _remembered(self, proof: bytes) -> bool:
        with self._lock:
            return self._good.get(proof, proof) is None


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
    """Read the file; raises ConfigError that names the line, and never its hash."""
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
        raise ConfigError(
            f"{option}: {path} can be read or changed by other users; set its mode to 0640 or stricter"
        )
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
        raise ConfigError(f"{option}: {path} has no users")
    dummy = bcrypt.hashpw(secrets.token_hex(16).encode(), bcrypt.gensalt(cost))
    return _Users(hashes, dummy, _stamp(state))


def _stamp(state: os.stat_result) -> tuple[int, ...]:
    return (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode, state.st_uid)
