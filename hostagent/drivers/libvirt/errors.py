# SPDX-License-Identifier: Apache-2.0
"""Translation of libvirt's error numbers and messages. Pure; libvirt's headers never change the numbers."""

import re
from typing import Final, Protocol

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.drivers.libvirt.guest import RESIZE
from hostagent.errors import StepFailedError

_SHUTOFF, _PAUSED, _NOSTATE = 5, 3, 0  # virDomainState
_MIGRATED, _SAVED = 4, 5  # virDomainShutoffReason
# virDomainPausedReason: in each of these QEMU runs here while the guest is, or is about to be, somewhere else.
_PAUSED_BY_MIGRATION: Final = 2
_PAUSED_ELSEWHERE: Final = frozenset({2, 11, 12, 13})  # migration, starting up, post-copy, post-copy failed

_NO_DOMAIN, _OPERATION_TIMEOUT, _BLOCK_COPY_ACTIVE = 42, 68, 83  # virErrorNumber
# virErrorNumber: the driver knows no secrets, a read-only connection, one that is private, none of that id.
_NO_SECRET: Final = frozenset({3, 29, 65, 66})
_FROM_RPC = 7  # virErrorDomain

_BUSY = re.compile(r"\bin use\b|\bis busy\b|block job|block copy|state change lock", re.IGNORECASE)
_OPERATION_DENIED: Final = 29  # virErrorNumber
# virErrorNumber: not supported by the driver, by the configuration, by the arguments, as an operation.
_UNSUPPORTED: Final = frozenset({3, 67, 74, 84})
_NO_RESIZE = re.compile(r"does not support resiz|resize (is )?not supported|not resizable", re.IGNORECASE)
_READ_ONLY = re.compile(r"\bread[- ]?only\b", re.IGNORECASE)
_INCOMING = re.compile(r"only on the source host", re.IGNORECASE)  # jobStats of a guest that is being received
_SHRINK = re.compile(r"\bshrink", re.IGNORECASE)
_CANNOT_GROW = re.compile(r"cannot grow device files", re.IGNORECASE)
_TOO_LARGE = re.compile(r"encode message|\btoo (large|big|long)\b|maximum", re.IGNORECASE)
_CLOSED = re.compile(r"client socket is closed|cannot recv data|end of file while reading", re.IGNORECASE)


class LibvirtError(Protocol):
    """libvirt.libvirtError, as far as it is read."""

    def get_error_code(self) -> int | None:
        """Return the virErrorNumber of the error."""

    def get_error_domain(self) -> int | None:
        """Return the virErrorDomain of the error."""

    def get_error_message(self) -> str | None:
        """Return the error message."""


def is_migration_or_restore(state: int, reason: int) -> bool:
    """Return whether the domain is paused for a migration, or was restored paused: libvirt calls both the same.

    A migration has a job until it ends, a guest that was restored has none.
    """
    return state == _PAUSED and reason == _PAUSED_BY_MIGRATION


def guest_state(state: int, reason: int, *, has_job: bool = True) -> GuestState:
    """Nova treats running and paused alike (libvirt/driver.py: extend_volume); so do we.

    "Crashed" is a guest that panicked and that QEMU holds (on_crash preserve), its disks open; a guest whose QEMU
    died is "shut off".
    """
    if state in {_SHUTOFF, _NOSTATE}:
        return GuestState.OFF
    if is_migration_or_restore(state, reason) and not has_job:
        return GuestState.ACTIVE
    if state == _PAUSED and reason in _PAUSED_ELSEWHERE:
        return GuestState.INCOMING
    return GuestState.ACTIVE


def is_saved(state: int, reason: int, *, has_image: bool) -> bool:
    """Return whether the domain's memory is kept on disk: `virsh save`, or a managed save (Nova's suspend)."""
    return state == _SHUTOFF and (reason == _SAVED or has_image)


def has_left(state: int, reason: int) -> bool:
    """Return whether the domain is a definition that its guest left behind when it migrated away."""
    return state == _SHUTOFF and reason == _MIGRATED


def no_domain(error: LibvirtError) -> bool:
    """Return whether libvirt does not know the domain."""
    return error.get_error_code() == _NO_DOMAIN


def no_secret(error: LibvirtError) -> bool:
    """Return whether libvirt has no such secret for us."""
    return error.get_error_code() in _NO_SECRET


def connection_lost(error: LibvirtError) -> bool:
    """Return whether the error is about the connection, so that a new connection is worth another attempt.

    An answer above libvirt's own limits is about one domain: its metadata may hold megabytes.
    """
    text = error.get_error_message() or ""
    if error.get_error_domain() != _FROM_RPC:
        return _CLOSED.search(text) is not None
    return _TOO_LARGE.search(text) is None


def stopped(error: LibvirtError, what: str) -> StepFailedError:
    """Return the outcome of a libvirt error. Code 1 is generic, so the text decides there."""
    code, text = error.get_error_code(), error.get_error_message() or "no message"
    detail = f"{what}: {text}"
    if code == _NO_DOMAIN:
        return StepFailedError(Outcome.NOT_HERE, Reason.DOMAIN_ABSENT)
    if _SHRINK.search(text):  # VIR_DOMAIN_BLOCK_RESIZE_EXTEND: the disk has grown since it was looked at
        return StepFailedError(Outcome.REFUSED, Reason.WOULD_SHRINK, detail)
    if (why := _passing(code, text)) is not None:
        return StepFailedError(*why, detail)
    if connection_lost(error):
        return StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_DOWN, detail)
    if what == RESIZE and (reason := _never(code, text)) is not None:
        return StepFailedError(Outcome.UNSUPPORTED, reason, detail)
    return StepFailedError(Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_RAISED, detail)


def _passing(code: int | None, text: str) -> tuple[Outcome, Reason] | None:
    """Return the outcome and reason of an error that passes by itself, None for any other."""
    if _CANNOT_GROW.search(text):
        return Outcome.DEVICE_STALE, Reason.CANNOT_GROW_DEVICE
    if code in {_OPERATION_TIMEOUT, _BLOCK_COPY_ACTIVE} or _BUSY.search(text):
        return Outcome.BUSY, Reason.BLOCK_JOB
    if _INCOMING.search(text):
        return Outcome.BUSY, Reason.DOMAIN_JOB
    return None


def _never(code: int | None, text: str) -> Reason | None:
    """Return why a resize will never work, None for an error that may pass."""
    if code == _OPERATION_DENIED:  # the connection is for reading, not the disk
        return None
    if _READ_ONLY.search(text):
        return Reason.READ_ONLY
    return Reason.RESIZE_UNSUPPORTED if code in _UNSUPPORTED or _NO_RESIZE.search(text) else None
