# SPDX-License-Identifier: Apache-2.0
"""A guest's agent by its own socket. The guest writes the answers, so they are limited and never trusted."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from hostagent.drivers.base import AGENT_ANSWER_MAX, AgentTrouble, GuestAgentError, is_small_answer
from hostagent.drivers.qmp.wire import (
    JsonLines,
    QmpDeadline,
    WireError,
    WireForeignError,
    WireRefusedError,
    WireSilentError,
    json_object,
)

_DELIMITER: Final = b"\xff"
"""Sent first, it has the agent forget half a message of before; the agent begins its answer with it."""
_STALE_MAX: Final = 1000  # lines of earlier calls before the answer to the synchronization
_STALE_BYTES_MAX: Final = 2 * AGENT_ANSWER_MAX  # in these lines
_SYNCHRONIZATION_MAX: Final = 256  # bytes of the answer to it; a longer line is not parsed


def ask(path: str, command: Mapping[str, Any], limit: float) -> Any:
    """Return the `return` value of the agent's answer. Raises GuestAgentError, within `limit` seconds."""
    try:
        return _asked(path, command, QmpDeadline(limit))
    except WireRefusedError as ex:
        raise GuestAgentError(AgentTrouble.ABSENT, f"{path}: {ex}") from ex
    except WireSilentError as ex:
        raise GuestAgentError(AgentTrouble.SILENT, f"{path}: {ex}") from ex
    except WireForeignError as ex:
        raise GuestAgentError(AgentTrouble.BAD_ANSWER, f"{path}: {ex}") from ex
    except WireError as ex:
        raise GuestAgentError(AgentTrouble.ABSENT, f"{path}: {ex}") from ex


def _asked(path: str, command: Mapping[str, Any], deadline: QmpDeadline) -> Any:
    wire = JsonLines(path, deadline, line_max=AGENT_ANSWER_MAX)
    try:
        _synchronize(wire, deadline)
        wire.send(command, deadline)
        line = wire.line(deadline)
    finally:
        wire.close()
    if not is_small_answer(line.decode("latin-1")):
        raise WireForeignError(f"an answer of {len(line)} bytes with too many values")
    answer = json_object(line)
    if "return" in answer:
        return answer["return"]
    error = answer.get("error")
    if not isinstance(error, dict):
        raise WireForeignError("an answer with neither return nor error")
    raise GuestAgentError(AgentTrouble.REFUSED, f"{error.get('class', '')}: {error.get('desc', '')}")


def _synchronize(wire: JsonLines, deadline: QmpDeadline) -> None:
    """Synchronize with the agent by a number, so that the next line is the answer to our command."""
    number = secrets.randbelow(1 << 53)
    wire.send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, deadline, prefix=_DELIMITER)
    seen = 0
    for _ in range(_STALE_MAX):
        whole = wire.line(deadline)
        if (seen := seen + len(whole)) > _STALE_BYTES_MAX:
            break
        line = whole.rpartition(_DELIMITER)[2]
        if len(line) > _SYNCHRONIZATION_MAX:
            continue
        try:
            if json_object(line).get("return") == number:
                return
        except WireForeignError:
            continue  # the end of an answer to an earlier call
    raise WireForeignError("no answer to the synchronization among its lines")
