# SPDX-License-Identifier: Apache-2.0
"""A guest's agent, played on a socket: it answers as it is told, or hangs, drips, and floods.

QEMU and libvirt are given the same socket. QEMU hands on what the guest writes there, which is nothing.
"""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

MIB: Final = 1 << 20
_DRIP_EVERY: Final = 0.01  # seconds

Reply = Callable[[socket.socket, Mapping[str, Any]], None]
"""The answer to one question, sent by itself. It returns when it has nothing more to send."""


class AgentRefusalError(Exception):
    """The words with which the agent answers an error."""


def answering(answer: Callable[[Mapping[str, Any]], Any]) -> Reply:
    """Return the reply of an agent that works: the value of `answer`, or its AgentRefusalError as an error."""

    def reply(channel: socket.socket, question: Mapping[str, Any]) -> None:
        try:
            message: dict[str, Any] = {"return": answer(question)}
        except AgentRefusalError as ex:
            message = {"error": {"class": "GenericError", "desc": str(ex)}}
        channel.sendall(json.dumps(message).encode() + b"\n")

    return reply


def hanging(_channel: socket.socket, _question: Mapping[str, Any]) -> None:
    """Never answer."""


def dripping(channel: socket.socket, _question: Mapping[str, Any]) -> None:
    """Send a space now and then, for ever."""
    while channel.send(b" "):
        threading.Event().wait(_DRIP_EVERY)


def flooding(channel: socket.socket, _question: Mapping[str, Any]) -> None:
    """Answer one line of 1 GiB."""
    channel.sendall(b'{"return": [')
    for _ in range(1024):
        channel.sendall(b"{}, " * (MIB // 4))


class SocketAgent:
    """The agent behind one socket. `asked`: questions so far; `waiting`: of them, those not given up by anybody."""

    def __init__(self, path: Path, reply: Reply) -> None:
        self.reply = reply
        self.asked = 0
        self.waiting = 0
        self._changed = threading.Condition()
        self._channels: list[socket.socket] = []
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and hang up on everybody: libvirtd waits for an agent's answer before it ends."""
        for connected in (self._listening, *self._channels):
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                channel, _ = self._listening.accept()
                self._channels.append(channel)
                threading.Thread(target=self._talk, args=(channel,), daemon=True).start()

    def _talk(self, channel: socket.socket) -> None:
        waiting = 0
        with channel, suppress(OSError, ValueError):
            for line in channel.makefile("rb"):
                question = json.loads(line.rpartition(b"\xff")[2])
                if question["execute"] in {"guest-sync", "guest-sync-delimited"}:
                    before = b"\xff" if question["execute"] == "guest-sync-delimited" else b""
                    answer = json.dumps({"return": question["arguments"]["id"]}).encode()
                    channel.sendall(before + answer + b"\n")
                    continue
                waiting += 1
                self._count(asked=1, waiting=1)
                self.reply(channel, question)
        self._count(waiting=-waiting)

    def _count(self, *, asked: int = 0, waiting: int = 0) -> None:
        with self._changed:
            self.asked += asked
            self.waiting += waiting
            self._changed.notify_all()
