# SPDX-License-Identifier: Apache-2.0
"""The seam between the host agent and a hypervisor: what a driver implements, and what it is given.

A driver shows guests and their disks as the values of hostagent/domain.py, and makes single calls on a guest. The
guard against shrinking (hostagent/resize.py) and the memory of each volume's device (hostagent/identity.py) stay on
the agent's side: they make their decisions from what the driver shows, so no driver can leave them out.

Every method raises StepFailedError for everything a hypervisor says, refuses or does not say in time, and nothing
else. Every wait ends. hostagent/drivers/contract holds each promise as a test.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from oslo_config import cfg
from prometheus_client import Gauge

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.daemon import Part
from bridge.runtime.health import Health
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.errors import StepFailedError

T = TypeVar("T")
SIZE_MAX: Final = 1 << 63
"""Sizes from here on are of no disk: a driver that reads one raises StepFailedError."""
AGENT_ANSWER_MAX: Final = 4 << 20
"""Bytes of a guest agent's answer: what a guest-exec returns at most, with room."""
_AGENT_VALUES_MAX: Final = 1 << 18
"""Values in a guest agent's answer: those of 4096 file systems, with room. Each costs some 100 bytes of memory."""


def is_small_answer(text: str) -> bool:
    """Return whether an agent's answer is small enough to be parsed, in bytes and in values."""
    return len(text) <= AGENT_ANSWER_MAX and sum(map(text.count, "[{,")) <= _AGENT_VALUES_MAX


@dataclass(frozen=True, slots=True)
class Capacity:
    """Sizes of one disk in bytes: the guest's capacity as the hypervisor shows it, and the source's size now.

    On a block device `physical > capacity` means that the device has grown and the guest does not know yet. For
    files `physical` is the length of a raw file, and the space in use of any other.
    """

    capacity: int
    physical: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestDisks:
    """The disks of one guest at one moment, and the run of the guest in which they were read."""

    disks: tuple[Disk, ...]
    run: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestList:
    """The ids of the guests of this host, in lower case.

    `complete`: no guest can be missing. A list with gaps never says that a guest has left the host.
    """

    server_ids: frozenset[str]
    complete: bool = True


class GuestArrival(Enum):
    """The cause of a guest's arrival or return."""

    STARTED = auto()  # it boots, and reads the size of each disk itself
    CAME_BACK = auto()  # with memory of before: restored, migrated, reverted


class GuestEvents(Protocol):
    """The receiver of a driver's events. Its methods return at once and may be called in any thread."""

    def changed(self, server_id: str) -> None:
        """Request another look at a guest that came, went, or whose disks changed."""

    def disk_removed(self, server_id: str, alias: str) -> None:
        """Note that a disk left its guest, by `Disk.alias`; it may be back before the next look."""

    def arrived(self, server_id: str, how: GuestArrival) -> None:
        """Note the cause of a guest's arrival or return."""


class Watch(Protocol):
    """The events of this host from one moment on."""

    def stands(self) -> bool:
        """Return whether every event since has been delivered. Raises StepFailedError."""


class GuestHandle(Protocol):
    """One guest within one call of `on_guest`: the calls that the guard makes before, and the one it guards.

    Raises StepFailedError like every other method, and may raise the hypervisor's own errors: `on_guest` puts them
    into words.
    """

    @property
    def never_shrinks(self) -> bool:
        """Return whether `resize` itself refuses a smaller size, in the same moment as it resizes."""

    def look(self) -> GuestDisks:
        """Return the disks that the guest has now, never cached ones."""

    def capacity(self, target: str) -> Capacity:
        """Return the sizes that the disk has now, never cached ones."""

    def check_stays(self) -> None:
        """Raise StepFailedError (`busy`) while the guest is being migrated, saved or dumped."""

    def resize(self, disk: Disk, size: int) -> None:
        """Resize a disk to exactly `size` bytes, and interrupt its guest also where it has that size already.

        A smaller size may shrink the disk: only hostagent/resize.py calls this, behind its guard.
        """


class Hypervisor(Protocol):
    """A hypervisor for one worker."""

    def domain(self, server_id: str) -> Domain | None:
        """Return the guest's current state, None where the hypervisor does not know the guest."""

    def capacity(self, server_id: str, target: str) -> Capacity:
        """Return the current sizes of one disk."""

    def on_guest(self, server_id: str, work: Callable[[GuestHandle, Callable[[], bool]], T]) -> T:
        """Run `work(guest, wanted)` within the call limit; `wanted()` turns false once the caller has given up.

        `work` may run a second time, after a reconnect. A guest whose earlier call has not returned is refused:
        a late resize could otherwise overtake a newer, larger one.
        """


class AgentTrouble(StrEnum):
    """The ways in which a call of a guest's agent fails."""

    ABSENT = "absent"  # the guest has no channel for an agent, or no agent listens on it
    SILENT = "silent"  # no answer within the limit
    REFUSED = "refused"  # the agent answered an error, also for a command that it does not know or that is blocked
    BAD_ANSWER = "bad_answer"  # an answer that is not JSON, too long or of another form


class GuestAgentError(StepFailedError):
    """A call of a guest's agent that failed."""

    def __init__(self, why: AgentTrouble, detail: str) -> None:
        super().__init__(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_RAISED, detail)
        self.why = why


class GuestAgent(Protocol):
    """The way to the agent inside a guest (QEMU's guest agent protocol)."""

    def agent(self, server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        """Return the `return` value of the guest agent's answer to {"execute": ..., "arguments": ...}.

        Ends within `limit` seconds and bounds the answer by AGENT_ANSWER_MAX, because a guest writes it. Raises
        GuestAgentError for whatever the agent does or lacks, and StepFailedError where the hypervisor fails.
        """


class HostView(Protocol):
    """A hypervisor for the inventory."""

    def guests(self) -> GuestList:
        """Return the guests of this host. Raises StepFailedError where the hypervisor cannot be asked at all."""

    def domain(self, server_id: str) -> Domain | None:
        """Return the guest's current state, None where the hypervisor does not know the guest."""

    def state(self, server_id: str) -> GuestState | None:
        """Return a guest's state alone, for a guest that cannot be read; None for one that is not known."""

    def capacity(self, server_id: str, target: str) -> Capacity:
        """Return the current sizes of one disk."""

    def watch(self, events: GuestEvents) -> Watch:
        """Deliver events from now on. Return the same watch as long as it stands, else a new one."""


class HypervisorSession(Hypervisor, GuestAgent, HostView, Protocol):
    """The complete hypervisor for one thread."""

    def secret(self, secret_id: str) -> bytes | None:
        """Return a secret that a disk names (NetworkSource.secret_id); None for one that cannot be had."""

    def close(self) -> None:
        """Release the session's resources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCapabilities:
    """The disks that a driver resizes, and what else it can do; the inventory tells it before it is tried.

    `sources`, `formats`: kinds and formats of disks; `protocols`: those of QEMU's own clients. `agent`: guests'
    agents can be asked.
    """

    sources: frozenset[SourceKind]
    formats: frozenset[str] = frozenset({"raw", "qcow2"})
    protocols: frozenset[str] = frozenset()
    agent: bool = False

    def why_not(self, disk: Disk) -> str:
        """Return why the driver cannot resize such a disk; empty where it can."""
        protocol = disk.network.protocol if disk.network is not None else ""
        if disk.kind not in self.sources or (disk.kind is SourceKind.NETWORK and protocol not in self.protocols):
            return f"the hypervisor's driver cannot resize disks of this kind: {disk.words}"
        if disk.driver_format not in self.formats:
            return f"the hypervisor's driver cannot resize disks of this format: {disk.words}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A check and its result. `wrong`: the fault and its remedy, None without a fault."""

    about: str
    wrong: str | None
    fatal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFacts:
    """Facts of the agent's own configuration. `root`: the host's file system, another one in tests."""

    root: Path = Path("/")
    read_only: bool = False
    nova_conf: tuple[str, ...] = ()
    use_multipath: bool = False
    lock_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverTools:
    """Tools that the agent gives a driver.

    `facts.read_only`: nothing may be changed, and the driver makes sure of it where the hypervisor lets it.
    `hanging`: the number of calls that were given up and have not returned. `file_size`: the length of a file, or
    the size of a block device, of this host, within the limit of storage reads; raises StepFailedError.
    """

    health: Health
    hanging: Gauge
    file_size: Callable[[str], int]
    facts: ProbeFacts


class HypervisorHost(Protocol):
    """An opened driver: the hypervisor of this host."""

    @property
    def limit(self) -> float:
        """Return the seconds that one call may take."""

    @property
    def capabilities(self) -> DriverCapabilities:
        """Return what the driver can do."""

    @property
    def parts(self) -> Sequence[Part]:
        """Return the driver's own threads, which run as long as the agent."""

    def session(self, share: float = 1.0) -> HypervisorSession:
        """Return a session for one thread; connects when it is used.

        `share`: how much of the limit on hanging calls its questions may use up; the rest is left to others.
        """

    def close(self) -> None:
        """Release what all sessions share, once the parts have ended."""


class HypervisorDriver(Protocol):
    """The object behind an entry point of extend_bridge.drivers. Importing it must not need the hypervisor."""

    @property
    def name(self) -> str:
        """Return the name of the entry point, as in [hostagent] driver."""

    def options(self) -> Sequence[tuple[str, Sequence[cfg.Opt]]]:
        """Return the driver's option groups. The group of a new driver has the driver's name."""

    def settings(self, conf: cfg.ConfigOpts) -> Any:
        """Read the options; raises ConfigError. Does not access the host."""

    def probes(self, settings: Any, facts: ProbeFacts) -> Iterator[Probe]:
        """Yield a probe for each thing the driver needs of its host. Needs no libraries and creates nothing."""

    def open(self, settings: Any, tools: DriverTools) -> HypervisorHost:
        """Return the hypervisor. Does not wait for it; raises ConfigError where a library is missing."""


def failed(reason: Reason, detail: str) -> StepFailedError:
    """Return the error of a hypervisor that did not do as requested."""
    return StepFailedError(Outcome.HYPERVISOR_FAILED, reason, detail)


def checked_capacity(capacity: object, physical: object, target: str) -> Capacity:
    """Return the sizes that a hypervisor returned; raises StepFailedError for impossible ones."""
    match capacity, physical:
        case int(), int() if _is_size(capacity) and _is_size(physical):
            return Capacity(capacity, physical)
    raise failed(Reason.HYPERVISOR_RAISED, f"sizes of {target} that no disk has: {capacity}, {physical}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < SIZE_MAX
