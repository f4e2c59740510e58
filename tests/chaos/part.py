# SPDX-License-Identifier: Apache-2.0
"""A part of a chaos run: `python -m tests.chaos.part NAME --config-file FILE`, the product's own entry point.

The host agent gets a played host; EXTEND_BRIDGE_CHAOS_BREAK plants a bug. Nothing else differs.
"""

import bridge.runtime.threads  # noqa: F401 - first, before anything that may choose another backend

# isort: split
import os
import sys
from functools import partial
from typing import Final

from bridge.runtime.process import serve

BREAK: Final = "EXTEND_BRIDGE_CHAOS_BREAK"


def _hostagent() -> int:
    from hostagent.settings import hostagent_groups, hostagent_settings  # noqa: PLC0415 - this part's alone
    from hostagent.wiring import build  # noqa: PLC0415
    from tests.chaos.fake_host import fake_host  # noqa: PLC0415

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
