# SPDX-License-Identifier: Apache-2.0
"""Names of classes in the product, private ones as well: one name, one meaning."""

import ast
from collections import defaultdict

from tests.lab.paths import ROOT


def test_the_name_of_a_class_is_there_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for folder in ("bridge", "listener", "hostagent"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert not {name: where for name, where in places.items() if len(where) > 1}
