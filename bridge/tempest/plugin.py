# SPDX-License-Identifier: Apache-2.0
"""The entry point of Tempest's plugin manager."""

from pathlib import Path
from typing import Any

from tempest.test_discover.plugins import TempestPlugin

from bridge.tempest.options import GROUP, OPTS


class ExtendBridgeTempest(TempestPlugin):
    """The plugin: its tests and its options."""

    def load_tests(self) -> tuple[str, str]:
        """Return the directory of the tests, and the directory that Python imports them from."""
        here = Path(__file__).resolve().parent
        return str(here / "cases"), str(here.parents[1])

    def register_opts(self, conf: Any) -> None:
        """Register the options of [extend_bridge]."""
        conf.register_group(GROUP)
        conf.register_opts(OPTS, GROUP)

    def get_opt_lists(self) -> list[tuple[str, list[Any]]]:
        """Return the options for Tempest's sample file."""
        return [(GROUP.name, list(OPTS))]
