# SPDX-License-Identifier: Apache-2.0
"""The table of what an answer means for the events of a request, row by row."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.rest import Answer, NoAnswer
from listener.verdicts import MANY, Hold, Judgement, Kind, Settle, Split, Verdict, judge

VOLUME = "b953ff75-3e6a-47b0-a57e-fa3e1ca311ad"


def keys(count: int) -> list[ExtendKey]:
    return [ExtendKey(f"00000000-0000-4000-8000-{n:012d}", VOLUME) for n in range(count)]


ONE = keys(1)
TWO = keys(2)
CROWD = keys(MANY)
TAKEN = Verdict(Kind.DELIVERED, Reason.DELIVERED)


def told(sent: Sequence[ExtendKey], *codes: Any) -> Any:
    """A body as Nova writes it; a code that is ... is left out."""
    rows: list[dict[str, Any]] = [
        {"name": "volume-extended", "server_uuid": key.server_id, "tag": key.volume_id, "status": "completed"}
        | ({} if code is ... else {"code": code})
        for key, code in zip(sent, codes, strict=True)
    ]
    return {"events": rows}


ITEM_NOT_FOUND = {"itemNotFound": {"code": 404, "message": "No instances found for any event"}}
NOT_THE_URL = {"message": "The resource could not be found.", "code": "404 Not Found", "title": "Not Found"}

PER_EVENT = {
    "200: delivered": (200, Kind.DELIVERED, Reason.DELIVERED),
    "404: the server may come to be known: slow": (404, Kind.SLOW, Reason.EVENT_UNKNOWN_SERVER),
    "422: the server may come to have a host: slow": (422, Kind.SLOW, Reason.EVENT_NO_HOST),
    "400: it stays bad: parked": (400, Kind.PARK, Reason.EVENT_BAD),
    "a code nobody defines: slow": (503, Kind.SLOW, Reason.EVENT_OTHER_CODE),
    "no code: slow": (..., Kind.SLOW, Reason.EVENT_NO_CODE),
    "a code that is null: slow": (None, Kind.SLOW, Reason.EVENT_NO_CODE),
    "a code that is a string: slow": ("200", Kind.SLOW, Reason.EVENT_NO_CODE),
    "a code that is true: slow": (True, Kind.SLOW, Reason.EVENT_NO_CODE),
    "a code that is a float: slow": (200.0, Kind.SLOW, Reason.EVENT_NO_CODE),
}


@pytest.mark.parametrize("status", [200, 202, 207])
@pytest.mark.parametrize(("code", "kind", "reason"), PER_EVENT.values(), ids=PER_EVENT)
def test_the_code_of_each_event_decides_whatever_the_status_says(
    status: int, code: Any, kind: Kind, reason: Reason
) -> None:
    judgement = judge(TWO, Answer(status=status, body=told(TWO, code, 200)))
    assert judgement == Settle({TWO[0]: Verdict(kind, reason), TWO[1]: TAKEN})


REQUESTS: dict[str, tuple[Sequence[ExtendKey], Answer | NoAnswer, Judgement]] = {
    "400 for a batch: one of them is bad, split": (
        TWO, Answer(status=400), Split(Reason.BATCH_REFUSED),
    ),
    "400 alone: parked": (
        ONE, Answer(status=400), Settle({ONE[0]: Verdict(Kind.PARK, Reason.REQUEST_BAD)}),
    ),
    "500 for a batch: one of them breaks it (a dead cell), split": (
        TWO, Answer(status=500), Split(Reason.BATCH_REFUSED),
    ),
    "500 alone: slow": (
        ONE, Answer(status=500), Settle({ONE[0]: Verdict(Kind.SLOW, Reason.REQUEST_FAILED)}),
    ),
    "404 itemNotFound (Nova < 21) for a batch: split": (
        TWO, Answer(status=404, body=ITEM_NOT_FOUND), Split(Reason.BATCH_REFUSED),
    ),
    "404 itemNotFound alone: as a 404 for the event": (
        ONE, Answer(status=404, body=ITEM_NOT_FOUND),
        Settle({ONE[0]: Verdict(Kind.SLOW, Reason.EVENT_UNKNOWN_SERVER)}),
    ),
    "413 for a batch: halved": (
        TWO, Answer(status=413), Split(Reason.BATCH_REFUSED),
    ),
    "413 alone: parked": (
        ONE, Answer(status=413), Settle({ONE[0]: Verdict(Kind.PARK, Reason.REQUEST_TOO_LARGE)}),
    ),
    "an event missing in the answer: slow": (
        TWO, Answer(status=207, body=told(ONE, 200)),
        Settle({TWO[0]: TAKEN, TWO[1]: Verdict(Kind.SLOW, Reason.EVENT_NO_CODE)}),
    ),
    "an answer in another order": (
        TWO, Answer(status=207, body=told(TWO[::-1], 422, 200)),
        Settle({TWO[0]: TAKEN, TWO[1]: Verdict(Kind.SLOW, Reason.EVENT_NO_HOST)}),
    ),
    "ids in upper case in the answer": (
        ONE, Answer(status=200, body={"events": [
            {"server_uuid": ONE[0].server_id.upper(), "tag": VOLUME.upper(), "code": 200}]}),
        Settle({ONE[0]: TAKEN}),
    ),
    "an answer for another volume of the server: slow": (
        ONE, Answer(status=200, body={"events": [
            {"server_uuid": ONE[0].server_id, "tag": "another", "code": 200}]}),
        Settle({ONE[0]: Verdict(Kind.SLOW, Reason.EVENT_NO_CODE)}),
    ),
    "404 for every event of many servers: the role hides them, held": (
        CROWD, Answer(status=207, body=told(CROWD, *[404] * MANY)), Hold(Reason.ALL_HIDDEN),
    ),
    "401, also with a new token: held": (ONE, Answer(status=401), Hold(Reason.UNAUTHORIZED)),
    "403: held": (ONE, Answer(status=403), Hold(Reason.FORBIDDEN)),
    "404 of the URL, as WebOb words it: held": (
        ONE, Answer(status=404, body=NOT_THE_URL), Hold(Reason.WRONG_URL),
    ),
    "404 in HTML: held": (ONE, Answer(status=404, body=None), Hold(Reason.WRONG_URL)),
    "405: held": (ONE, Answer(status=405), Hold(Reason.WRONG_URL)),
    "406: held": (ONE, Answer(status=406), Hold(Reason.WRONG_VERSION)),
    "429 with Retry-After: as told": (
        ONE, Answer(status=429, retry_after=7.0), Hold(Reason.TOLD_TO_WAIT, 7.0),
    ),
    "503 with Retry-After: as told": (
        ONE, Answer(status=503, retry_after=7.0), Hold(Reason.TOLD_TO_WAIT, 7.0),
    ),
    "429 without Retry-After: held": (ONE, Answer(status=429), Hold(Reason.TOLD_TO_WAIT)),
    "502: held": (ONE, Answer(status=502), Hold(Reason.UNAVAILABLE)),
    "503: held": (ONE, Answer(status=503), Hold(Reason.UNAVAILABLE)),
    "504: held": (ONE, Answer(status=504), Hold(Reason.UNAVAILABLE)),
    "a Retry-After of 502 is not asked for": (
        ONE, Answer(status=502, retry_after=7.0), Hold(Reason.UNAVAILABLE),
    ),
    "a redirect: held": (ONE, Answer(status=301), Hold(Reason.UNEXPECTED_STATUS)),
    "300 multiple choices (no /v2.1 in the URL): held": (ONE, Answer(status=300), Hold(Reason.UNEXPECTED_STATUS)),
    "a status nobody defines: held": (ONE, Answer(status=418), Hold(Reason.UNEXPECTED_STATUS)),
    "200 without JSON: held": (ONE, Answer(status=200, body=None), Hold(Reason.BAD_ANSWER)),
    "200 with a list: held": (ONE, Answer(status=200, body=[]), Hold(Reason.BAD_ANSWER)),
    "200 whose events are no list: held": (ONE, Answer(status=200, body={"events": {}}), Hold(Reason.BAD_ANSWER)),
    "nobody connects: held": (ONE, NoAnswer(Reason.UNREACHABLE), Hold(Reason.UNREACHABLE)),
    "no answer in time, which may have been carried out: held": (
        ONE, NoAnswer(Reason.TIMED_OUT), Hold(Reason.TIMED_OUT),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "answer", "judgement"), REQUESTS.values(), ids=REQUESTS)
def test_each_answer_gives_a_verdict_for_each_event(
    sent: Sequence[ExtendKey], answer: Answer | NoAnswer, judgement: Judgement
) -> None:
    assert judge(sent, answer) == judgement


def test_404_for_every_event_of_a_few_servers_is_about_the_servers() -> None:
    few = keys(MANY - 1)
    judgement = judge(few, Answer(status=207, body=told(few, *[404] * len(few))))
    assert judgement == Settle({key: Verdict(Kind.SLOW, Reason.EVENT_UNKNOWN_SERVER) for key in few})


def test_404_for_many_volumes_of_one_server_is_about_the_server() -> None:
    volumes = [ExtendKey(ONE[0].server_id, key.server_id) for key in keys(2 * MANY)]
    assert isinstance(judge(volumes, Answer(status=207, body=told(volumes, *[404] * len(volumes)))), Settle)


def test_one_server_that_is_known_among_many_that_are_not_shows_that_nothing_is_hidden() -> None:
    judgement = judge(CROWD, Answer(status=207, body=told(CROWD, 200, *[404] * (MANY - 1))))
    assert isinstance(judgement, Settle)
    assert judgement.verdicts[CROWD[0]].kind is Kind.DELIVERED


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=6,
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "server_uuid": st.sampled_from([key.server_id for key in CROWD]) | ANY,
        "tag": st.just(VOLUME) | ANY,
        "code": st.sampled_from([200, 400, 404, 422, 500]) | ANY,
    },
)
BODY = ANY | st.fixed_dictionaries({"events": st.lists(ROW | ANY, max_size=2 * MANY)}) | st.just(ITEM_NOT_FOUND)


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, MANY),
    status=st.sampled_from([200, 207, 400, 404, 413, 500, 503]) | st.integers(100, 599),
    body=BODY,
    retry_after=st.none() | st.floats(0, 600),
)
def test_any_answer_gives_a_value_that_covers_what_was_sent_and_nothing_is_delivered_without_its_200(
    count: int, status: int, body: Any, retry_after: float | None
) -> None:
    sent = CROWD[:count]
    judgement = judge(sent, Answer(status=status, body=body, retry_after=retry_after))
    assert isinstance(judgement, Settle | Split | Hold)
    if isinstance(judgement, Split):
        assert count > 1, "one event alone cannot be split"
    if isinstance(judgement, Settle):
        assert set(judgement.verdicts) == set(sent)
        for key, verdict in judgement.verdicts.items():
            if verdict.kind is Kind.DELIVERED:
                assert status in {200, 202, 207}
                assert any(
                    isinstance(row, dict)
                    and (row.get("server_uuid"), row.get("tag"), row.get("code")) == (key.server_id, VOLUME, 200)
                    for row in body["events"]
                )
