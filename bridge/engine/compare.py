# SPDX-License-Identifier: Apache-2.0
"""Whether the guest of an attached volume has its size, and if not, or if nobody can tell, why. Pure."""

from dataclasses import dataclass

from bridge.core.extend import ExtendKey, is_fixed_overhead
from bridge.core.messages import GuestState
from bridge.core.reasons import Reason
from bridge.engine.cinder import CinderVolume
from bridge.journal.findings import FindingState, JournalFacts, ReportedDisk


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One attached volume and what is seen of it; `reason` (a code) of anything that is not fine.

    `host` is where the guest is, or should be; `size` what it sees, None where that is not known.
    """

    key: ExtendKey
    sight: FindingState
    wanted: int
    reason: str | None = None
    host: str | None = None
    size: int | None = None


def survey(volume: CinderVolume, facts: JournalFacts) -> list[Comparison]:
    """Judge each attachment of one volume."""
    hosts: dict[ExtendKey, str | None] = {}
    for attached in volume.attached:
        key = ExtendKey(attached.server_id, volume.id)
        hosts[key] = hosts.get(key) or attached.host
    return [_judge(key, volume.size, host, facts) for key, host in hosts.items()]


def _judge(key: ExtendKey, wanted: int, cinder_host: str | None, facts: JournalFacts) -> Comparison:
    reported = facts.seen.get(key, ())
    if len(reported) == 1 and _plainly_fine(reported[0], wanted):
        return Comparison(key=key, sight=FindingState.FINE, wanted=wanted)
    living = [seen for seen in reported if seen.alive]
    if any(seen.state is GuestState.INCOMING for seen in living):
        busy = next(seen for seen in living if seen.state is GuestState.INCOMING)
        return Comparison(
            key=key, sight=FindingState.BUSY, wanted=wanted, reason=Reason.DOMAIN_INCOMING, host=busy.host
        )
    here, anywhere = _here(living), _here(list(reported))
    if here is None or _is_left_behind(here, anywhere, cinder_host):
        reason, host = _why_unseen(anywhere, cinder_host, facts)
        return Comparison(key=key, sight=FindingState.CANNOT_SEE, wanted=wanted, reason=reason, host=host)
    if here.size is None and here.state is GuestState.ACTIVE and key not in facts.verified:
        return Comparison(
            key=key, sight=FindingState.CANNOT_SEE, wanted=wanted, reason=Reason.SIZE_UNKNOWN, host=here.host
        )
    size = max(here.size or 0, facts.verified.get(key, 0))
    if here.state is GuestState.OFF or size >= wanted or is_fixed_overhead(size, wanted):
        return Comparison(key=key, sight=FindingState.FINE, wanted=wanted)
    sight, why = FindingState.BEHIND, str(Reason.NOBODY_TOLD)
    if key in facts.open:
        sight, why = FindingState.OPEN, facts.open[key] or Reason.ON_ITS_WAY
    elif (failed := facts.failed.get(key)) is not None and failed.target >= wanted:
        sight, why = FindingState.FAILED, failed.reason
    return Comparison(key=key, sight=sight, wanted=wanted, reason=why, host=here.host, size=size)


def _plainly_fine(seen: ReportedDisk, wanted: int) -> bool:
    """Nearly all are."""
    return seen.alive and seen.state is GuestState.ACTIVE and seen.size is not None and seen.size >= wanted


def _here(seen: list[ReportedDisk]) -> ReportedDisk | None:
    """Where the guest is: its running domain, else a defined one."""
    return min(seen, key=lambda one: (one.state is not GuestState.ACTIVE, one.host), default=None)


def _is_left_behind(here: ReportedDisk, anywhere: ReportedDisk | None, cinder_host: str | None) -> bool:
    """Whether the guest was last seen running on a host that is silent now, and this is a shut-off definition of it
    elsewhere. Not where Cinder has the volume attached to: the guest was evacuated."""
    runs = anywhere is not None and anywhere.state is GuestState.ACTIVE
    return runs and here.state is GuestState.OFF and here.host != cinder_host


def _why_unseen(
    silent: ReportedDisk | None, cinder_host: str | None, facts: JournalFacts
) -> tuple[Reason, str | None]:
    """Why no living host reports a disk, and which host that is about."""
    if silent is not None:
        return Reason.HOST_DOWN, silent.host
    if cinder_host is None:
        return Reason.NO_HOST, None
    alive = facts.agents.get(cinder_host)
    if alive is None:
        return Reason.NO_AGENT, cinder_host
    return (Reason.DISK_NOT_REPORTED if alive else Reason.HOST_DOWN), cinder_host
