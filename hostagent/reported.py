# SPDX-License-Identifier: Apache-2.0
"""From the work on an order to its report, whatever happens in between."""

import logging
from collections.abc import Sequence
from typing import Protocol

from bridge.core.extend import Bytes
from bridge.core.messages import Order, Report, Step
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.failure import StoppedError

LOG = logging.getLogger(__name__)


class Work(Protocol):
    """What is done for one order, and how far it came."""

    @property
    def before(self) -> Bytes | None:
        """The guest's size when it was first looked at."""

    @property
    def after(self) -> Bytes | None:
        """The guest's size when it was last looked at."""

    @property
    def steps(self) -> Sequence[Step]:
        """So far."""

    def run(self) -> tuple[Outcome, Reason]:
        """Do it: the outcome of an order that came to an end of its own; every other end is raised."""


def reported(order: Order, work: Work) -> Report:
    """Do the work. Never raises: what has no name yet becomes `error`, and its traceback is logged."""
    detail = ""
    try:
        outcome, reason = work.run()
    except StoppedError as ex:
        outcome, reason, detail = ex.outcome, ex.reason, ex.detail
    except Exception as ex:
        LOG.exception("server %s volume %s: the order failed", order.key.server_id, order.key.volume_id)
        outcome, reason, detail = Outcome.ERROR, Reason.UNCERTAIN, type(ex).__name__
    return Report(
        attempt_id=order.attempt_id,
        key=order.key,
        gen=order.gen,
        outcome=outcome,
        reason=reason.value,
        target=order.target,
        before=work.before,
        after=work.after,
        detail=detail,
        steps=tuple(work.steps),
    )
