# SPDX-License-Identifier: Apache-2.0
"""Exchange by exchange: the same, known to differ, or different; and what a recording tells of its surroundings."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.lab.conformance.compare import differences
from tests.lab.conformance.exchange import Answer, Exchange, Request
from tests.lab.conformance.known import Rows, expected

_AUTHORITY: Final = re.compile(r'"href": "http://([^/"]+)/v2')
_PROJECT_SAID: Final = re.compile(r"Context's project_id '([^']+)'")
_PROJECT_USED: Final = re.compile(r"/v2(?:\.1)?/([0-9a-f-]+)/os-server-external-events")
_ROLES: Final = {"<admin>": ["admin", "service"], "<service>": ["service"], "<demo>": ["member"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One exchange: what differs, and the ids of the differences that explain all of it."""

    case: str
    found: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


class NoAnswerError(Exception):
    """There was no answer, or what came is none."""


def judge(exchange: Exchange, rows: Rows, send: Callable[[Request], Answer]) -> Result:
    """Send the request, compare the answer with the recorded one, then with the one we must give instead."""
    try:
        ours = send(exchange.request)
    except NoAnswerError as ex:
        return Result(case=exchange.case, found=(str(ex),))
    found = differences(ours, exchange.response)
    if not found:
        return Result(case=exchange.case)
    wanted = expected(exchange, rows)
    rest = differences(ours, wanted.answer)
    return Result(case=exchange.case, found=tuple(rest or found), known=() if rest else wanted.ids)


def tokens(exchanges: Sequence[Exchange]) -> Mapping[str, Mapping[str, Any]]:
    """The lab's tokens, each with its roles and the project the recording shows it to have."""
    projects: dict[str, str] = {}
    for exchange in exchanges:
        token = exchange.request.header("X-Auth-Token") or ""
        used = _PROJECT_USED.match(exchange.request.path)
        if said := _PROJECT_SAID.search(exchange.response.body):
            projects[token] = said[1]
        elif used and exchange.response.status in {200, 207}:
            projects[token] = used[1]
    return {
        token: {"project_id": projects.get(token, f"{n:032x}"), "roles": roles}
        for n, (token, roles) in enumerate(_ROLES.items(), 1)
    }


def authority(exchanges: Sequence[Exchange]) -> str:
    """The host and port the recorded Nova was reached at: its documents have it in their links."""
    for exchange in exchanges:
        if exchange.request.header("Host") is None and (match := _AUTHORITY.search(exchange.response.body)):
            return match[1]
    return "127.0.0.1:8774"
