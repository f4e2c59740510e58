# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge status`: how it stands, at a glance."""

import argparse
from collections.abc import Mapping
from typing import Any

from bridge.cli import standing
from bridge.cli.behind import figures
from bridge.cli.journal import HOST_TIMEOUT, Reads, moment
from bridge.journal.behind import Behind
from bridge.journal.look import Look
from bridge.journal.passes import last_survey
from bridge.runtime import operator
from bridge.runtime.listing import Showing


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
            now = Look(database).standing(host_timeout=HOST_TIMEOUT)
            numbers = Behind(database).numbers()
            last = last_survey(database)
        conf = operator.load(parsed_args, [*standing.OPS_GROUPS])
        parked, wanted = standing.parked(conf)
        parts = list(standing.parts(conf))
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
