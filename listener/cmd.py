# SPDX-License-Identifier: Apache-2.0
"""The command extend-bridge-listener: the daemon of the listener."""

import bridge.runtime.threads  # noqa: F401 - first, before a module that may choose another backend

# isort: split
from bridge.runtime.process import serve
from listener.settings import listener_groups, listener_settings
from listener.wiring import build


def main() -> int:
    """Run the listener until a signal."""
    return serve(
        "listener",
        listener_groups(),
        listener_settings,
        build,
        description="Reads Cinder's volume.resize.end notifications and posts volume-extended events, until the "
        "endpoint has accepted or finally refused each.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
