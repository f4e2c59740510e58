# SPDX-License-Identifier: Apache-2.0
"""Translation of QEMU's errors. Pure."""

import re
from typing import Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.drivers.base import failed
from hostagent.drivers.qmp.wire import WireError, WireForeignError, WireSilentError
from hostagent.errors import StepFailedError

RESIZE: Final = "block_resize"
_BUSY = re.compile(r"\bin use\b|\bis busy\b|block job|is locked|inactive", re.IGNORECASE)
_CANNOT_GROW = re.compile(r"cannot grow device files", re.IGNORECASE)
_READ_ONLY = re.compile(r"\bread[- ]?only\b", re.IGNORECASE)
_NO_RESIZE = re.compile(r"does not support resiz|resize (is )?not supported|not resizable", re.IGNORECASE)


class QmpError(Exception):
    """An error that QEMU answered."""

    def __init__(self, command: str, text: str) -> None:
        super().__init__(f"{command}: {text}")
        self.command = command
        self.text = text


def stopped(error: QmpError) -> StepFailedError:
    """Return the outcome of an error that QEMU answered. All have the class GenericError, so the text decides."""
    detail, text = str(error), error.text
    if _CANNOT_GROW.search(text):
        return StepFailedError(Outcome.DEVICE_STALE, Reason.CANNOT_GROW_DEVICE, detail)
    if _BUSY.search(text):
        return StepFailedError(Outcome.BUSY, Reason.BLOCK_JOB, detail)
    if error.command == RESIZE and _READ_ONLY.search(text):
        return StepFailedError(Outcome.UNSUPPORTED, Reason.READ_ONLY, detail)
    if error.command == RESIZE and _NO_RESIZE.search(text):
        return StepFailedError(Outcome.UNSUPPORTED, Reason.RESIZE_UNSUPPORTED, detail)
    return failed(Reason.HYPERVISOR_RAISED, detail)


def unreached(error: WireError, path: str) -> StepFailedError:
    """Return the outcome of a socket that cannot be used."""
    match error:
        case WireSilentError():
            reason = Reason.HYPERVISOR_TIMED_OUT
        case WireForeignError():
            reason = Reason.HYPERVISOR_RAISED
        case _:
            reason = Reason.HYPERVISOR_DOWN
    return failed(reason, f"{path}: {error}")
