# SPDX-License-Identifier: Apache-2.0
"""One connection to a Unix socket that speaks JSON in lines. Every wait has one deadline, every line a limit."""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

_CHUNK: Final = 1 << 16


class WireError(Exception):
    """A connection that cannot be used any more; the text is for a person and quotes nothing of the other side."""


class WireRefusedError(WireError):
    """No connection was made, because no process listens."""


class WireSilentError(WireError):
    """The other side did not answer before the deadline."""


class WireForeignError(WireError):
    """The other side does not speak the protocol."""


class QmpDeadline:
    """One moment for a call of several steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left; raises WireSilentError where there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise WireSilentError(f"no answer within {self.seconds:g} s")
        return left


class JsonLines:
    """A connected socket. Not for several threads at once; `close` may be called from any."""

    def __init__(self, path: str, deadline: QmpDeadline, *, line_max: int) -> None:
        """Connect to the socket; raises WireError."""
        self._line_max = line_max
        self._buffer = bytearray()
        self._searched = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(deadline.left())
            self._socket.connect(path)
        except (BlockingIOError, TimeoutError) as ex:  # the queue of those who wait to be answered is full
            self._socket.close()
            raise WireSilentError("the socket does not accept connections") from ex
        except OSError as ex:
            self._socket.close()
            raise WireRefusedError(ex.strerror or type(ex).__name__) from ex
        except WireError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor, for a selector; -1 once closed."""
        return self._socket.fileno()

    def peer_pid(self) -> int:
        """Return the pid of the process that listens; 0 where it is not known."""
        with suppress(OSError):
            credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(credentials[:4], "little")
        return 0

    def send(self, message: Mapping[str, Any], deadline: QmpDeadline, *, prefix: bytes = b"") -> None:
        """Send one message; raises WireError."""
        try:
            self._socket.settimeout(deadline.left())
            self._socket.sendall(prefix + json.dumps(message).encode() + b"\n")
        except TimeoutError as ex:
            raise WireSilentError(f"nothing was read within {deadline.seconds:g} s") from ex
        except OSError as ex:
            raise WireError(f"the connection was lost: {ex.strerror or type(ex).__name__}") from ex

    def line(self, deadline: QmpDeadline) -> bytes:
        """Return the next line; raises WireError."""
        while (line := self._take_line()) is None:
            self._receive(deadline.left())
        return line

    def line_at_hand(self) -> bytes | None:
        """Return a line that is there, None where one would have to be waited for; raises WireError."""
        if (line := self._take_line()) is not None:
            return line
        try:
            self._receive(0.0)
        except WireSilentError:
            return None
        return self._take_line()

    def message(self, deadline: QmpDeadline) -> Mapping[str, Any]:
        """Return the next line as a JSON object; raises WireError."""
        return json_object(self.line(deadline))

    def close(self) -> None:
        """Drop the connection without a goodbye message."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        self._socket.close()

    def _receive(self, seconds: float) -> None:
        try:
            self._socket.settimeout(seconds)
            chunk = self._socket.recv(_CHUNK)
        except (BlockingIOError, TimeoutError) as ex:
            raise WireSilentError("no answer in time") from ex
        except (OSError, ValueError) as ex:
            raise WireError("the connection was lost") from ex
        if not chunk:
            raise WireError("the connection was closed by the other side")
        self._buffer += chunk

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) > self._line_max:
                raise WireForeignError(f"a line of more than {self._line_max} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        if len(line) > self._line_max:
            raise WireForeignError(f"a line of more than {self._line_max} bytes")
        return line


def json_object(line: bytes) -> Mapping[str, Any]:
    """Return a line's JSON object; raises WireForeignError for everything else. Pure."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as ex:
        raise WireForeignError("a line that is not JSON") from ex
    if not isinstance(message, dict):
        raise WireForeignError("a line that is not a JSON object")
    return message
