# SPDX-License-Identifier: Apache-2.0
"""extend-bridge-hostagent."""

import bridge.runtime.threads  # noqa: F401 - before anything that imports oslo.messaging

# isort: split
import sys

from bridge.runtime.process import serve
from hostagent.settings import hostagent_groups, hostagent_settings
from hostagent.wiring import build


def main() -> int:
    """Run until a signal; the exit code."""
    return serve(
        "hostagent",
        hostagent_groups(),
        hostagent_settings,
        build,
        description="Extend Bridge host agent: brings guests' disks up to their volumes' sizes on this hypervisor.",
    )


if __name__ == "__main__":
    sys.exit(main())
