# SPDX-License-Identifier: Apache-2.0
"""The directive `differences`: bridge/api/differences.yaml as a list, so that the page cannot drift from it."""

from importlib.resources import files
from typing import Any, Final

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive

_PARTS: Final = (("nova", "Nova"), ("bridge", "Here"), ("why", "Why"))


class Differences(Directive):
    """A section-like entry for each difference."""

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        entries = yaml.safe_load((files("bridge.api") / "differences.yaml").read_text("utf-8"))
        listed = nodes.definition_list()
        for entry in entries:
            body = nodes.definition()
            for key, said in _PARTS:
                body += nodes.paragraph("", "", nodes.strong(text=f"{said}: "), nodes.Text(entry[key].strip()))
            listed += nodes.definition_list_item("", nodes.term("", "", nodes.literal(text=entry["id"])), body)
        return [listed]


def setup(app: Any) -> dict[str, bool]:
    """For Sphinx."""
    app.add_directive("differences", Differences)
    return {"parallel_read_safe": True}
