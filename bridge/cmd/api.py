# SPDX-License-Identifier: Apache-2.0
"""The program extend-bridge-api: Nova's os-server-external-events, served by the built-in server."""

import bridge.runtime.threads  # noqa: F401 - first, because other imports may choose another backend

# isort: split
from bridge.api.settings import API_GROUPS, api_settings
from bridge.api.wiring import build
from bridge.runtime import process


def main() -> int:
    """Run the API until a signal; return the exit code."""
    return process.serve(
        "api",
        API_GROUPS,
        api_settings,
        build,
        description="Accepts volume-extended events like Nova: POST /v2.1/os-server-external-events of compute "
        "2.51. Commits them to the journal.",
    )


if __name__ == "__main__":
    raise SystemExit(main())
