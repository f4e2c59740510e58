# SPDX-License-Identifier: Apache-2.0
"""The program extend-bridge-all-in-one: listener, API, engine and host agent in one process.

Only this module knows all parts. Our own bus is in the process's memory unless [bus] transport_url is set. The
listener posts to the API of the same process unless [endpoint] names another endpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

from bridge.api.settings import API_OPTS, ApiSettings, api_settings
from bridge.api.wiring import build as build_api
from bridge.engine.settings import EngineSettings, engine_groups, engine_settings
from bridge.engine.wiring import build as build_engine
from bridge.runtime import one_process
from bridge.runtime import process as processes
from bridge.runtime.config import OPS_OPTS, OptGroups
from bridge.runtime.daemon import Daemon, Part
from bridge.runtime.process import Process
from hostagent.cmd import build as build_hostagent
from hostagent.settings import HostAgentSettings, hostagent_groups, hostagent_settings
from listener.settings import ListenerSettings, listener_groups, listener_settings
from listener.wiring import build as build_listener

_NAME: Final = "all-in-one"
_DESCRIPTION: Final = "All parts of the bridge in one process, for a cloud of one node and for tests."


@dataclass(frozen=True, slots=True, kw_only=True)
class AllInOneSettings:
    """The settings of each part.

    `listener` is None when no notification bus is configured, because then events arrive by HTTP only.
    """

    api: ApiSettings
    engine: EngineSettings
    hostagent: HostAgentSettings
    listener: ListenerSettings | None


def groups() -> OptGroups:
    """Return the option groups of all parts, each once."""
    return [
        ("all_in_one", OPS_OPTS),
        ("api", API_OPTS),
        *engine_groups(),
        *hostagent_groups(),
        *listener_groups(),
    ]


def settings(conf: cfg.ConfigOpts) -> AllInOneSettings:
    """Read the settings of all parts, with the defaults of a single process."""
    one_process.set_defaults(conf)
    return AllInOneSettings(
        api=api_settings(conf),
        engine=engine_settings(conf),
        hostagent=hostagent_settings(conf),
        listener=listener_settings(conf) if conf.notifications.transport_url else None,
    )


def build(chosen: AllInOneSettings, process: Process) -> list[Part]:
    """Build all parts, receivers before senders."""
    return [
        *build_engine(chosen.engine, process),
        *build_api(chosen.api, process),
        *build_hostagent(chosen.hostagent, process),
        *(build_listener(chosen.listener, process) if chosen.listener is not None else ()),
    ]


def daemon(argv: Sequence[str]) -> tuple[Daemon, Process]:
    """Wire the daemon without starting the parts; raises ConfigError."""
    return processes.daemon(_NAME, groups(), settings, build, description=_DESCRIPTION, argv=argv)


def main() -> int:
    """Run the process until a signal; return the exit code."""
    return processes.serve(_NAME, groups(), settings, build, description=_DESCRIPTION)
