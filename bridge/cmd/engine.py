# SPDX-License-Identifier: Apache-2.0
"""The program extend-bridge-engine: due extends of the journal become orders to hosts."""

from bridge.engine.settings import engine_groups, engine_settings
from bridge.engine.wiring import build
from bridge.runtime.process import serve


def main() -> int:
    """Run the engine until a signal; return the exit code."""
    return serve(
        "engine",
        engine_groups(),
        engine_settings,
        build,
        description="Reads due extends from the journal, sends orders to their hosts, and closes each extend that "
        "its host has verified.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
