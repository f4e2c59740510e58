# SPDX-License-Identifier: Apache-2.0
"""No module imports through a wall, and a planted import of each kind is found."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.paths import ROOT
from tests.lab.walls import PRODUCT, WALLS, forbidden_imports

OTHERS = sorted({package for wall in WALLS.values() for package in wall.others} | {"eventlet", "tests"})


def modules() -> list[Path]:
    """Return every module of the product."""
    return sorted(path.relative_to(ROOT) for folder in PRODUCT for path in (ROOT / folder).rglob("*.py"))


@pytest.fixture(autouse=True)
def _from_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_no_module_imports_through_a_wall() -> None:
    found = [str(wrong) for path in modules() for wrong in forbidden_imports(path, path.read_text())]
    assert not found, "tests/lab/walls.py does not allow:\n" + "\n".join(found)


def forms(name: str) -> Iterator[str]:
    """Yield the ways to write an import of a package or module."""
    yield f"import {name}\n"
    yield f"import {name} as other\n"
    yield f"from {name} import anything\n"
    yield f"def later():\n    from {name} import anything\n"
    yield f"if True:\n    import json, {name}.anything\n"
    parent, _, child = name.rpartition(".")
    if parent:
        yield f"from {parent} import {child}\n"


def places() -> list[str]:
    """Return what a module of the product could import of ours: every folder with a wall."""
    return [wall.removesuffix(".py").replace("/", ".") for wall in WALLS if not wall.endswith("__init__.py")]


@pytest.mark.parametrize("name", ["libvirt", "bridge.engine", "hostagent.resize"])
def test_every_form_of_an_import_is_seen(name: str) -> None:
    assert [source for source in forms(name) if not list(forbidden_imports(Path("bridge/core/x.py"), source))] == []


@pytest.mark.parametrize("wall", sorted(WALLS))
def test_a_planted_import_is_refused_unless_it_is_on_the_list(wall: str) -> None:
    module = Path(wall) if wall.endswith(".py") else Path(wall) / "planted.py"
    itself = wall.removesuffix(".py").replace("/", ".")
    allowed = WALLS[wall]
    refused = 0
    for name in [*OTHERS, *places()]:
        if name in allowed.others or name == itself or any(f"{name}.".startswith(f"{o}.") for o in allowed.ours):
            continue
        for source in (f"import {name}\n", f"from {name} import anything\n"):
            assert list(forbidden_imports(module, source)), f"{module} may {source!r}"
            refused += 1
    assert refused > len(OTHERS)


def test_only_its_driver_names_libvirt() -> None:
    """The words would bring its ideas with them; drivers/registry.py knows the name of the default."""
    named = [
        f"{path}:{number}: {line.strip()}"
        for path in modules()
        if path.is_relative_to("hostagent") and not path.is_relative_to("hostagent/drivers")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "libvirt" in line.lower()
    ]
    assert named == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bridge/core/x.py", "import requests"),
        ("bridge/core/x.py", "from bridge.runtime import config"),
        ("bridge/http/x.py", "from bridge.runtime.health import Health"),
        ("bridge/runtime/x.py", "import sqlalchemy"),
        ("bridge/api/x.py", "from bridge.engine.plan import plan"),
        ("bridge/engine/x.py", "from bridge import api"),
        ("bridge/audit/x.py", "from bridge.runtime.broker import kombu_connection"),
        ("listener/x.py", "import hostagent.extend"),
        ("hostagent/x.py", "def f():\n    import libvirt"),
        ("hostagent/devices/x.py", "import os_brick.initiator"),
        ("hostagent/drivers/libvirt/x.py", "from hostagent.brick.pool import BrickPool"),
        ("hostagent/drivers/libvirt/x.py", "from hostagent.resize import grow"),
        ("hostagent/drivers/x.py", "import libvirt_qemu"),
        ("hostagent/x.py", "from hostagent.drivers.libvirt.session import Session"),
        ("hostagent/wiring.py", "import libvirt"),
        ("bridge/cmd/x.py", "from hostagent.wiring import build"),
    ],
)
def test_an_import_through_an_important_wall_is_refused(module: str, source: str) -> None:
    assert list(forbidden_imports(Path(module), source))
