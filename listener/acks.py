# SPDX-License-Identifier: Apache-2.0
"""Acknowledgements of one gather: as few as the order of settling allows, none before its message is settled."""

from collections.abc import Sequence

import kombu


class Acks:
    """The messages of one gather, in the order they came on their channel.

    With `multiple` the broker is told once for all up to the watermark: the last message before the first that is
    not settled. A settled one behind the watermark is acknowledged on its own. All that came before this gather
    must be acknowledged already.
    """

    def __init__(self, messages: Sequence[kombu.Message], *, multiple: bool) -> None:
        self._open = list(messages)
        self._settled: set[object] = set()
        self._multiple = multiple

    def settle(self, message: kombu.Message) -> None:
        """Each event of the message has its verdict or lies safely in a lane of ours."""
        self._settled.add(message.delivery_tag)

    def flush(self) -> None:
        """Acknowledge what is settled."""
        watermark = next(
            (n for n, message in enumerate(self._open) if message.delivery_tag not in self._settled),
            len(self._open),
        )
        below, beyond = self._open[:watermark], self._open[watermark:]
        if self._multiple and below:
            below[-1].ack(multiple=True)
        else:
            for message in below:
                message.ack()
        for message in beyond:
            if message.delivery_tag in self._settled:
                message.ack()
        self._open = [message for message in beyond if message.delivery_tag not in self._settled]

    @property
    def left(self) -> int:
        """Messages not yet acknowledged."""
        return len(self._open)
