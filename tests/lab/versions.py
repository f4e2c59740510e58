# SPDX-License-Identifier: Apache-2.0
"""Frozen versions of the messages between engine and agent, as modules of their own."""

import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

from tests.lab.paths import ROOT

MESSAGES = ROOT / "tests" / "fixtures" / "messages"


@cache
def frozen(version: int) -> Any:
    """The snapshot of a version: its Order, Report, HostMessage …, as its engine and agent had them."""
    name = f"messages_v{version}"
    spec = importlib.util.spec_from_file_location(name, MESSAGES / f"v{version}" / "snapshot.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
