# SPDX-License-Identifier: Apache-2.0
"""The trace context of an extend: what is taken, what is made, how it goes by HTTP."""

import pytest

from bridge.core.extend import (
    EACH_HEADER,
    HEADER,
    ExtendKey,
    clean_traceparent,
    headers_of,
    made_by,
    read_headers,
    root_span,
    span_id,
    trace_id,
)
from bridge.core.messages import Order, Report
from listener.lanes import Deferred, read_deferred
from listener.notification import Origin
from tests.fixtures.messages.v1 import snapshot
from tests.unit.core.test_messages import ORDER, REPORT
from tests.unit.listener.test_lanes_deferred import NOW, WHOLE

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-00"


@pytest.mark.parametrize(
    "text",
    [
        None, 7, "", "x", TRACE.upper(), TRACE + "\n", f" {TRACE}", TRACE[:-1], f"{TRACE}-more", f"ff{TRACE[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        TRACE + "-" * 300,
    ],
)  # fmt: skip
def test_what_is_not_a_traceparent_is_none(text: object) -> None:
    assert clean_traceparent(text) is None


def test_a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert clean_traceparent(TRACE) == TRACE
    assert clean_traceparent(f"42{TRACE[2:]}-what-comes") == TRACE


def test_a_made_trace_is_found_by_the_users_request_id_and_shows_who_made_it() -> None:
    made = made_by("listener", "req-d98c7de4-5ebc-4c0e-ade3-522577449fa1")
    assert clean_traceparent(made) == made
    assert trace_id(made) == "d98c7de45ebc4c0eade3522577449fa1"
    assert span_id(made) == root_span("listener", trace_id(made)) != root_span("api", trace_id(made))


@pytest.mark.parametrize("request_id", [None, "mine", "req-00000000-0000-0000-0000-000000000000", "req-1"])
def test_any_request_id_makes_a_valid_trace(request_id: str | None) -> None:
    made = made_by("api", request_id)
    assert clean_traceparent(made) == made
    assert (made_by("api", request_id) == made) is (request_id is not None)


def test_events_of_one_trace_share_the_standard_header() -> None:
    assert headers_of("ab", {"a": TRACE, "b": TRACE}, each=True) == {HEADER: TRACE}
    assert headers_of("ab", {}, each=True) == {}
    assert read_headers((TRACE, None), 2) == [TRACE, TRACE]
    assert read_headers(("junk", None), 1) == [None]


def test_events_of_several_traces_are_named_one_by_one_where_that_was_asked_for() -> None:
    traces = {"a": TRACE, "c": OTHER}
    assert headers_of("abc", traces, each=False) == {}
    headers = headers_of("abc", traces, each=True)
    assert read_headers((None, headers[EACH_HEADER]), 3) == [TRACE, None, OTHER]


def test_a_header_never_outgrows_a_small_server_and_the_rest_of_the_events_goes_without() -> None:
    events = range(100)
    traces = {n: made_by("listener", f"req-{n}") for n in events}
    (header,) = headers_of(events, traces, each=True).values()
    assert len(header) < 2048
    read = read_headers((None, header), 100)
    assert read[0] == traces[0]
    assert read[-1] is None


@pytest.mark.parametrize("header", ["", ",", "," * 5000, f"{TRACE},junk", "é"])
def test_a_strange_header_names_as_many_events_as_there_are(header: str) -> None:
    assert len(read_headers((None, header), 3)) == 3


def test_order_report_and_lane_carry_the_trace_and_the_release_before_reads_them() -> None:
    order, report = ORDER.to_wire() | {"traceparent": TRACE}, REPORT.to_wire() | {"traceparent": TRACE}
    assert Order.from_wire(order).traceparent == Report.from_wire(report).traceparent == TRACE
    assert Order.from_wire(order).to_wire() == order
    assert Report.from_wire(report).to_wire() == report
    assert snapshot.Order.from_wire(order).attempt_id == ORDER.attempt_id
    assert snapshot.Report.from_wire(report).attempt_id == REPORT.attempt_id
    deferred = Deferred(
        key=ExtendKey(WHOLE.key.server_id, WHOLE.key.volume_id), origin=Origin(traceparent=TRACE), first_seen=NOW,
        attempts=1, reason=WHOLE.reason,
    )  # fmt: skip
    read = read_deferred(deferred.to_wire(), NOW)
    assert read is not None
    assert read.origin.traceparent == TRACE


@pytest.mark.parametrize("text", ["junk", 7, None])
def test_a_message_with_a_strange_trace_is_read_without_it(text: object) -> None:
    assert Order.from_wire(ORDER.to_wire() | {"traceparent": text}).traceparent is None
    assert Report.from_wire(REPORT.to_wire() | {"traceparent": text}).traceparent is None
