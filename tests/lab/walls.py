# SPDX-License-Identifier: Apache-2.0
"""Walls between the folders of the product: an allow list for each folder, of ours and of others' packages.

A folder that is not listed may import nothing. The lists are of direct imports. They hold for indirect imports as
well, because no folder may import what would lead it through a wall.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PRODUCT: Final = ("bridge", "listener", "hostagent")


@dataclass(frozen=True, slots=True)
class Wall:
    """The imports that a folder is allowed, besides itself and the standard library.

    `ours` are modules or packages of the product, `others` are top-level names of other packages.
    A folder or module inside that has a wall of its own is not part of the folder.
    """

    ours: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


def _wall(ours: str = "", others: str = "") -> Wall:
    return Wall(frozenset(ours.split()), frozenset(others.split()))


WALLS: Final = {
    "bridge/core": _wall(),
    "bridge/http": _wall("bridge.core", "cheroot"),
    "bridge/runtime": _wall(
        "bridge.core bridge.http",
        "amqp cachetools cliff keystoneauth1 kombu oslo_config oslo_context oslo_log oslo_messaging oslo_service "
        "oslo_utils prometheus_client requests tenacity urllib3 yaml",
    ),
    "bridge/runtime/otlp.py": _wall("bridge.core bridge.runtime", "opentelemetry"),
    "bridge/journal": _wall("bridge.core bridge.runtime", "alembic oslo_config sqlalchemy tenacity"),
    "bridge/api": _wall(
        "bridge.core bridge.http bridge.runtime bridge.journal",
        "bcrypt cachetools falcon jsonschema keystoneauth1 keystonemiddleware oslo_config oslo_middleware "
        "oslo_policy oslo_utils requests webob yaml",
    ),
    "bridge/engine": _wall(
        "bridge.core bridge.runtime bridge.journal", "cachetools keystoneauth1 kombu oslo_config oslo_messaging"
    ),
    "bridge/audit": _wall("bridge.core", "tqdm"),
    "bridge/standin": _wall("bridge.core bridge.http bridge.runtime", "falcon kombu pytest"),
    "bridge/tempest": _wall("", "oslo_config tempest"),
    "bridge/cli": _wall(
        "bridge.core bridge.runtime bridge.journal bridge.engine bridge.audit",
        "amqp cliff kombu oslo_config requests tqdm",
    ),
    "bridge/cmd": _wall(
        "bridge.core bridge.runtime bridge.journal bridge.api bridge.engine listener.settings hostagent.settings "
        "hostagent.hostcheck",
        "keystoneauth1 kombu oslo_config oslo_messaging oslo_upgradecheck",
    ),
    "bridge/cmd/all_in_one.py": _wall(
        "bridge.core bridge.runtime bridge.journal bridge.api bridge.engine listener.settings listener.wiring "
        "hostagent.cmd hostagent.settings",
        "oslo_config",
    ),
    "bridge/wsgi.py": _wall("bridge.core bridge.runtime bridge.http bridge.api"),
    "bridge/__init__.py": _wall(),
    "listener": _wall(
        "bridge.core bridge.runtime", "amqp cachetools keystoneauth1 kombu oslo_config requests urllib3"
    ),
    "listener/cli": _wall(
        "bridge.core bridge.runtime listener.decode listener.endpoint listener.lanes listener.notification "
        "listener.settings listener.sources listener.telemetry listener.verdicts",
        "amqp cliff kombu oslo_config prometheus_client tqdm",
    ),
    "hostagent": _wall(
        "bridge.core bridge.runtime hostagent.devices hostagent.drivers.base hostagent.drivers.registry "
        "hostagent.drivers.connects hostagent.guest hostagent.settings hostagent.wiring",
        "kombu oslo_config oslo_messaging prometheus_client",
    ),
    "hostagent/wiring.py": _wall("bridge.core bridge.runtime hostagent", "prometheus_client"),
    "hostagent/hostcheck.py": _wall(
        "bridge.core bridge.runtime hostagent.brick.key_manager hostagent.brick.lock "
        "hostagent.capabilities hostagent.drivers.base hostagent.drivers.connects hostagent.settings",
    ),
    "hostagent/devices": _wall(
        "bridge.core hostagent.domain hostagent.drivers.base hostagent.errors hostagent.identity hostagent.ports "
        "hostagent.storage_reads"
    ),
    "hostagent/guest": _wall(
        "bridge.core hostagent.domain hostagent.drivers.base hostagent.errors hostagent.ports"
    ),
    "hostagent/drivers": _wall(
        "bridge.core bridge.runtime hostagent.domain hostagent.errors", "oslo_config prometheus_client"
    ),
    "hostagent/drivers/libvirt": _wall(
        "bridge.core bridge.runtime hostagent.domain hostagent.drivers.base hostagent.drivers.connects "
        "hostagent.errors",
        "cachetools libvirt libvirt_qemu oslo_config prometheus_client",
    ),
    "hostagent/drivers/qmp": _wall(
        "bridge.core bridge.runtime hostagent.domain hostagent.drivers.base hostagent.errors", "oslo_config"
    ),
    "hostagent/drivers/contract": _wall(
        "bridge.core bridge.runtime hostagent.devices hostagent.domain hostagent.drivers.base "
        "hostagent.drivers.registry hostagent.errors hostagent.extend hostagent.refresh hostagent.resize "
        "hostagent.storage_reads",
        "oslo_config prometheus_client pytest",
    ),
    "hostagent/brick": _wall(
        "bridge.core bridge.runtime hostagent.errors hostagent.ports hostagent.settings",
        "castellan keystoneauth1 os_brick oslo_concurrency oslo_config oslo_context oslo_utils",
    ),
}


@dataclass(frozen=True, slots=True)
class ForbiddenImport:
    """An import that the wall of its module does not allow."""

    module: Path
    line: int
    name: str
    wall: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.wall} may not import {self.name}"


def wall_of(module: Path) -> str:
    """Return the name of the wall around a module; the innermost wall counts."""
    around = [name for name in WALLS if module.is_relative_to(name)]
    return max(around, key=len, default="")


def forbidden_imports(module: Path, source: str) -> Iterator[ForbiddenImport]:
    """Yield the imports of a module that its wall does not allow, those inside functions included."""
    name = wall_of(module)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for imported in _imported(node):
                if not _allowed(imported, name):
                    yield ForbiddenImport(module=module, line=node.lineno, name=imported, wall=name or "no folder")


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        assert node.module is not None, "a relative import hides what it imports"
        # `from bridge import api` imports bridge.api
        package = Path(*node.module.split(".")).is_dir()
        yield from (f"{node.module}.{alias.name}" for alias in node.names) if package else (node.module,)


def _allowed(imported: str, name: str) -> bool:
    top = imported.partition(".")[0]
    wall = WALLS.get(name, Wall())
    if top not in PRODUCT:
        return top in sys.stdlib_module_names or top in wall.others
    if imported == "bridge.VERSION" or any(_inside(imported, allowed) for allowed in wall.ours):
        return True
    itself = name.removesuffix(".py").replace("/", ".")
    within = [other.removesuffix(".py").replace("/", ".") for other in WALLS if other != name]
    return _inside(imported, itself) and not any(
        _inside(imported, other) and _inside(other, itself) for other in within
    )


def _inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
