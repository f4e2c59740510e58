# SPDX-License-Identifier: Apache-2.0
"""One event per distinct attached server; each row that gives none has its reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.notification import Origin, ResizeEnd, Row, parse, translate
from tests.unit.listener.messages import recorded

VOLUME = "b953ff75-3e6a-47b0-a57e-fa3e1ca311ad"
ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"


def end(*rows: Row) -> ResizeEnd:
    return ResizeEnd(volume_id=VOLUME, size=2, rows=rows, origin=Origin())


def row(server_id: str | None, *, attached: bool = True, readable: bool = True) -> Row:
    return Row(server_id=server_id, attached=attached, readable=readable)


TABLE = {
    "nothing attached": ([], [], [Reason.NOT_ATTACHED]),
    "one server": ([row(ONE)], [ONE], []),
    "two servers (multiattach)": ([row(ONE), row(TWO)], [ONE, TWO], []),
    "two rows of one server": ([row(ONE), row(ONE)], [ONE], [Reason.SAME_SERVER]),
    "rows of one server with another between": (
        [row(ONE), row(TWO), row(ONE)],
        [ONE, TWO],
        [Reason.SAME_SERVER],
    ),
    "Glance's image cache": ([row(None)], [], [Reason.NO_SERVER]),
    "a server beside Glance's image cache": ([row(None), row(ONE)], [ONE], [Reason.NO_SERVER]),
    "a reserved row only": ([row(ONE, attached=False)], [], [Reason.ROW_NOT_ATTACHED]),
    "a reserved row before the attached one of a server": (
        [row(ONE, attached=False), row(ONE)],
        [ONE],
        [Reason.ROW_NOT_ATTACHED],
    ),
    "an unreadable row beside a server": ([row(None, readable=False), row(ONE)], [ONE], [Reason.BAD_ROW]),
}


@pytest.mark.parametrize(("rows", "servers", "skipped"), TABLE.values(), ids=TABLE)
def test_rows_become_events(rows: list[Row], servers: list[str], skipped: list[Reason]) -> None:
    translation = translate(end(*rows))
    assert translation.events == tuple(ExtendKey(server, VOLUME) for server in servers)
    assert list(translation.skipped) == skipped


def test_the_recorded_multiattach_volume_gives_two_events_where_cinder_itself_sends_three() -> None:
    read = parse(recorded("multiattach"), max_bytes=1 << 20, max_rows=10)
    assert isinstance(read, ResizeEnd)
    translation = translate(read)
    assert [key.server_id for key in translation.events] == [
        "38e4617e-6915-4528-8f62-6bc65c4cf0e7",
        "407946e6-cf9b-404c-a1b9-62c56c8ea88f",
    ]
    assert translation.skipped == (Reason.SAME_SERVER,)


ROWS = st.builds(Row, server_id=st.sampled_from([None, ONE, TWO]), attached=st.booleans(), readable=st.booleans())


@given(st.lists(ROWS, max_size=8))
def test_every_row_is_an_event_or_has_a_reason(rows: list[Row]) -> None:
    translation = translate(end(*rows))
    assert len(translation.events) + len(translation.skipped) == max(1, len(rows))
    assert {key.server_id for key in translation.events} == {
        r.server_id for r in rows if r.readable and r.attached and r.server_id is not None
    }
    assert len(set(translation.events)) == len(translation.events)
