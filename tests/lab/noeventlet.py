# SPDX-License-Identifier: Apache-2.0
"""pytest plugin: eventlet and greenlet cannot be imported at all, as if they were not on disk."""

import sys
from importlib.abc import MetaPathFinder

_BLOCKED = ("eventlet", "greenlet")


class _Blocker(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Refuse what is blocked; say nothing of the rest."""
        if fullname.partition(".")[0] in _BLOCKED:
            raise ModuleNotFoundError(f"{fullname} is blocked in this run", name=fullname)


for _name in _BLOCKED:
    sys.modules.pop(_name, None)
sys.meta_path.insert(0, _Blocker())
