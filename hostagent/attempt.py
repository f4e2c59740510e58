# SPDX-License-Identifier: Apache-2.0
"""From the work on an order to its report, whatever happens in between.

From an order's server and volume to the one disk that is meant, or why there is none.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.messages import GuestState, Order, Report, StepReport
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, Domain
from hostagent.errors import StepFailedError
from hostagent.ports import Hypervisor


def find_disk(hypervisor: Hypervisor, key: ExtendKey) -> tuple[Domain, Disk]:
    """The domain and its disk. Raises StoppedError, also where several disks carry the volume's id."""
    domain = hypervisor.domain(key.server_id)
    if domain is None:
        raise StepFailedError(Outcome.NOT_HERE, Reason.DOMAIN_ABSENT)
    if domain.state is GuestState.INCOMING:
        raise StepFailedError(Outcome.NOT_HERE, Reason.DOMAIN_INCOMING)
    if domain.left:
        raise StepFailedError(Outcome.NOT_HERE, Reason.DOMAIN_ABSENT, "the guest has migrated to another host")
    disks = domain.disks_of(key.volume_id)
    if not disks:
        raise StepFailedError(Outcome.NOT_ATTACHED, Reason.DISK_ABSENT)
    if len(disks) > 1:
        names = ", ".join(disk.target for disk in disks)
        raise StepFailedError(
            Outcome.REFUSED, Reason.WRONG_DEVICE, f"several disks carry this volume's id: {names}"
        )
    return domain, disks[0]


LOG = logging.getLogger(__name__)


class AttemptRun(Protocol):
    """What is done for one order, and how far it came."""

    @property
    def before(self) -> Bytes | None:
        """The guest's size when it was first looked at."""

    @property
    def after(self) -> Bytes | None:
        """The guest's size when it was last looked at."""

    @property
    def overhead(self) -> int:
        """Bytes by which the device is always smaller than its volume."""

    @property
    def steps(self) -> Sequence[StepReport]:
        """So far."""

    def run(self) -> tuple[Outcome, Reason]:
        """Do it: the outcome of an order that came to an end of its own; every other end is raised."""


def reported(order: Order, work: AttemptRun) -> Report:
    """Do the work. Never raises: what has no name yet becomes `error`, and its traceback is logged."""
    detail = ""
    try:
        outcome, reason = work.run()
    except StepFailedError as ex:
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
        overhead=work.overhead,
    )
