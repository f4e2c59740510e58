# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge status`: how it stands, at a glance.

What `extend-bridge status` asks beside the journal: the parked lane, and the daemons of this node.
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

import amqp.exceptions
import kombu
import requests
from oslo_config import cfg

from bridge.cli.behind import figures
from bridge.cli.journal import HOST_TIMEOUT, Reads, moment
from bridge.journal.admin import Admin
from bridge.journal.behind import Behind
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
    """How many messages wait for a person, or in words why nobody can tell; and whether a person is needed.

    Takes none of them: the broker is asked for the number.
    """
    url = bus_settings(conf).transport_url
    check_url(url, "[bus] transport_url")
    if is_memory(url):
        return "inside the process: see its metrics", False
    try:
        with kombu_connection(url, heartbeat=0, name="extend-bridge status") as connection:
            connection.ensure_connection(max_retries=1, timeout=_TIMEOUT)
            with connection.channel() as channel:
                found = kombu.Queue(PARKED_QUEUE, channel=channel).queue_declare(passive=True).message_count
                return int(found), bool(found)
    except amqp.exceptions.NotFound:
        return 0, False
    except BROKER_ERRORS as ex:
        return f"unknown: our bus cannot be reached ({type(ex).__name__})", True


def ask_daemons(conf: cfg.ConfigOpts) -> Iterator[tuple[str, str, bool]]:
    """(part, what its ops port says, whether a person is needed) of each part with an ops port in this file."""
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
        return "answers something that is no readiness", True
    return ("ready", False) if answer.ok else (f"not ready: {'; '.join(wrong)}", True)


class Status(Reads, Showing):
    """Everything on one screen: guests behind, open extends, hosts, what is parked, this node's daemons.

    Exits with 1 if a person is needed. A daemon is asked where its ops_port is set in the configuration file.
    """

    _epilog = "Example: extend-bridge status"

    def run(self, parsed_args: argparse.Namespace) -> int:
        """See cliff."""
        self.code = 0
        return super().run(parsed_args) or self.code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """See cliff."""
        with self.database(parsed_args) as database:
            now = Admin(database).standing(host_timeout=HOST_TIMEOUT)
            numbers = Behind(database).numbers()
            last = last_survey(database)
        conf = commands.load(parsed_args, [*OPS_GROUPS])
        parked, wanted = count_parked(conf)
        parts = list(ask_daemons(conf))
        self.code = 1 if now.overdue or now.failed or wanted or any(wrong for _, _, wrong in parts) else 0
        shown: Mapping[str, Any] = {
            **figures(numbers),
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
