# SPDX-License-Identifier: Apache-2.0
"""The driver of the hypervisor in memory."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from oslo_config import cfg

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.drivers.base import (
    AGENT_ANSWER_MAX,
    AgentTrouble,
    Capacity,
    DriverCapabilities,
    DriverTools,
    GuestAgentError,
    GuestDisks,
    GuestEvents,
    GuestHandle,
    GuestList,
    Probe,
    ProbeFacts,
    failed,
)
from hostagent.errors import StepFailedError

from .world import LIMIT, WORLD, MemoryDisk, MemoryGuest, SilentError, breaks

T = TypeVar("T")


class MemoryHandle:
    """One guest within one call."""

    never_shrinks = True

    def __init__(self, guest: MemoryGuest, *, read_only: bool) -> None:
        self._guest, self._read_only = guest, read_only

    def look(self) -> GuestDisks:
        disks = tuple(
            Disk(
                target="disk" if breaks("one_name") else disk.target,
                kind=SourceKind.FILE,
                source=f"/volumes/{disk.volume_id}",
                driver_format="raw",
                volume_id=disk.volume_id,
                alias=disk.target,
                type="file",
            )
            for disk in self._guest.disks
        )
        return GuestDisks(disks=disks, run=self._guest.run)

    def capacity(self, target: str) -> Capacity:
        disk = self._find(target)
        size = disk.seen[0] if breaks("old_size") else disk.size
        return Capacity(size, size)

    def check_stays(self) -> None:
        return None

    def resize(self, disk: Disk, size: int) -> None:
        if self._read_only and not breaks("writes"):
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.RESIZE_UNSUPPORTED, "read only")
        found = self._find(disk.target)
        if size < found.size and not breaks("shrinks", "old_size"):
            raise StepFailedError(Outcome.REFUSED, Reason.WOULD_SHRINK, "smaller")
        for one in self._guest.disks if breaks("all_disks") else [found]:
            one.size = size // 1024 * 1024 if breaks("kib") else size
            if not breaks("silent_resize"):
                one.seen.append(one.size)

    def _find(self, target: str) -> MemoryDisk:
        for disk in self._guest.disks:
            if disk.target == target:
                return disk
        raise StepFailedError(Outcome.NOT_ATTACHED, Reason.DISK_ABSENT, f"no disk {target}")


class MemoryWatch:
    """Events that are never lost."""

    def stands(self) -> bool:
        return True


class MemorySession:
    """The session."""

    def __init__(self, *, read_only: bool) -> None:
        self._read_only = read_only
        self._watch: MemoryWatch | None = None

    def guests(self) -> GuestList:
        ids = [*WORLD.guests, *(WORLD.gone if breaks("ghost") else [])]
        return GuestList(server_ids=frozenset(one.upper() if breaks("upper_case") else one for one in ids))

    def domain(self, server_id: str) -> Domain | None:
        def look(handle: MemoryHandle) -> Domain:
            found = handle.look()
            return Domain(server_id=server_id, state=GuestState.ACTIVE, disks=found.disks, run=found.run)

        return self._held(server_id, look)

    def state(self, server_id: str) -> GuestState | None:
        return self._held(server_id, lambda _handle: GuestState.ACTIVE)

    def capacity(self, server_id: str, target: str) -> Capacity:
        found = self._held(server_id, lambda handle: handle.capacity(target))
        if found is None:
            raise _absent()
        return found

    def on_guest(self, server_id: str, work: Callable[[GuestHandle, Callable[[], bool]], T]) -> T:
        def run(handle: MemoryHandle) -> list[T]:
            try:
                return [work(handle, lambda: True)]
            except StepFailedError as ex:
                if breaks("swallows"):
                    raise failed(Reason.HYPERVISOR_RAISED, "something") from ex
                raise

        found = self._held(server_id, run)
        if found is None:
            raise _absent()
        return found[0]

    def watch(self, events: GuestEvents) -> MemoryWatch:
        if self._watch is None:
            self._watch = MemoryWatch()
            if not breaks("deaf"):
                WORLD.listeners.append(events)
        return self._watch

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        del command, limit
        guest = WORLD.guests.get(server_id)
        if guest is None:
            raise _absent()
        if not guest.agent:
            raise GuestAgentError(AgentTrouble.ABSENT, "no agent")
        if guest.answer is None:
            raise GuestAgentError(AgentTrouble.SILENT, "no answer")
        if len(guest.answer) > AGENT_ANSWER_MAX and not breaks("floods"):
            raise GuestAgentError(AgentTrouble.BAD_ANSWER, "too long")
        try:
            answer = json.loads(guest.answer)
        except ValueError as ex:
            if breaks("floods"):
                return guest.answer
            raise GuestAgentError(AgentTrouble.BAD_ANSWER, "not JSON") from ex
        if "error" in answer:
            raise GuestAgentError(AgentTrouble.REFUSED, answer["error"]["desc"])
        return answer["return"]

    def secret(self, secret_id: str) -> bytes | None:
        del secret_id
        return None

    def close(self) -> None:
        return None

    def _held(self, server_id: str, ask: Callable[[MemoryHandle], T]) -> T | None:
        guest = WORLD.guests[server_id] if breaks("raises") else WORLD.guests.get(server_id)
        if guest is None:
            return None
        try:
            with guest.held():
                return ask(MemoryHandle(guest, read_only=self._read_only))
        except SilentError as ex:
            raise failed(Reason.HYPERVISOR_TIMED_OUT, "frozen") from ex


class MemoryHost:
    """The opened driver."""

    limit = LIMIT
    parts = ()

    @property
    def capabilities(self) -> DriverCapabilities:
        sources = frozenset[SourceKind]() if breaks("cannot") else frozenset({SourceKind.FILE})
        return DriverCapabilities(sources=sources, agent=True)

    def __init__(self, *, read_only: bool) -> None:
        self._read_only = read_only

    def session(self, share: float = 1.0) -> MemorySession:
        del share
        return MemorySession(read_only=self._read_only)

    def close(self) -> None:
        return None


class MemoryDriver:
    """The entry point."""

    name = "memory"

    def options(self) -> Sequence[tuple[str, Sequence[cfg.Opt]]]:
        return [("memory", [cfg.StrOpt("place", default="here", help="Where the guests are.")])]

    def settings(self, conf: cfg.ConfigOpts) -> str:
        place: str = conf.memory.place
        return place

    def probes(self, settings: str, facts: ProbeFacts) -> Iterator[Probe]:
        del facts
        yield Probe(about=f"the guests in {settings}", wrong=None)

    def open(self, settings: str, tools: DriverTools) -> MemoryHost:
        del settings
        return MemoryHost(read_only=tools.facts.read_only)


def _absent() -> StepFailedError:
    return StepFailedError(Outcome.NOT_HERE, Reason.DOMAIN_ABSENT)


DRIVER = MemoryDriver()
