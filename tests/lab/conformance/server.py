# SPDX-License-Identifier: Apache-2.0
"""The API as a process, with a table of tokens in the place of Keystone."""

import bridge.runtime.threads  # noqa: F401 - first of all

# isort: split
import json
import os
import sys

from bridge.api.settings import API_GROUPS, api_settings
from bridge.api.wiring import build
from bridge.runtime import process
from tests.lab.conformance.site import TOKENS
from tests.lab.conformance.tokens import table


def main() -> int:
    """Run the API until a signal."""
    tokens = table(json.loads(os.environ[TOKENS]))
    return process.serve(
        "api",
        API_GROUPS,
        api_settings,
        lambda settings, shared: build(settings, shared, auth=tokens),
        description="The API of tools/conformance.",
        argv=sys.argv[1:],
    )


if __name__ == "__main__":
    raise SystemExit(main())
