# SPDX-License-Identifier: Apache-2.0
"""Reading an order's connection data, {driver_volume_type, data}. Pure."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any


def volume_type(connection: Mapping[str, Any] | None) -> str | None:
    """driver_volume_type in lower case, as Nova's driver table has it; None where there is no connection data."""
    kind = connection.get("driver_volume_type") if connection is not None else None
    return kind.lower() if isinstance(kind, str) and kind else None


def properties(connection: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `data` for os-brick: a copy of its own for every call, since connectors write into it."""
    data = connection.get("data") if connection is not None else None
    return deepcopy(dict(data)) if isinstance(data, Mapping) else {}
