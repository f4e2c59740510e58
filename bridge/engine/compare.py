# SPDX-License-Identifier: Apache-2.0
"""Comparison of an attached volume with the size its guest sees: fine, behind or not visible, and why. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from bridge.core.extend import ExtendKey, is_fixed_overhead
from bridge.core.inventory import GuestState
from bridge.core.reasons import Reason
from bridge.engine.cinder import CinderVolume
from bridge.journal.findings import FindingState, JournalFacts, ReportedDisk


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One attached volume and its guest's view; `reason` is the code of a state other than fine.

    `host` is where the guest is, or should be. `size` is what the guest sees, None if unknown. `since` (epoch
    seconds) is the start of the state, if known better than by the first look.
    """

    key: ExtendKey
    sight: FindingState
    wanted: int
    reason: str | None = None
    host: str | None = None
    size: int | None = None
    since: float | None = None


def stuck(volume: CinderVolume, *, now: float, after: float) -> list[Comparison]:
    """Judge a volume that Cinder is extending: after `after` seconds each of its guests is a finding.

    Nothing else shows such a volume, because Cinder sends no event when an extend does not end.
    """
    since = volume.changed_at
    if not volume.extending or since is None or now - since < after:
        return []
    hosts = {attached.server_id: attached.host for attached in volume.attached}
    return [
        Comparison(
            key=ExtendKey(server_id, volume.id),
            sight=FindingState.CANNOT_SEE,
            wanted=volume.size,
            reason=Reason.VOLUME_EXTENDING,
            host=host,
            since=since,
        )
        for server_id, host in hosts.items()
    ]


def survey(volume: CinderVolume, facts: JournalFacts) -> list[Comparison]:
    """Judge each attachment of one volume."""
    named: dict[ExtendKey, list[str]] = {}
    for attached in volume.attached:
        hosts = named.setdefault(ExtendKey(attached.server_id, volume.id), [])
        if attached.host is not None:
            hosts.append(attached.host)
    return [_judge(key, volume.size, hosts, facts) for key, hosts in named.items()]


def _judge(key: ExtendKey, wanted: int, named: Collection[str], facts: JournalFacts) -> Comparison:
    reported = facts.seen.get(key, ())
    if len(reported) == 1 and _plainly_fine(reported[0], wanted):
        return Comparison(key=key, sight=FindingState.FINE, wanted=wanted)
    living = [seen for seen in reported if seen.alive]
    here, anywhere = _here(living, named), _here(list(reported), named)
    if (busy := _incoming(living, here, named)) is not None:
        return Comparison(
            key=key, sight=FindingState.BUSY, wanted=wanted, reason=Reason.DOMAIN_INCOMING, host=busy.host
        )
    if here is None or _is_left_behind(here, anywhere, named):
        reason, host = _why_unseen(anywhere, next(iter(named), None), facts)
        return Comparison(key=key, sight=FindingState.CANNOT_SEE, wanted=wanted, reason=reason, host=host)
    verified = facts.verified.get((key, here.host))
    if here.size is None and here.state is GuestState.ACTIVE and verified is None:
        return Comparison(
            key=key, sight=FindingState.CANNOT_SEE, wanted=wanted, reason=Reason.SIZE_UNKNOWN, host=here.host
        )
    size = max(here.size or 0, verified or 0)
    if here.state is GuestState.OFF or size >= wanted or is_fixed_overhead(size, wanted):
        return Comparison(key=key, sight=FindingState.FINE, wanted=wanted)
    sight, why = FindingState.BEHIND, str(Reason.NOBODY_TOLD)
    if key in facts.open:
        sight, why = FindingState.OPEN, facts.open[key] or Reason.ON_ITS_WAY
    elif (failed := facts.failed.get(key)) is not None and failed.target >= wanted:
        sight, why = FindingState.FAILED, failed.reason
    return Comparison(key=key, sight=sight, wanted=wanted, reason=why, host=here.host, size=size)


def _plainly_fine(seen: ReportedDisk, wanted: int) -> bool:
    """Return True if a living host runs the guest and reports the wanted size, as for nearly all volumes."""
    return seen.alive and seen.state is GuestState.ACTIVE and seen.size is not None and seen.size >= wanted


def _here(seen: list[ReportedDisk], named: Collection[str]) -> ReportedDisk | None:
    """Return the disk where the guest is: its running domain, else a defined one.

    If several hosts claim to run the guest, the host Cinder names counts. If Cinder names none, the smallest size
    counts.
    """
    return min(
        seen,
        key=lambda one: (one.state is not GuestState.ACTIVE, one.host not in named, one.size or 0, one.host),
        default=None,
    )


def _incoming(living: list[ReportedDisk], here: ReportedDisk | None, named: Collection[str]) -> ReportedDisk | None:
    """Return the disk at the host the guest is on its way to.

    If Cinder names the host that runs the guest, only another named host counts. A migration has both attachments.
    """
    incoming = [seen for seen in living if seen.state is GuestState.INCOMING]
    decided = here is not None and here.state is GuestState.ACTIVE and here.host in named
    return next((seen for seen in incoming if not decided or seen.host in named), None)


def _is_left_behind(here: ReportedDisk, anywhere: ReportedDisk | None, named: Collection[str]) -> bool:
    """Return True if `here` is a shut-off definition left behind on another host than the guest's.

    The guest was last seen running on a host that is silent now. A host that Cinder attaches the volume to does not
    count, because the guest was evacuated there.
    """
    runs = anywhere is not None and anywhere.state is GuestState.ACTIVE
    return runs and here.state is GuestState.OFF and here.host not in named


def _why_unseen(
    silent: ReportedDisk | None, cinder_host: str | None, facts: JournalFacts
) -> tuple[Reason, str | None]:
    """Return why no living host reports a disk, and the host the reason is about."""
    if silent is not None:
        return Reason.HOST_DOWN, silent.host
    if cinder_host is None:
        return Reason.NO_HOST, None
    alive = facts.agents.get(cinder_host)
    if alive is None:
        return Reason.NO_AGENT, cinder_host
    return (Reason.DISK_NOT_REPORTED if alive else Reason.HOST_DOWN), cinder_host
