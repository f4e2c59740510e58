# SPDX-License-Identifier: Apache-2.0
"""The defaults of a process that holds all parts."""

from oslo_config import cfg

from bridge.runtime.bus_url import MEMORY


def set_defaults(conf: cfg.ConfigOpts) -> None:
    """Set the defaults of one process: a bus in its memory, its own API, tables that it makes itself."""
    conf.set_default("transport_url", MEMORY, group="bus")
    conf.set_default("sync_on_startup", True, group="journal")
    conf.set_default("endpoint_override", f"http://127.0.0.1:{conf.api.bind_port}/v2.1", group="endpoint")
