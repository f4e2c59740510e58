# SPDX-License-Identifier: Apache-2.0
"""The command `extend-bridge status`: one overview of the journal, the parked lane and this node's daemons."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

import amqp.exceptions
import kombu
import requests
from oslo_config import cfg

from bridge.cli.behind import figures, file_system_figures
from bridge.cli.journal import HOST_TIMEOUT, Reads, moment
from bridge.journal.admin import Admin
from bridge.journal.behind import Behind
from bridge.journal.file_systems import FileSystems
from bridge.journal.sweeps import last_survey
from bridge.runtime import commands
from bridge.runtime.broker import BROKER_ERRORS, PARKED_QUEUE, kombu_connection
from bridge.runtime.bus_url import check_url, is_memory
from bridge.runtime.config import OPS_OPTS, OptGroups, bus_settings
from bridge.runtime.listing import Showing

_PARTS: Final = ("listener", "api", "engine", "hostagent", "all_in_one")
_TIMEOUT: Final = 3.0

OPS_GROUPS: Final[OptGroups] = [(part, OPS_OPTS) for part in _PARTS]


def count_parked(conf: cfg.ConfigOpts) -> tuple[int | str, bool]:
    """Return the number of parked messages, and whether an operator is needed.

    The number comes from the broker and no message is consumed. A text with the reason replaces an unknown number.
    """
    url = bus_settings(conf).transport_url
    check_url(url, "[bus] transport_url")
    if is_memory(url):
        return "in the memory of the process: see its metrics", False
    try:
        with kombu_connection(url, heartbeat=0, name="extend-bridge status") as connection:
            connection.ensure_connection(max_retries=1, timeout=_TIMEOUT)
            with connection.channel() as channel:
                found = kombu.Queue(PARKED_QUEUE, channel=channel).queue_declare(passive=True).message_count
                return int(found), bool(found)
    except amqp.exceptions.NotFound:
        return 0, False
    except BROKER_ERRORS as ex:
        return f"unknown: our own message bus: {commands.broker_words(ex, '[bus] transport_url')}", True


def ask_daemons(conf: cfg.ConfigOpts) -> Iterator[tuple[str, str, bool]]:
    """Yield (part, readiness, whether an operator is needed) of each part with an ops port in the configuration."""
    for part in _PARTS:
        host, port = conf[part].ops_host, conf[part].ops_port
        if port:
            yield part, *_asked(f"http://{f'[{host}]' if ':' in host else host}:{port}/healthz/ready")


def _asked(url: str) -> tuple[str, bool]:
    try:
        answer = requests.get(url, timeout=_TIMEOUT)
        checks = answer.json()["checks"]
        wrong = [f"{name}: {check['reason']}" for name, check in checks.items() if not check["ok"]]
    except requests.RequestException:
        return "does not answer; is it down, or on another node?", False
    except (KeyError, TypeError, AttributeError):
        return "does not answer like /healthz/ready", True
    return ("ready", False) if answer.ok else (f"not ready: {'; '.join(wrong)}", True)


class Status(Reads, Showing):
    """Show guests behind, open extends, hosts, parked messages and this node's daemons on one screen.

    The exit code is 1 if an operator is needed. A daemon is queried if the configuration file sets its ops_port.
    """

    _epilog = "Example: extend-bridge status"

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; return the exit code."""
        self.code = 0
        return super().run(parsed_args) or self.code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Run the command; return column names and values."""
        with self.database(parsed_args) as database:
            now = Admin(database).standing(host_timeout=HOST_TIMEOUT)
            numbers = Behind(database).numbers()
            counts = FileSystems(database).counts()
            last = last_survey(database)
        conf = commands.load(parsed_args, [*OPS_GROUPS])
        parked, wanted = count_parked(conf)
        parts = list(ask_daemons(conf))
        self.code = 1 if now.overdue or now.failed or wanted or any(wrong for _, _, wrong in parts) else 0
        shown: Mapping[str, Any] = {
            **figures(numbers),
            **file_system_figures(counts),
            "last reconcile pass": moment(last.ended_at),
            "open": now.open,
            "dispatched": now.dispatched,
            "oldest open": moment(now.oldest),
            "overdue": now.overdue,
            "behind (failed)": now.failed,
            "hosts": now.hosts,
            "silent hosts": now.silent,
            "parked": parked,
            **{f"{part} here": said for part, said, _ in parts},
        }
        return tuple(shown), tuple(shown.values())
