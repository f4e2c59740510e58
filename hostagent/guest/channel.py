# SPDX-License-Identifier: Apache-2.0
"""The channel of a guest's agent over a UNIX socket of QEMU: one command a connection, within a time and a size.

The other side is the tenant's: an answer can be endless, late, another's, or no answer at all. Each exchange begins
with guest-sync-delimited and a random number, so that answers to earlier commands are never taken for this one's.
"""

import json
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bridge.core.reasons import Reason
from hostagent.guest.answers import ANSWER_MAX, bad, read_answer
from hostagent.guest.errors import GuestLookError

_SENTINEL: Final = b"\xff"
_READ: Final = 65536
_STRAY_MAX: Final = 1000  # answers to earlier questions that may lie in the channel


class AgentChannel:
    """The agent of one guest behind QEMU's socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(self, command: Mapping[str, Any], limit: float) -> Any:
        """Return the value of one command's answer; `limit`: seconds in total. Raises GuestLookError."""
        deadline = time.monotonic() + limit
        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.settimeout(limit)
                channel.connect(str(self._path))
                exchange = _Exchange(channel, deadline)
                exchange.synchronise()
                exchange.send(json.dumps(command).encode() + b"\n")
                return read_answer(exchange.line())
        except TimeoutError as ex:
            raise GuestLookError(Reason.FS_AGENT_SILENT, f"no answer within {limit:g} s") from ex
        except OSError as ex:
            raise GuestLookError(Reason.FS_NO_AGENT, type(ex).__name__) from ex


class _Exchange:
    """One connection's bytes: what was read and not yet used, and how many there may be."""

    def __init__(self, channel: socket.socket, deadline: float) -> None:
        self._channel = channel
        self._deadline = deadline
        self._kept = bytearray()
        self._left = ANSWER_MAX

    def synchronise(self) -> None:
        """Read away what lies in the channel, up to the answer with our number."""
        number = secrets.randbelow(2**31)
        ask = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self.send(_SENTINEL + json.dumps(ask).encode() + b"\n")
        for _ in range(_STRAY_MAX):
            self._until(_SENTINEL)
            try:
                answer = json.loads(self.line())
            except (ValueError, RecursionError):
                continue
            if isinstance(answer, dict) and answer.get("return") == number:
                return
        raise bad("too many answers that were not asked for")

    def send(self, words: bytes) -> None:
        """Send within the time that is left."""
        self._limit()
        self._channel.sendall(words)

    def line(self) -> bytes:
        """Return the bytes up to the end of a line."""
        return self._until(b"\n")

    def _until(self, mark: bytes) -> bytes:
        looked = 0
        while (at := self._kept.find(mark, looked)) < 0:
            looked = len(self._kept)
            self._limit()
            read = self._channel.recv(min(_READ, self._left + 1))
            if not read:
                raise GuestLookError(Reason.FS_NO_AGENT, "the channel was closed")
            self._left -= len(read)
            if self._left < 0:
                raise bad(f"more than {ANSWER_MAX} bytes")
            self._kept += read
        found = bytes(self._kept[:at])
        del self._kept[: at + len(mark)]
        return found

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)
