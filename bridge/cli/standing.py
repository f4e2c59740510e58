# SPDX-License-Identifier: Apache-2.0
"""What `extend-bridge status` asks beside the journal: the parked lane, and the daemons of this node."""

from collections.abc import Iterator
from typing import Final

import amqp.exceptions
import kombu
import requests
from oslo_config import cfg

from bridge.runtime.settings import OPS_OPTS, OptGroups
from bridge.runtime.transport import BROKER_ERRORS, PARKED_QUEUE, check_url, is_memory, kombu_connection

_PARTS: Final = ("listener", "api", "engine", "hostagent", "all_in_one")
_TIMEOUT: Final = 3.0

OPS_GROUPS: Final[OptGroups] = [(part, OPS_OPTS) for part in _PARTS]


def parked(conf: cfg.ConfigOpts) -> tuple[int | str, bool]:
    """How many messages wait for a person, or in words why nobody can tell; and whether a person is needed.

    Takes none of them: the broker is asked for the number.
    """
    url = conf.bus.transport_url
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


def parts(conf: cfg.ConfigOpts) -> Iterator[tuple[str, str, bool]]:
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
