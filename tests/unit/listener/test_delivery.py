# SPDX-License-Identifier: Apache-2.0
"""What is done with a gather: each event gets its verdict, nothing is acknowledged before it is safe."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import kombu
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import ShuttingDownError
from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.metrics import ListenerMetrics
from bridge.runtime.publisher import NotPublishedError
from bridge.runtime.rest import Answer, NoAnswer
from listener.batch import Acks
from listener.decode import DueReader, NotificationReader
from listener.delivery import Away, Worker
from listener.endpoint import EndpointClient
from listener.lane_writer import LaneWriter
from listener.lanes import Deferred, Parked
from listener.notification import Origin
from listener.retry_policy import DeliveryLimits, RetryPolicy, SlowDelay
from listener.telemetry import Telemetry
from tests.unit.listener.messages import enveloped, one_server, opened, recorded

LIMITS = DeliveryLimits(batch=4, retry_cap=30, hold=60, retry=RetryPolicy(attempts=5, seconds=3600))


@dataclass
class Message:
    """A kombu message as far as the work looks at it."""

    delivery_tag: int
    body: bytes
    acked: bool = False
    headers: Mapping[str, object] = field(default_factory=dict)

    def ack(self, multiple: bool = False) -> None:
        assert not multiple
        assert not self.acked, "acknowledged twice"
        self.acked = True


class Bus:
    """A connection that waits no time at all. `waits` runs at each wait."""

    def __init__(self, waits: Callable[[float], None] = lambda seconds: None) -> None:
        self.waits = waits

    def acks(self, messages: Sequence[kombu.Message]) -> Acks:
        return Acks(messages, multiple=False)

    def keep_alive(self, seconds: float, stop: threading.Event) -> None:
        self.waits(seconds)

    def service_connection(self) -> None:
        pass


Answering = Callable[[Sequence[ExtendKey]], Answer | NoAnswer]


def codes(code_of: Callable[[ExtendKey], int]) -> Answering:
    def answer(events: Sequence[ExtendKey]) -> Answer:
        rows = [{"server_uuid": key.server_id, "tag": key.volume_id, "code": code_of(key)} for key in events]
        return Answer(status=207, body={"events": rows})

    return answer


ALL_WELL = codes(lambda key: 200)


class Endpoint:
    """Gives the answers one after the other, then the last for ever."""

    def __init__(self, *answers: Answering) -> None:
        self.answers = list(answers) or [ALL_WELL]
        self.requests: list[tuple[list[ExtendKey], str]] = []

    def post(self, events: Sequence[ExtendKey], request_id: str, traces: object = None) -> Answer | NoAnswer:
        self.requests.append((list(events), request_id))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(events)


class Lanes:
    """Lanes that fail `failures` times before they take something."""

    def __init__(self, failures: int = 0, *, slow: bool = True) -> None:
        self.failures = failures
        self.slow = slow
        self.deferred: list[tuple[Deferred, SlowDelay]] = []
        self.parked: list[Parked] = []
        self.raw: list[tuple[bytes, Reason]] = []

    def defer(self, deferred: Deferred, step: SlowDelay) -> None:
        self._fail()
        self.deferred.append((deferred, step))

    def park(self, parked: Parked) -> None:
        self._fail()
        self.parked.append(parked)

    def keep_raw(self, body: bytes, reason: Reason) -> None:
        self._fail()
        self.raw.append((body, reason))

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise NotPublishedError(Reason.NACKED, "a lane")


class Audit:
    """Keeps records."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []

    def write(self, *records: AuditRecord) -> None:
        self.records += records

    def of(self, event: AuditEvent) -> list[AuditRecord]:
        return [record for record in self.records if record.event is event]


@dataclass
class Bench:
    """A worker and all it touches."""

    endpoint: Endpoint = field(default_factory=Endpoint)
    lanes: Lanes = field(default_factory=Lanes)
    bus: Bus = field(default_factory=Bus)
    audit: Audit = field(default_factory=Audit)
    health: Health = field(default_factory=Health)
    stop: threading.Event = field(default_factory=threading.Event)
    limits: DeliveryLimits = LIMITS
    due: bool = False
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        telemetry = Telemetry(self.audit, ListenerMetrics(self.registry), due=self.due, clock=lambda: self.now)
        self.worker = Worker(
            limits=self.limits,
            reader=DueReader(clock=lambda: self.now)
            if self.due
            else NotificationReader(telemetry, max_bytes=2**20, max_rows=1000, clock=lambda: self.now),
            client=EndpointClient(self.endpoint),
            lane_writer=LaneWriter(self.lanes, health=self.health, check="listener.lanes", telemetry=telemetry),
            health=self.health,
            check="listener.endpoint",
            telemetry=telemetry,
            clock=lambda: self.now,
        )
        self.away: Away | None = None

    def work(self, *bodies: bytes) -> list[Message]:
        messages = [Message(tag, body) for tag, body in enumerate(bodies, 1)]
        self.away = self.worker.work(messages, self.bus, self.stop)
        return messages

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"extend_bridge_listener_{name}", labels) or 0

    def sent(self) -> list[ExtendKey]:
        return [key for events, _ in self.endpoint.requests for key in events]


def key(n: int, m: int = 0) -> ExtendKey:
    return ExtendKey(f"00000000-0000-4000-8000-{n:012d}", f"11111111-0000-4000-8000-{m:012d}")


def resize(*keys: ExtendKey, request: str = "req-1") -> bytes:
    """A recorded volume.resize.end of one volume, attached to these servers."""
    rows = [{"instance_uuid": each.server_id, "attach_status": "attached"} for each in keys]
    message = opened(one_server(volume_id=keys[0].volume_id, volume_attachment=rows))
    return enveloped(message | {"_context_request_id": request})


NOISE = enveloped({"event_type": "volume.create.end", "payload": {}})


def test_each_kind_of_message_goes_its_way_and_all_are_acknowledged() -> None:
    bench = Bench()
    bad = enveloped({"event_type": "volume.resize.end", "payload": None})
    messages = bench.work(NOISE, resize(key(1)), b"garbage", bad, recorded("unattached"))
    assert bench.sent() == [key(1)]
    assert bench.lanes.raw == [(b"garbage", Reason.NOT_JSON)]
    assert [(parked.reason, parked.server_id) for parked in bench.lanes.parked] == [(Reason.BAD_PAYLOAD, None)]
    assert all(message.acked for message in messages)
    assert bench.count("skipped_total", reason="other_event") == 1
    assert bench.count("skipped_total", reason="not_attached") == 1
    assert bench.count("parked_total", reason="bad_payload") == 1
    assert bench.audit.of(AuditEvent.SKIPPED)[0].reason == "not_attached"
    assert [record.event for record in bench.audit.records].count(AuditEvent.RECEIVED) == 2


def test_an_event_several_messages_ask_for_is_sent_once_and_recorded_for_each() -> None:
    bench = Bench()
    messages = bench.work(resize(key(1), request="req-a"), resize(key(1), request="req-b"))
    assert bench.sent() == [key(1)]
    assert all(message.acked for message in messages)
    posted = bench.audit.of(AuditEvent.POSTED)
    assert [record.global_request_id for record in posted] == ["req-a", "req-b"]
    ((_, sent_as),) = bench.endpoint.requests
    assert sent_as not in {"req-a", "req-b"}
    assert [record.data for record in posted] == [{"posted_as": sent_as}] * 2


def test_a_request_of_one_resize_goes_under_its_own_id() -> None:
    bench = Bench()
    bench.work(resize(key(1), key(2), request="req-of-the-user"))
    ((events, sent_as),) = bench.endpoint.requests
    assert (events, sent_as) == ([key(1), key(2)], "req-of-the-user")
    assert [record.data for record in bench.audit.of(AuditEvent.POSTED)] == [{}, {}]


def test_more_events_than_a_batch_go_in_several_requests() -> None:
    bench = Bench()
    messages = bench.work(*(resize(key(n)) for n in range(10)))
    assert [len(events) for events, _ in bench.endpoint.requests] == [4, 4, 2]
    assert all(message.acked for message in messages)


def test_an_endpoint_that_is_away_is_asked_again_and_the_wait_is_recorded_once() -> None:
    away: Answering = lambda events: NoAnswer(Reason.UNREACHABLE)  # noqa: E731
    bench = Bench(endpoint=Endpoint(away, away, away, ALL_WELL))
    seen: list[Any] = []
    bench.bus.waits = lambda seconds: seen.append((seconds, bench.health.checks()["listener.endpoint"]))
    (message,) = bench.work(resize(key(1)))
    assert message.acked
    assert [check.ok for _, check in seen] == [False] * 3
    assert all(check.reason == Reason.UNREACHABLE.text and 0.1 <= wait <= 30 for wait, check in seen)
    assert bench.health.checks()["listener.endpoint"].ok
    assert [record.reason for record in bench.audit.of(AuditEvent.HELD)] == ["unreachable"]
    assert bench.count("held_total", reason="unreachable") == 1


def test_an_endpoint_that_says_when_is_asked_then() -> None:
    told: Answering = lambda events: Answer(status=503, retry_after=17.0)  # noqa: E731
    bench = Bench(endpoint=Endpoint(told, ALL_WELL))
    waits: list[float] = []
    bench.bus.waits = waits.append
    bench.work(resize(key(1)))
    assert waits == [17.0]


def test_while_one_event_waits_what_is_settled_is_acknowledged_and_not_sent_again() -> None:
    gone = {key(2)}

    def half(events: Sequence[ExtendKey]) -> Answer | NoAnswer:
        return Answer(status=500) if gone & set(events) and len(events) > 1 else (
            NoAnswer(Reason.TIMED_OUT) if gone & set(events) else ALL_WELL(events)
        )  # fmt: skip

    bench = Bench(endpoint=Endpoint(half))
    messages = [Message(1, resize(key(1))), Message(2, resize(key(2))), Message(3, NOISE)]
    acked: list[list[bool]] = []

    def waits(seconds: float) -> None:
        acked.append([message.acked for message in messages])
        gone.clear()

    bench.bus.waits = waits
    bench.worker.work(messages, bench.bus, bench.stop)
    assert acked == [[True, False, True]]
    assert Counter(bench.endpoint.requests[-1][0]) == {key(2): 1}
    assert all(message.acked for message in messages)


def test_a_message_with_events_in_two_requests_is_acknowledged_after_the_second() -> None:
    away: Answering = lambda events: NoAnswer(Reason.UNREACHABLE)  # noqa: E731
    bench = Bench(endpoint=Endpoint(ALL_WELL, away, ALL_WELL))
    message = Message(1, resize(*(key(n) for n in range(5))))
    seen: list[bool] = []
    bench.bus.waits = lambda seconds: seen.append(message.acked)
    bench.worker.work([message], bench.bus, bench.stop)
    assert seen == [False]
    assert message.acked


SLOW_CODES = [(404, Reason.EVENT_UNKNOWN_SERVER), (422, Reason.EVENT_NO_HOST), (418, Reason.EVENT_OTHER_CODE)]


def test_an_event_that_is_bad_is_parked_with_its_reason() -> None:
    bench = Bench(endpoint=Endpoint(codes(lambda each: 400 if each == key(1) else 200)))
    messages = bench.work(resize(key(1), key(2)))
    (parked,) = bench.lanes.parked
    assert (parked.reason, parked.mark, parked.server_id) == (Reason.EVENT_BAD, None, key(1).server_id)
    assert (parked.attempts, parked.first_seen) == (1, 1000.0)
    assert all(message.acked for message in messages)
    assert [record.reason for record in bench.audit.of(AuditEvent.PARKED)] == ["event_bad"]
    assert bench.count("events_total", verdict="delivered", reason="delivered") == 1
    assert bench.lanes.deferred == []


@pytest.mark.parametrize(("code", "reason"), SLOW_CODES)
def test_an_event_that_may_come_right_goes_into_the_slow_lane_and_its_neighbours_are_delivered(
    code: int, reason: Reason
) -> None:
    bench = Bench(endpoint=Endpoint(codes(lambda each: code if each == key(1) else 200)))
    messages = bench.work(resize(key(1), key(2), request="req-of-the-user"))
    ((deferred, step),) = bench.lanes.deferred
    assert (deferred.key, deferred.attempts, deferred.first_seen) == (key(1), 1, 1000.0)
    assert (deferred.reason, deferred.origin.carried, step) == (reason, "req-of-the-user", SlowDelay.SHORT)
    assert all(message.acked for message in messages)
    (record,) = bench.audit.of(AuditEvent.DEFERRED)
    assert (record.reason, record.data) == (reason.value, {"step": "30s", "answered": 1})
    assert bench.count("deferred_total", reason=reason.value) == 1
    assert bench.lanes.parked == []


@pytest.mark.parametrize(("code", "reason"), SLOW_CODES)
def test_where_there_is_no_slow_lane_it_is_parked_and_says_so(code: int, reason: Reason) -> None:
    bench = Bench(endpoint=Endpoint(codes(lambda each: code)), lanes=Lanes(slow=False))
    (message,) = bench.work(resize(key(1)))
    (parked,) = bench.lanes.parked
    assert (parked.reason, parked.mark) == (reason, Reason.NO_SLOW_LANE)
    assert message.acked


def due(each: ExtendKey, *, attempts: int = 1, first_seen: float = 1000.0) -> bytes:
    """A message that comes back from the slow lane."""
    return Deferred(
        key=each,
        origin=Origin(request_id="req-of-the-user"),
        first_seen=first_seen,
        attempts=attempts,
        reason=Reason.EVENT_UNKNOWN_SERVER,
    ).to_wire()


@pytest.mark.parametrize(
    ("attempts", "age", "step"),
    [
        (1, 30, SlowDelay.MIDDLE),
        (2, 150, SlowDelay.LONG),
        (3, 750, SlowDelay.LONG),
        (7, 3599, SlowDelay.LONG),
        (3, 9999, SlowDelay.LONG),  # an hour with the endpoint away is no answer
        (4, 3600, None),
        (9, 3600, None),
    ],
)
def test_an_event_from_the_slow_lane_waits_longer_each_time_and_is_parked_when_both_limits_are_reached(
    attempts: int, age: float, step: SlowDelay | None
) -> None:
    bench = Bench(endpoint=Endpoint(codes(lambda each: 404)), due=True, now=1000.0 + age)
    (message,) = bench.work(due(key(1), attempts=attempts))
    assert message.acked
    assert [taken for _, taken in bench.lanes.deferred] == ([step] if step else [])
    assert [parked.attempts for parked in bench.lanes.parked] == ([] if step else [attempts + 1])
    for deferred, _ in bench.lanes.deferred:
        assert (deferred.attempts, deferred.first_seen) == (attempts + 1, 1000.0)
        assert deferred.origin.carried == "req-of-the-user"


def test_an_event_from_the_slow_lane_that_is_taken_is_done() -> None:
    bench = Bench(due=True)
    (message,) = bench.work(due(key(1)))
    assert message.acked
    assert bench.sent() == [key(1)]
    assert (bench.lanes.deferred, bench.lanes.parked) == ([], [])
    ((_, sent_as),) = bench.endpoint.requests
    assert sent_as == "req-of-the-user"


def test_what_somebody_else_put_into_the_slow_lane_is_kept_as_it_came() -> None:
    bench = Bench(due=True)
    messages = bench.work(b"junk", due(key(1)))
    assert bench.lanes.raw == [(b"junk", Reason.NOT_OUR_FORM)]
    assert bench.sent() == [key(1)]
    assert all(message.acked for message in messages)


def away(events: Sequence[ExtendKey]) -> NoAnswer:
    return NoAnswer(Reason.UNREACHABLE)


AT_ONCE = replace(LIMITS, hold=0)


@pytest.mark.parametrize("first_attempts", [0, 3])
def test_held_for_too_long_all_that_is_in_hand_goes_into_the_slow_lane_and_the_time_costs_it_no_attempt(
    first_attempts: int,
) -> None:
    bench = Bench(endpoint=Endpoint(away), limits=AT_ONCE, due=first_attempts > 0)
    bodies = [due(key(n), attempts=first_attempts) if first_attempts else resize(key(n)) for n in range(6)]
    messages = bench.work(*bodies)
    assert all(message.acked for message in messages)
    assert [(d.key, d.attempts, d.reason, step) for d, step in bench.lanes.deferred] == [
        (key(n), first_attempts, Reason.UNREACHABLE, SlowDelay.SHORT) for n in range(6)
    ]
    assert len(bench.endpoint.requests) == 1, "the second batch is not tried on an endpoint known to be away"
    assert bench.away is not None
    assert (bench.away.reason, bench.away.key) == (Reason.UNREACHABLE, key(0))
    assert not bench.health.checks()["listener.endpoint"].ok
    assert len(bench.audit.of(AuditEvent.DEFERRED)) == 6


def test_an_endpoint_that_comes_back_within_the_hold_has_everything_and_the_slow_lane_nothing() -> None:
    bench = Bench(endpoint=Endpoint(away, away, ALL_WELL))
    bench.work(resize(key(1)))
    assert bench.away is None
    assert bench.lanes.deferred == []


def test_an_endpoint_that_wants_us_to_wait_for_longer_than_the_hold_is_not_waited_for_in_full() -> None:
    bench = Bench(endpoint=Endpoint(lambda events: Answer(status=503, retry_after=600.0), ALL_WELL))
    waits: list[float] = []
    bench.bus.waits = waits.append
    bench.work(resize(key(1)))
    assert [wait <= LIMITS.hold for wait in waits] == [True]


def test_while_the_slow_lane_is_away_too_whichever_is_back_first_has_the_event() -> None:
    bench = Bench(endpoint=Endpoint(away, away, ALL_WELL), lanes=Lanes(failures=99), limits=AT_ONCE)
    (message,) = bench.work(resize(key(1)))
    assert message.acked
    assert bench.lanes.deferred == []
    assert bench.sent()[-1] == key(1)
    other = Bench(endpoint=Endpoint(away), lanes=Lanes(failures=2), limits=AT_ONCE)
    (message,) = other.work(resize(key(1)))
    assert message.acked
    assert [deferred.key for deferred, _ in other.lanes.deferred] == [key(1)]


def test_what_comes_while_the_endpoint_is_away_is_put_aside_without_asking_it() -> None:
    bench = Bench(endpoint=Endpoint(away), limits=AT_ONCE)
    bench.work(resize(key(1)))
    assert bench.away is not None
    messages = [Message(n, body) for n, body in enumerate([NOISE, resize(key(2), key(3))], 1)]
    bench.worker.put_aside(messages, bench.away, bench.bus, bench.stop)
    assert all(message.acked for message in messages)
    assert [deferred.key for deferred, _ in bench.lanes.deferred] == [key(1), key(2), key(3)]
    assert len(bench.endpoint.requests) == 1


def test_the_endpoint_is_asked_again_with_one_event_until_it_answers_whatever_that_is() -> None:
    told: Answering = lambda events: Answer(status=503, retry_after=7.0)  # noqa: E731
    bench = Bench(endpoint=Endpoint(away, away, told, codes(lambda each: 404)), limits=AT_ONCE)
    bench.work(resize(key(1)), resize(key(2)))
    first = bench.away
    assert first is not None
    second = bench.worker.still_away(first)
    assert second is not None
    third = bench.worker.still_away(second)
    assert third is not None
    assert (second.after, third.after, third.reason) == (None, 7.0, Reason.TOLD_TO_WAIT)
    assert bench.worker.still_away(third) is None
    assert [len(events) for events, _ in bench.endpoint.requests] == [2, 1, 1, 1]
    assert bench.health.checks()["listener.endpoint"].ok
    (record,) = bench.audit.of(AuditEvent.POSTED)
    assert (record.server, record.reason) == (key(1).server_id, "event_unknown_server")
    assert len(bench.lanes.deferred) == 2, "what it says of the event changes nothing: it is in the slow lane"


def test_an_endpoint_that_hides_every_server_is_tried_with_what_comes_next() -> None:
    bench = Bench(endpoint=Endpoint(codes(lambda each: 404)), limits=replace(AT_ONCE, batch=20))
    bench.work(*(resize(key(n)) for n in range(10)))
    assert bench.away is not None
    assert bench.away.reason is Reason.ALL_HIDDEN
    assert bench.worker.still_away(bench.away) is None
    assert not bench.health.checks()["listener.endpoint"].ok, "the alarm stands until an answer says otherwise"


def test_a_parked_form_holds_ids_and_a_reason_and_nothing_else() -> None:
    bench = Bench(endpoint=Endpoint(codes(lambda each: 400)))
    bench.work(recorded("one_server"))
    wire = json.loads(bench.lanes.parked[0].to_wire(2000.0))
    assert set(wire) == {
        "version", "reason", "mark", "volume_id", "server_id", "first_seen", "parked_at", "attempts", "message_id",
        "project", "request_id", "global_request_id", "sent", "traceparent",
    }  # fmt: skip
    assert (wire["version"], wire["reason"], wire["parked_at"]) == (1, "event_bad", 2000.0)


@pytest.mark.parametrize("body", [b"garbage", resize(key(1))])
def test_what_cannot_be_kept_is_tried_until_it_can_and_acknowledged_only_then(body: bytes) -> None:
    bench = Bench(endpoint=Endpoint(codes(lambda each: 400)), lanes=Lanes(failures=3))
    message = Message(1, body)
    seen: list[bool] = []
    bench.bus.waits = lambda seconds: seen.append(message.acked or bench.health.checks()["listener.lanes"].ok)
    bench.worker.work([message], bench.bus, bench.stop)
    assert seen == [False] * 2  # the second try is when all that needs no lane is done
    assert message.acked
    assert len(bench.lanes.parked) + len(bench.lanes.raw) == 1
    assert bench.health.checks()["listener.lanes"].ok


def test_the_word_about_the_lanes_ends_where_nothing_is_put_into_them_and_nobody_looks() -> None:
    clock = [100.0]
    health = Health(clock=lambda: clock[0])
    telemetry = Telemetry(Audit(), ListenerMetrics(CollectorRegistry()))
    LaneWriter(Lanes(), health=health, check="lanes", telemetry=telemetry)
    clock[0] += LIMIT
    assert health.checks()["lanes"].ok
    clock[0] += 1
    assert not health.checks()["lanes"].ok


def test_a_lane_that_is_away_does_not_stop_what_needs_none() -> None:
    refuses_one = codes(lambda each: 400 if each == key(1) else 200)
    bench = Bench(endpoint=Endpoint(refuses_one), lanes=Lanes(failures=5))
    messages = [Message(n, body) for n, body in enumerate([b"garbage", resize(key(1)), resize(key(2)), NOISE], 1)]
    acked: list[list[bool]] = []
    bench.bus.waits = lambda seconds: acked.append([message.acked for message in messages])
    bench.worker.work(messages, bench.bus, bench.stop)
    assert acked[0] == [False, False, True, True]
    assert all(message.acked for message in messages)
    assert [reason for _, reason in bench.lanes.raw] == [Reason.NOT_JSON]
    assert [parked.server_id for parked in bench.lanes.parked] == [key(1).server_id]


@pytest.mark.parametrize("away", ["endpoint", "lanes"])
def test_told_to_stop_while_something_is_away_leaves_what_is_in_hand_to_the_broker(away: str) -> None:
    bench = (
        Bench(endpoint=Endpoint(lambda events: NoAnswer(Reason.UNREACHABLE)))
        if away == "endpoint"
        else Bench(endpoint=Endpoint(codes(lambda each: 400)), lanes=Lanes(failures=99))
    )
    bench.bus.waits = lambda seconds: bench.stop.set()
    message = Message(1, resize(key(1)))
    with pytest.raises(ShuttingDownError):
        bench.worker.work([message], bench.bus, bench.stop)
    assert not message.acked


PLAN = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    plan=PLAN,
    fate=st.fixed_dictionaries({n: st.sampled_from([200, 400, 404, 422, 418]) for n in range(6)}),
    moods=st.lists(st.sampled_from(["well", "away", "broken", "large", "told"]), max_size=12),
    lane_failures=st.integers(0, 3),
    hold=st.sampled_from([0, 60]),
)
def test_whatever_the_endpoint_does_each_event_ends_once_per_message_and_all_are_acknowledged(
    plan: list[list[int]], fate: dict[int, int], moods: list[str], lane_failures: int, hold: float
) -> None:
    by_key = {key(n): code for n, code in fate.items()}
    mood = {
        "well": codes(lambda each: by_key[each]),
        "away": lambda events: NoAnswer(Reason.UNREACHABLE),
        "broken": lambda events: Answer(status=500) if len(events) > 1 else Answer(status=502),
        "large": lambda events: Answer(status=413) if len(events) > 1 else codes(lambda e: by_key[e])(events),
        "told": lambda events: Answer(status=429, retry_after=0.0),
    }
    bench = Bench(
        endpoint=Endpoint(*(mood[name] for name in moods), mood["well"]),
        lanes=Lanes(failures=lane_failures),
        limits=replace(LIMITS, hold=hold),
    )
    messages = bench.work(*(resize(*(key(n) for n in numbers)) for numbers in plan))
    assert all(message.acked for message in messages)
    wanted = Counter(key(n) for numbers in plan for n in numbers)
    delivered = Counter(
        ExtendKey(str(r.server), str(r.volume))
        for r in bench.audit.of(AuditEvent.POSTED)
        if r.outcome == "delivered"
    )
    parked = Counter(ExtendKey(str(p.server_id), str(p.volume_id)) for p in bench.lanes.parked)
    deferred = Counter(each.key for each, _ in bench.lanes.deferred)
    assert delivered + parked + deferred == wanted
    assert all(by_key[each] == 200 for each in delivered)
    assert all(by_key[each] == 400 for each in parked)
    if hold:
        assert not any(by_key[each] in {200, 400} for each in deferred)
