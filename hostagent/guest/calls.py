# SPDX-License-Identifier: Apache-2.0
"""Calls of one guest's agent: each has a limit, each answer a largest size, and every command is a fixed list."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.reasons import Reason
from hostagent.drivers.base import AgentTrouble, GuestAgent, GuestAgentError
from hostagent.errors import StepFailedError
from hostagent.guest.answers import Printed, read_pid, read_status, refused
from hostagent.guest.errors import GuestLookError

_ENVIRONMENT: Final = ("LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
_FIRST_LOOK: Final = 0.05  # seconds; doubled at each look at a command that runs
_LAST_LOOK: Final = 2.0
_WHY: Final = {
    AgentTrouble.ABSENT: Reason.FS_NO_AGENT,
    AgentTrouble.SILENT: Reason.FS_AGENT_SILENT,
    AgentTrouble.BAD_ANSWER: Reason.FS_AGENT_BAD_ANSWER,
}


class AgentCalls:
    """One guest's agent during one look. Every call and the whole look have a time limit."""

    def __init__(
        self,
        agents: GuestAgent,
        server_id: str,
        *,
        limit: float,
        sleep: Callable[[float], bool],
        budget: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit`: seconds of one call; `budget`: of all commands together.

        `sleep(seconds)` returns whether the agent is stopping.
        """
        self._agents = agents
        self._server_id = server_id
        self._limit = limit
        self._sleep = sleep
        self._clock = clock
        self._until = clock() + budget

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Return the value of one command's answer. Raises GuestLookError."""
        message: dict[str, Any] = {"execute": command}
        if arguments is not None:
            message["arguments"] = dict(arguments)
        try:
            return self._agents.agent(self._server_id, message, self._limit)
        except GuestAgentError as ex:
            if ex.why is AgentTrouble.REFUSED:
                raise refused(ex.detail) from ex
            raise GuestLookError(_WHY[ex.why], ex.detail) from ex
        except StepFailedError as ex:  # the hypervisor itself
            raise GuestLookError(Reason.FS_AGENT_SILENT, ex.detail) from ex

    def run(self, argv: tuple[str, ...], seconds: float) -> Printed:
        """Run a command in the guest and return its end. Raises GuestLookError, also after `seconds`."""
        arguments = {
            "path": argv[0],
            "arg": list(argv[1:]),
            "env": list(_ENVIRONMENT),
            "capture-output": True,
        }
        pid = read_pid(self.ask("guest-exec", arguments))
        deadline, wait = min(self._until, self._clock() + seconds), _FIRST_LOOK
        while (ended := read_status(self.ask("guest-exec-status", {"pid": pid}))) is None:
            if self._clock() >= deadline or self._sleep(wait):
                raise GuestLookError(Reason.FS_AGENT_SILENT, f"{argv[0]} did not end in time")
            wait = min(_LAST_LOOK, 2 * wait)
        return ended

    def wait(self, seconds: float) -> bool:
        """Sleep; return whether the agent is stopping."""
        return self._sleep(seconds)
