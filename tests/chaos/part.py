# SPDX-License-Identifier: Apache-2.0
"""A part of a chaos run: `python -m tests.chaos.part NAME --config-file FILE`, the product's own entry point.

The host agent gets a played host; EXTEND_BRIDGE_CHAOS_BREAK plants a bug, and while there is the
file EXTEND_BRIDGE_CHAOS_DROP names, the agent loses its orders. Nothing else differs.
"""

import bridge.runtime.threads  # noqa: F401 - first, before anything that may choose another backend

# isort: split
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

from bridge.runtime.process import serve

BREAK: Final = "EXTEND_BRIDGE_CHAOS_BREAK"
DROP: Final = "EXTEND_BRIDGE_CHAOS_DROP"


def _lose_orders(while_there_is: Path) -> None:
    """Orders are acknowledged before they are worked on: an agent that dies just then has lost them all."""
    from hostagent import rpc  # noqa: PLC0415 - this part's alone

    read = rpc.read_cast

    def read_cast(body: bytes) -> list[Any]:
        return [] if while_there_is.exists() else read(body)

    rpc.read_cast = read_cast


def _hostagent() -> int:
    from hostagent.settings import hostagent_groups, hostagent_settings  # noqa: PLC0415 - this part's alone
    from hostagent.wiring import build  # noqa: PLC0415
    from tests.chaos.fake_host import fake_host  # noqa: PLC0415

    if os.environ.get(DROP):
        _lose_orders(Path(os.environ[DROP]))
    wired = partial(build, look_outside=fake_host)
    return serve("hostagent", hostagent_groups(), hostagent_settings, wired, description="A played host.")


def main() -> int:
    """Run the part until a signal."""
    name = sys.argv.pop(1)
    if os.environ.get(BREAK):
        from tests.chaos.breakage import plant  # noqa: PLC0415 - never where nothing is to be broken
        from tests.chaos.options import Break  # noqa: PLC0415

        plant(Break(os.environ[BREAK]), name)
    if name == "hostagent":
        return _hostagent()
    if name == "listener":
        from listener.cmd import main as run  # noqa: PLC0415 - each process loads its own part only
    elif name == "api":
        from bridge.cmd.api import main as run  # noqa: PLC0415
    else:
        from bridge.cmd.engine import main as run  # noqa: PLC0415
    return run()


if __name__ == "__main__":
    raise SystemExit(main())
