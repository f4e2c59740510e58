# SPDX-License-Identifier: Apache-2.0
"""The POST around its decisions: commit first, one arrival per disk, a record of every end."""

import json
import logging

import pytest

from bridge.core.audit import AuditEvent
from bridge.core.extend import ExtendKey
from tests.unit.api.fakes import NO_HOST, ON_HOST, ON_HOST_2, PATH, UNKNOWN, VOLUME, VOLUME_2, Api, event


def test_an_accepted_event_is_in_the_journal_with_both_request_ids() -> None:
    """Ours from the answer, the caller's from its header."""
    api = Api()
    answer = api.post(event(), headers={"X-OpenStack-Request-ID": "req-of-the-user"})
    (arrival,) = api.journal.accepted
    assert arrival.key == ExtendKey(ON_HOST, VOLUME)
    assert arrival.request_id == answer.headers["x-openstack-request-id"] == answer.headers["x-compute-request-id"]
    assert arrival.global_request_id == "req-of-the-user"
    assert api.woken == 1


@pytest.mark.parametrize("text", ["req with blanks", "x" * 129, "req-\x1b[31m", "r\u00e9q"])
def test_a_request_id_that_could_spoil_a_log_is_dropped(text: str) -> None:
    """The event is taken all the same."""
    api = Api()
    assert api.post(event(), headers={"X-OpenStack-Request-ID": text}).status_code == 200
    assert api.journal.accepted[0].global_request_id is None


def test_a_disk_named_twice_is_answered_twice_and_opened_once() -> None:
    """Cinder sends the event twice for a server with two attachments of a volume."""
    api = Api()
    answer = api.post(event(), event(ON_HOST_2), event(tag=VOLUME.upper()), event(tag=VOLUME_2))
    assert [one["code"] for one in answer.json["events"]] == [200] * 4
    assert answer.json["events"][2]["tag"] == VOLUME.upper()
    assert api.journal.keys == [
        ExtendKey(ON_HOST, VOLUME), ExtendKey(ON_HOST_2, VOLUME), ExtendKey(ON_HOST, VOLUME_2)
    ]  # fmt: skip


def test_a_journal_that_is_away_is_503_with_retry_after_and_never_a_200() -> None:
    """Nothing was accepted, nobody is woken, no record claims it."""
    api = Api()
    api.journal.away = True
    answer = api.post(event(), event(UNKNOWN))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "7"
    assert answer.json["serviceUnavailable"]["code"] == 503
    assert "disk" not in answer.text
    assert (api.woken, api.audit.records) == (0, [])


def test_a_request_with_nothing_to_accept_needs_no_commit() -> None:
    """Its refusals are answered even while the journal cannot write."""
    api = Api()
    api.journal.away = True
    answer = api.post(event(NO_HOST), event(UNKNOWN))
    assert (answer.status_code, [one["code"] for one in answer.json["events"]]) == (207, [422, 404])
    assert api.woken == 0


def test_an_unexpected_error_shows_nothing_of_our_inside(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets Nova's 500; the log has the error under the request id."""
    api = Api()
    api.journal.broken = ZeroDivisionError("secret-of-the-journal")
    with caplog.at_level(logging.ERROR):
        answer = api.post(event())
    assert answer.status_code == 500
    assert answer.json == {
        "computeFault": {"code": 500, "message": "Unexpected API Error. Please contact the administrator"}
    }
    (line,) = caplog.records
    assert answer.headers["x-openstack-request-id"] in line.getMessage()
    assert line.exc_info


def test_every_event_leaves_a_record_with_its_reason() -> None:
    """One line per accepted disk, one per refused event; text of the caller's stays out."""
    api = Api()
    api.post(event(), event(), event(NO_HOST), event(tag="made-up\ntext"))
    assert [(r.event, r.server, r.volume, r.reason) for r in api.audit.records] == [
        (AuditEvent.ACCEPTED, ON_HOST, VOLUME, None),
        (AuditEvent.REFUSED, NO_HOST, VOLUME, "server_no_host"),
        (AuditEvent.REFUSED, ON_HOST, None, "tag_no_volume"),
    ]
    assert [r.extend_id for r in api.audit.records] == [f"extend of {VOLUME}", None, None]
    assert "made-up" not in "".join(record.to_line("api") for record in api.audit.records)


def test_events_and_requests_are_counted() -> None:
    """By code and by status."""
    api = Api()
    api.post(event(), event(), event(UNKNOWN))
    api.client.simulate_get(PATH)
    assert (api.count("events", code="200"), api.count("events", code="404")) == (2, 1)
    assert (api.count("requests", status="207"), api.count("requests", status="404")) == (1, 1)


def test_the_log_line_of_a_request_names_its_ids_and_no_body(caplog: pytest.LogCaptureFixture) -> None:
    """Constant text, ids and counts."""
    api = Api()
    with caplog.at_level(logging.INFO, logger="bridge.api"):
        answer = api.post(event(tag="planted-in-the-tag"), event())
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert answer.headers["x-openstack-request-id"] in text
    assert "planted" not in text


def test_a_body_that_broke_off_is_refused_even_if_it_reads_as_json() -> None:
    """Content-Length says how much there was to be."""
    api = Api()
    body = json.dumps({"events": [event()]})
    answer = api.client.simulate_post(
        PATH, body=body, headers={"OpenStack-API-Version": "compute 2.51", "Content-Length": str(len(body) + 10)}
    )
    assert answer.status_code == 400
    assert api.journal.accepted == []
