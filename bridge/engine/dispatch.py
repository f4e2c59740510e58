# SPDX-License-Identifier: Apache-2.0
"""Dispatch of due rows: claim, read each volume once, decide, write the attempts down, cast per host."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import new_id
from bridge.core.messages import Order
from bridge.core.reasons import Reason
from bridge.engine.alarms import HostAlarms
from bridge.engine.cinder import CINDER_REASONS, Attached, CinderAnswer, CinderVolume, NotNow
from bridge.engine.locator import Locator
from bridge.engine.plan import Cast, Plan, Whereabouts, at_odds, plan
from bridge.engine.settings import EngineSettings
from bridge.engine.upstream import GOOD_FOR, OutageBreaker
from bridge.journal.claims import Claims, Ended, Later, NewAttempt
from bridge.journal.states import Extend
from bridge.runtime.audit import AuditLog
from bridge.runtime.health import Health
from bridge.runtime.metrics import EngineMetrics
from bridge.runtime.retry import Backoff
from bridge.runtime.wakeup import Wake

LOG = logging.getLogger(__name__)

_POLL: Final = 1.0  # seconds until the next round, if a wake-up is lost
_ORDERS_PER_CAST: Final = 50
_IN_PAGES: Final = 200  # volumes or attachments from which on Cinder is read in pages
_PORTION: Final = 1.0  # seconds of reading Cinder after which the answered extends go out
_ROUND: Final = 20.0  # seconds of reading Cinder in one round; the rest is put off, uncounted
_TOO_LATE: Final = NotNow(Reason.CINDER_TIMED_OUT, f"the volumes before took {_ROUND:g} s")
CINDER: Final = "engine.cinder"


class Cinder(Protocol):
    """Reads of Cinder that the dispatcher needs."""

    def volume(self, volume_id: str, *, global_request_id: str | None = None) -> CinderAnswer:
        """Read the volume as it is now."""

    def volumes(self, volume_ids: Sequence[str]) -> Mapping[str, CinderVolume]:
        """Read many volumes at once, the volume that changed last first; return some of them."""

    def connections(self, attachments: Sequence[Attached]) -> Mapping[str, Mapping[str, Any]]:
        """Read the connection data of many attachments at once; return some of them, by attachment."""

    def connection(self, attachment: Attached, *, global_request_id: str | None = None) -> Mapping[str, Any] | None:
        """Return the attachment's connection data, without secrets."""


class HostAgents(Protocol):
    """Transport of orders to the host agents."""

    def cast(self, host: str, orders: Sequence[Order]) -> Reason | None:
        """Send orders to one host; return None when the broker has them, else the reason."""


class Dispatcher:
    """A supervised thread that works off due rows; any number of dispatchers may share one journal.

    `prompt` is called before each cast and may return a reason to wait.
    """

    def __init__(
        self,
        *,
        settings: EngineSettings,
        work: Claims,
        cinder: Cinder,
        locator: Locator,
        agents: HostAgents,
        prompt: Callable[[Sequence[Extend]], Reason | None] = lambda _: None,
        wake: Wake,
        health: Health,
        metrics: EngineMetrics,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._work = work
        self._cinder = cinder
        self._locator = locator
        self._agents = agents
        self._prompt = prompt
        self._wake = wake
        self._health = health
        self._metrics = metrics
        self._audit = audit
        self._clock = clock
        self._alarms = HostAlarms(metrics=metrics, audit=audit)

    def run(self, stop: threading.Event) -> None:
        """Run rounds while extends are due, else wait for a wake-up, until `stop` is set."""
        away = Backoff(first=0.5, cap=10, floor=0.2)
        failures = 0
        while not stop.is_set():
            try:
                taken = self.round()
            except JournalUnavailableError:  # the database's check says why
                failures += 1
                stop.wait(away.delay(failures))
                continue
            failures = 0
            if taken < self._settings.batch:
                self._wake.wait(_POLL)

    def round(self) -> int:
        """Claim and dispatch one batch; return the number of claimed extends. Raises JournalUnavailableError."""
        claimed = self._work.claim(self._settings.batch, report_within=self._settings.report_within)
        if not claimed:
            return 0
        self._say_unreported([extend for extend in claimed if extend.unreported])
        for part, answers in self._answered(claimed):
            self._carry_out(part, answers)
        return len(claimed)

    def _carry_out(self, part: Sequence[Extend], answers: Mapping[str, CinderAnswer]) -> None:
        locations = self._locator.locate(part)
        now = self._clock()
        plans: list[Plan] = [
            plan(
                extend,
                answers[extend.key.volume_id],
                locations.get(extend.key.server_id, ()),
                now=now,
                backoff=self._settings.backoff,
            )
            for extend in part
        ]
        if LOG.isEnabledFor(logging.DEBUG):
            for x, decision in zip(part, plans, strict=True):
                _explain(x, answers[x.key.volume_id], locations.get(x.key.server_id, ()), decision)
        for extend in part:
            where = locations.get(extend.key.server_id, ())
            for host, reason, detail in at_odds(extend, answers[extend.key.volume_id], where):
                self._alarms.sound(reason, host, f"server {extend.key.server_id}: {detail}", key=extend.key)
        self._put_off([p for p in plans if isinstance(p, Later)])
        self._end([p for p in plans if isinstance(p, Ended)])
        self._cast([p for p in plans if isinstance(p, Cast)])

    def _say_unreported(self, extends: Sequence[Extend]) -> None:
        """Log and audit the extends that were cast without a report. Each is cast again at once.

        A host that restarted leaves its attempt without a report too.
        """
        for extend in extends:
            LOG.info(
                "server %s volume %s: attempt %d was not reported in time, so the order is sent again",
                extend.key.server_id, extend.key.volume_id, extend.attempt - 1,
            )  # fmt: skip
        now = self._clock()
        self._audit.write(*(x.record(AuditEvent.WAITING, now, reason=Reason.NOT_REPORTED.value) for x in extends))

    def _answered(self, claimed: Sequence[Extend]) -> Iterator[tuple[list[Extend], dict[str, CinderAnswer]]]:
        """Read each volume once; yield the answered extends at least every second.

        So a slow Cinder does not keep the first extend of a batch waiting for the last. Extends that become due
        meanwhile do not wait for the whole batch either.
        """
        answers: dict[str, CinderAnswer] = dict(self._in_pages(claimed))
        part: list[Extend] = []
        breaker = OutageBreaker(CINDER_REASONS)
        began = part_began = time.monotonic()
        for extend in claimed:
            volume_id = extend.key.volume_id
            if volume_id not in answers:
                late = _TOO_LATE if time.monotonic() - began > _ROUND else None
                answer: CinderAnswer | None = breaker.open() or late
                if answer is None:
                    answer = self._cinder.volume(volume_id, global_request_id=extend.global_request_id)
                    breaker.note(answer)
                answers[volume_id] = answer
            part.append(extend)
            if time.monotonic() - part_began > _PORTION:
                yield part, answers
                part, part_began = [], time.monotonic()
        self._show_cinder(answers)
        if part:
            yield part, answers

    def _in_pages(self, claimed: Sequence[Extend]) -> Mapping[str, CinderVolume]:
        """Read the volumes of a full batch in pages; the others are read one by one."""
        newest = sorted(claimed, key=lambda extend: extend.opened_at, reverse=True)
        ids = list(dict.fromkeys(extend.key.volume_id for extend in newest))
        return self._cinder.volumes(ids) if len(ids) >= _IN_PAGES else {}

    def _show_cinder(self, answers: Mapping[str, CinderAnswer]) -> None:
        troubles = [answer for answer in answers.values() if isinstance(answer, NotNow)]
        if len(troubles) < len(answers):
            self._health.ok(CINDER, good_for=GOOD_FOR)
        else:
            self._health.bad(CINDER, str(troubles[-1]))

    def _put_off(self, later: Sequence[Later]) -> None:
        self._work.wait(later)
        now = self._clock()
        self._audit.write(
            *(x.extend.record(AuditEvent.WAITING, now, host=x.waiting_for, reason=x.reason.value) for x in later)
        )

    def _end(self, ended: Sequence[Ended]) -> None:
        self._work.end(ended)
        for x in ended:
            self._metrics.closed.labels(x.outcome).inc()
        now = self._clock()
        self._audit.write(
            *(x.extend.record(AuditEvent.CLOSED, now, outcome=x.outcome.value, reason=str(x.reason)) for x in ended)
        )

    def _cast(self, casts: Sequence[Cast]) -> None:
        """Write all attempts down in one transaction, then cast group by group; one host never stops another."""
        groups: dict[str, list[tuple[NewAttempt, Order]]] = {}
        attachments = [cast.attachment(host) for cast in casts for host in cast.hosts]
        asked = [attachment for attachment in attachments if attachment is not None]
        connections = self._cinder.connections(asked) if len(asked) >= _IN_PAGES else {}
        for cast in casts:
            for host in cast.hosts:
                groups.setdefault(host, []).append(self._order(cast, host, connections))
        self._work.write_attempts([attempt for group in groups.values() for attempt, _ in group])
        for host, group in groups.items():
            for start in range(0, len(group), _ORDERS_PER_CAST):
                self._cast_group(host, group[start : start + _ORDERS_PER_CAST])

    def _order(
        self, cast: Cast, host: str, connections: Mapping[str, Mapping[str, Any]]
    ) -> tuple[NewAttempt, Order]:
        extend = cast.extend
        attempt = NewAttempt(id=new_id(), extend=extend, host=host, target=cast.volume.size)
        attachment = cast.attachment(host)
        connection = connections.get(attachment.attachment_id) if attachment is not None else None
        if attachment is not None and connection is None:
            connection = self._cinder.connection(attachment, global_request_id=extend.global_request_id)
        return attempt, Order(
            attempt_id=attempt.id,
            key=extend.key,
            gen=extend.wanted_gen,
            target=attempt.target,
            connection=connection,
            encryption=cast.volume.encryption,
            request_id=extend.request_id,
            global_request_id=extend.global_request_id,
            attachment_id=attachment.attachment_id if attachment else None,
            traceparent=extend.traceparent,
            grow_file_system=cast.volume.grow_file_system,
        )

    def _cast_group(self, host: str, group: Sequence[tuple[NewAttempt, Order]]) -> None:
        why_not = self._prompt([attempt.extend for attempt, _ in group])
        if why_not is None:
            why_not = self._agents.cast(host, [order for _, order in group])
        self._metrics.casts.labels("sent" if why_not is None else why_not.value).inc(len(group))
        if why_not is None:
            self._audit.write(*(self._dispatched(attempt) for attempt, _ in group))
            return
        self._work.end_attempts([attempt.id for attempt, _ in group], why_not)
        now = self._clock()
        self._put_off(
            [
                Later(
                    extend=attempt.extend,
                    reason=why_not,
                    due_at=now + self._settings.backoff.delay(attempt.extend.failures + 1),
                    failures=attempt.extend.failures + 1,
                    waiting_for=host if why_not is Reason.UNDELIVERABLE else None,
                )
                for attempt, _ in group
            ]
        )

    def _dispatched(self, attempt: NewAttempt) -> AuditRecord:
        return attempt.extend.record(
            AuditEvent.DISPATCHED,
            self._clock(),
            host=attempt.host,
            attempt_id=attempt.id,
            data={"target": attempt.target, "gen": attempt.extend.wanted_gen},
        )


def _explain(extend: Extend, answer: CinderAnswer, locations: Whereabouts, decision: Plan) -> None:
    """Log the answers of Cinder and the locator for an extend, and the decision, without connection data."""
    match answer:
        case CinderVolume():
            extending = ", extending" if answer.extending else ""
            cinder = f"{answer.size} bytes{extending}, {len(answer.attached)} attachments"
        case NotNow():
            cinder = f"no answer ({answer})"
        case _:
            cinder = "no such volume"
    hosts = locations.value if isinstance(locations, Reason) else ", ".join(str(x.host) for x in locations)
    match decision:
        case Cast():
            then = f"cast to {', '.join(decision.hosts)}"
        case Later():
            then = f"wait: {decision.reason.value}"
        case Ended():
            then = f"end: {decision.outcome.value}"
    LOG.debug(
        "server %s volume %s: Cinder: %s; hosts: %s; failures %d, so %s",
        extend.key.server_id, extend.key.volume_id, cinder, hosts or "none", extend.failures, then,
    )  # fmt: skip
