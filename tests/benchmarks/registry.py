# SPDX-License-Identifier: Apache-2.0
"""Every bench of tools/bench. A new one is a module with `rows(workspace)` and a line here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tests.benchmarks import agent, api, audit, engine, listening, memory, reports, serving, whole
from tests.benchmarks.measure import Row
from tests.benchmarks.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """`rows` yields figures as they come."""

    about: str
    rows: Callable[[Workspace], Iterator[Row]]


BENCHES: Final[Mapping[str, Bench]] = {
    "listener": Bench(about="notifications that are no extend, and extends in batches of 100", rows=listening.rows),
    "api": Bench(about="1 and 100 events per request, on each database", rows=api.rows),
    "serving": Bench(about="the API under uWSGI, with and without Keystone", rows=serving.rows),
    "engine": Bench(about="claim, group, cast; Cinder's reads", rows=engine.rows),
    "reports": Bench(about="a host's reports taken and closed, on each database", rows=reports.rows),
    "audit": Bench(about="the audit line", rows=audit.rows),
    "agent": Bench(
        about="the host agent: its own part of an extend, 200 at once, 1,000 idle guests", rows=agent.rows
    ),
    "whole": Bench(about="notification to report through all processes: rate and idle latency", rows=whole.rows),
    "memory": Bench(about="every process with 100,000 messages waiting", rows=memory.rows),
}
