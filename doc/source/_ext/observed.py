# SPDX-License-Identifier: Apache-2.0
"""The directives `metrics` and `audit-events`: lists made from the code, so that the pages cannot drift from it."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from bridge.core import audit
from bridge.runtime import metrics
from bridge.runtime.health import Health


def _listed(rows: Iterable[tuple[str, str]]) -> list[nodes.Node]:
    listed = nodes.definition_list()
    for name, text in rows:
        body = nodes.definition("", nodes.paragraph(text=text))
        listed += nodes.definition_list_item("", nodes.term("", "", nodes.literal(text=name)), body)
    return [listed]


class Metrics(Directive):
    """Each metric of each daemon, its type and what it means."""

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        registry = metrics.new_registry("docs")
        for register in metrics.EVERY:
            register(registry)
        registry.register(metrics.ReadyCollector(Health()))
        suffix = {"counter": "_total", "info": "_info"}
        return _listed(
            (f"{m.name}{suffix.get(m.type, '')}", f"{m.documentation} ({m.type}).") for m in registry.collect()
        )


class AuditEvents(Directive):
    """Each event of the audit log with the comment of its member."""

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        found = re.findall(
            r'^    [A-Z_]+ = "([a-z_]+)"  # (.+)$', inspect.getsource(audit.AuditEvent), re.MULTILINE
        )
        return _listed((name, f"{text[0].upper()}{text[1:]}.") for name, text in found)


def setup(app: Any) -> dict[str, bool]:
    """For Sphinx."""
    app.add_directive("metrics", Metrics)
    app.add_directive("audit-events", AuditEvents)
    return {"parallel_read_safe": True}
