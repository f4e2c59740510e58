# SPDX-License-Identifier: Apache-2.0
"""The error of a look into a guest: a reason, and a line for the operator. It does not affect the extend."""

from typing import Final

from bridge.core.clean import clean
from bridge.core.reasons import Reason

DETAIL_MAX: Final = 300


class GuestLookError(Exception):
    """No usable answer came from a guest's agent. `detail` is cleaned, because its words can be the tenant's."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = clean(" ".join(detail[: 2 * DETAIL_MAX].split()), DETAIL_MAX)
        super().__init__(f"{reason.text}{f' ({self.detail})' if self.detail else ''}")
