# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of an audit line.

Descriptions come from audit-1.json; events, outcomes and reasons come from the code.
"""

import json
from importlib import resources
from typing import Any, Final

from bridge.core.audit import SCHEMA, AuditEvent
from bridge.core.file_systems import FsState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason

PARTS: Final = ("listener", "api", "engine", "operator")
VERDICTS: Final = ("delivered", "slow", "park")
"""Outcomes of a `posted` line, written by the listener."""
WORDS: Final = ("ok", "failed", "discarded")
"""Outcomes of a `step` line, and of an extend that an operator discarded."""


def audit_schema() -> dict[str, Any]:
    """Return the JSON Schema of an audit line, as a dictionary."""
    text = resources.files("bridge.audit").joinpath(f"audit-{SCHEMA}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    keys = schema["properties"]
    keys["schema"] = {"const": SCHEMA}
    keys["part"]["enum"] = list(PARTS)
    keys["event"]["enum"] = [event.value for event in AuditEvent]
    keys["outcome"]["enum"] = sorted({*map(str, Outcome), *map(str, FsState), *VERDICTS, *WORDS})
    keys["reason"]["enum"] = [reason.value for reason in Reason]
    return schema
