# SPDX-License-Identifier: Apache-2.0
"""The guest agent by virDomainQemuAgentCommand: the command, the answer, and libvirt's errors about it."""

import json
from collections.abc import Mapping
from typing import Any, Final

import libvirt
import libvirt_qemu

from hostagent.drivers.base import AgentTrouble, GuestAgentError, is_small_answer

CALL: Final = "qemuAgentCommand"
# virErrorNumber: not supported, the guest is not running, no such channel (twice); timeout, answer out of turn.
_ABSENT: Final = frozenset({3, 55, 74, 84})
_SILENT: Final = frozenset({68, 97})
_ABSENT_WORDS: Final = ("agent is not connected", "agent is not configured", "agent disappeared")
_BAD_WORDS: Final = ("no complete agent response", "unable to encode message", "parse json", "json reply")
"""Words of libvirt about an answer that is too long for it or for its connection to us, or that is not JSON."""
_SILENT_WORDS: Final = ("not responding", "timed out", "not available for now")


def ask(domain: Any, command: Mapping[str, Any], seconds: int) -> str:
    """Return the answer's text. Raises GuestAgentError for what is the agent's, libvirtError for the rest."""
    try:
        return str(libvirt_qemu.qemuAgentCommand(domain, json.dumps(command), seconds, 0))
    except libvirt.libvirtError as ex:
        if (why := trouble(ex.get_error_code(), ex.get_error_message() or "")) is None:
            raise
        raise GuestAgentError(why, ex.get_error_message() or "") from ex
    except (SystemError, UnicodeError) as ex:  # the binding on a text that it cannot decode
        raise GuestAgentError(AgentTrouble.BAD_ANSWER, "an answer that is not UTF-8") from ex


def trouble(code: int | None, text: str) -> AgentTrouble | None:
    """Return the agent's failure in an error of the call; None where the error is about domain or connection."""
    words = text.lower()
    if any(absent in words for absent in _ABSENT_WORDS):
        return AgentTrouble.ABSENT
    if any(bad in words for bad in _BAD_WORDS):
        return AgentTrouble.BAD_ANSWER
    if code in _SILENT or any(silent in words for silent in _SILENT_WORDS):
        return AgentTrouble.SILENT
    if "unable to execute qemu agent command" in words:
        return AgentTrouble.REFUSED
    return AgentTrouble.ABSENT if code in _ABSENT else None


def answer_of(text: str) -> Any:
    """Return the `return` value of an answer; raises GuestAgentError for one in another form. Pure."""
    if not is_small_answer(text):
        raise GuestAgentError(AgentTrouble.BAD_ANSWER, f"an answer of {len(text)} characters")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as ex:
        raise GuestAgentError(AgentTrouble.BAD_ANSWER, "an answer that is not JSON") from ex
    if not isinstance(answer, dict) or "return" not in answer:
        raise GuestAgentError(AgentTrouble.BAD_ANSWER, "an answer without a return value")
    return answer["return"]
