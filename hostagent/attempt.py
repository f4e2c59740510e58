# SPDX-License-Identifier: Apache-2.0
"""The frame of an attempt: it finds the disk of an order, and reports the result of the work in any case."""

import logging
from collections.abc import Sequence
from typing import Protocol

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.inventory import GuestState
from bridge.core.messages import Order, Report, StepReport
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, Domain
from hostagent.drivers.base import Hypervisor
from hostagent.errors import StepFailedError


def find_disk(hypervisor: Hypervisor, key: ExtendKey) -> tuple[Domain, Disk]:
    """Return the domain and its disk. Raises StepFailedError, also where several disks carry the volume's id."""
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
    """The work on one order, and its progress."""

    @property
    def before(self) -> Bytes | None:
        """Return the guest's size at the first look."""

    @property
    def after(self) -> Bytes | None:
        """Return the guest's size at the last look."""

    @property
    def overhead(self) -> int:
        """Return the bytes by which the device is always smaller than its volume."""

    @property
    def steps(self) -> Sequence[StepReport]:
        """Return the steps so far."""

    def run(self) -> tuple[Outcome, Reason]:
        """Work on the order; return how it ended. Every other end is raised."""


def reported(order: Order, work: AttemptRun) -> Report:
    """Do the work and return its report. Never raises: an error without a name becomes `error`, and is logged."""
    detail = ""
    try:
        outcome, reason = work.run()
    except StepFailedError as ex:
        outcome, reason, detail = ex.outcome, ex.reason, ex.detail
    except Exception as ex:
        LOG.exception("server %s volume %s: the order failed", order.key.server_id, order.key.volume_id)
        outcome, reason, detail = Outcome.ERROR, Reason.UNCERTAIN, type(ex).__name__
    if LOG.isEnabledFor(logging.DEBUG):
        about = f"server {order.key.server_id} volume {order.key.volume_id} to {order.target} bytes"
        for step in work.steps:
            LOG.debug("%s: step %s", about, step)
        LOG.debug(
            "%s: %s (%s) %s, guest %s -> %s", about, outcome.value, reason.value, detail, work.before, work.after
        )
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
        traceparent=order.traceparent,
    )
