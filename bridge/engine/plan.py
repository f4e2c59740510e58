# SPDX-License-Identifier: Apache-2.0
"""The decision on a claimed extend, from the answers of Cinder and the hosts: cast, wait, or end. Pure.

If several hosts claim a guest, Cinder's attachment decides. If Cinder names no host, the extend waits until the
hosts agree or one is gone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.engine.cinder import Attached, CinderAnswer, CinderVolume, Gone, NotNow
from bridge.journal.claims import Ended, Later
from bridge.journal.hosts import Location
from bridge.journal.states import Extend
from bridge.runtime.retry import Backoff

_NOT_COUNTED: Final = (5.0, 30.0)  # seconds: Cinder's absence is not a failure of the extend
_TWO: Final = 2
_EXTENDING: Final = (1.0, 5.0)  # seconds: Cinder sends no event when an extend fails


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Orders for these hosts: one host, or both sides of a migration."""

    extend: Extend
    volume: CinderVolume
    hosts: tuple[str, ...]

    def attachment(self, host: str) -> Attached | None:
        """Return the attachment with this host's connection data; a server in migration has two attachments."""
        mine = [a for a in self.volume.attached if a.server_id == self.extend.key.server_id]
        return next((a for a in mine if a.host == host), mine[0] if mine else None)


Plan = Cast | Later | Ended
Whereabouts = Sequence[Location] | Reason
"""The hosts that have a server, or the reason why they are unknown."""


def plan(extend: Extend, answer: CinderAnswer, locations: Whereabouts, *, now: float, backoff: Backoff) -> Plan:
    """Decide on one claimed extend."""
    match answer:
        case Gone():
            return Ended(extend=extend, outcome=Outcome.VOLUME_GONE, reason=Outcome.VOLUME_GONE)
        case NotNow(reason):
            return _later(extend, reason, now + random.uniform(*_NOT_COUNTED))  # noqa: S311 - jitter, no secret
        case CinderVolume(extending=True):
            return _later(extend, Reason.VOLUME_EXTENDING, now + random.uniform(*_EXTENDING))  # noqa: S311
        case CinderVolume():
            if all(a.server_id != extend.key.server_id for a in answer.attached):
                return Ended(extend=extend, outcome=Outcome.DETACHED, reason=Outcome.DETACHED)
            return _where(extend, answer, locations, now, backoff)


def _where(extend: Extend, volume: CinderVolume, locations: Whereabouts, now: float, backoff: Backoff) -> Plan:
    failures = extend.failures + 1
    if locations is Reason.SERVER_DELETED:
        return _later(extend, locations, now + backoff.delay(failures), failures=failures)
    if isinstance(locations, Reason):
        return _later(extend, locations, now + random.uniform(*_NOT_COUNTED))  # noqa: S311
    if not locations:
        return _later(extend, Reason.NO_HOST, now + backoff.delay(failures), failures=failures)
    fresh = [at for at in locations if at.fresh]
    named = _named(extend, volume)
    # A named host that is silent had the guest. Another host's claim is believed if Cinder names that host.
    silent = [at for at in locations if at.host in named and not at.fresh and at.state is GuestState.ACTIVE]
    chosen = [at for at in _running(fresh) if at.host in named]
    if not fresh or (silent and not chosen):
        # The next try is when the host is back. The long delay only covers a lost wake-up.
        return _later(extend, Reason.HOST_DOWN, now + backoff.cap, waiting_for=home(silent or locations))
    if not chosen:
        active = [at for at in fresh if at.state is GuestState.ACTIVE]
        if len(active) > 1:
            return _later(extend, Reason.HOSTS_DISAGREE, now + random.uniform(*_NOT_COUNTED))  # noqa: S311
        chosen = active or list(_running(fresh))
    return Cast(extend=extend, volume=volume, hosts=tuple(sorted(at.host for at in chosen)))


def at_odds(extend: Extend, answer: CinderAnswer, locations: Whereabouts) -> list[tuple[str, Reason, str]]:
    """Return each host whose claim on the guest contradicts Cinder or another host, with reason and detail.

    A host that Cinder names is never returned, because the other hosts are compared with it.
    """
    if isinstance(locations, Reason) or len(locations) < _TWO or not isinstance(answer, CinderVolume):
        return []
    named = _named(extend, answer) & {at.host for at in locations}
    active = [at.host for at in locations if at.fresh and at.state is GuestState.ACTIVE]
    if named:
        says = f"Cinder has it attached to {', '.join(sorted(named))}"
        return [(host, Reason.HOST_NOT_ATTACHED, says) for host in active if host not in named]
    if len(active) < _TWO:
        return []
    return [(host, Reason.HOSTS_DISAGREE, f"claimed by {', '.join(sorted(active))}") for host in active]


def _named(extend: Extend, volume: CinderVolume) -> set[str]:
    """Return the hosts of the server's attachments: one, two in a migration, none if Cinder does not say."""
    return {a.host for a in volume.attached if a.server_id == extend.key.server_id and a.host is not None}


def _running(fresh: Sequence[Location]) -> Sequence[Location]:
    """Return the hosts where the guest runs or arrives, else all hosts.

    A definition left behind elsewhere would end the extend as `guest_off`, whatever the running guest sees.
    """
    return [at for at in fresh if at.state is not GuestState.OFF] or fresh


def home(locations: Sequence[Location]) -> str:
    """Return the host to wait for: where the domain is active, else any host that reports the server."""
    return min(locations, key=lambda at: (at.state is not GuestState.ACTIVE, at.host)).host


def _later(
    extend: Extend, reason: Reason, due_at: float, *, failures: int | None = None, waiting_for: str | None = None
) -> Later:
    return Later(
        extend=extend,
        reason=reason,
        due_at=due_at,
        failures=extend.failures if failures is None else failures,
        waiting_for=waiting_for,
    )
