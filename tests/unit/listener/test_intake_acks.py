# SPDX-License-Identifier: Apache-2.0
"""Whatever the order of settling, the broker is never told of a message that is not settled."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.batch import Acks


class Channel:
    """The broker's side of acknowledgements, multiple ones as AMQP has them."""

    def __init__(self) -> None:
        self.acked: set[int] = set()
        self.told = 0

    def ack(self, tag: int, *, multiple: bool) -> None:
        assert tag not in self.acked, "acknowledged twice: the broker would close the channel"
        self.told += 1
        self.acked |= set(range(1, tag + 1)) if multiple else {tag}


@dataclass(frozen=True)
class Message:
    delivery_tag: int
    channel: Channel

    def ack(self, multiple: bool = False) -> None:
        self.channel.ack(self.delivery_tag, multiple=multiple)


@given(st.integers(1, 12).flatmap(lambda n: st.permutations(range(n))), st.booleans(), st.data())
def test_what_is_acknowledged_is_exactly_what_is_settled(
    order: list[int], multiple: bool, data: st.DataObject
) -> None:
    channel = Channel()
    messages = [Message(n + 1, channel) for n in range(len(order))]
    acks = Acks(messages, multiple=multiple)
    settled: set[int] = set()
    for n in order:
        acks.settle(messages[n])
        settled.add(n + 1)
        if data.draw(st.booleans()):
            acks.flush()
            assert channel.acked == settled
            assert acks.left == len(order) - len(settled)
    acks.flush()
    assert channel.acked == settled
    assert acks.left == 0


@pytest.mark.parametrize(("multiple", "told"), [(True, 1), (False, 100)])
def test_a_run_of_settled_messages_is_acknowledged_at_once_where_the_broker_can(multiple: bool, told: int) -> None:
    channel = Channel()
    messages = [Message(n, channel) for n in range(1, 101)]
    acks = Acks(messages, multiple=multiple)
    for message in messages:
        acks.settle(message)
    acks.flush()
    assert channel.told == told


def test_no_ack_is_sent_while_no_message_is_settled() -> None:
    channel = Channel()
    acks = Acks([Message(1, channel)], multiple=True)
    acks.flush()
    assert channel.told == 0
