# SPDX-License-Identifier: Apache-2.0
"""Entry point of extend-bridge-hostagent."""

import bridge.runtime.no_eventlet  # noqa: F401 - before a library finds eventlet

# isort: split
import sys
from collections.abc import Sequence

from bridge.core.errors import ConfigError
from bridge.runtime.daemon import Part
from bridge.runtime.process import Process, serve
from hostagent.heap import share_one_heap
from hostagent.settings import HostAgentSettings, hostagent_groups, hostagent_settings


def build(settings: HostAgentSettings, process: Process) -> Sequence[Part]:
    """Return the host agent's parts; raises ConfigError that names a missing package."""
    try:
        from hostagent import wiring  # noqa: PLC0415 - the one place that may find the host's libraries missing
    except ImportError as ex:
        raise ConfigError(f"{ex.name} is not installed; hypervisors need extend-bridge[hostagent]") from ex
    return wiring.build(settings, process)


def main() -> int:
    """Run until a signal; return the exit code."""
    share_one_heap()
    return serve(
        "hostagent",
        hostagent_groups(),
        hostagent_settings,
        build,
        description="Extend Bridge host agent: grows guests' disks to the size of their volumes on this "
        "hypervisor.",
    )


if __name__ == "__main__":
    sys.exit(main())
