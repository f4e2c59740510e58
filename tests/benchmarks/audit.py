# SPDX-License-Identifier: Apache-2.0
"""The audit line, written one by one, and what its hash chain adds to it."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Final

from bridge.core.audit import AuditEvent, AuditRecord, ChainState
from bridge.core.extend import new_id
from bridge.runtime.audit import StreamAudit
from tests.benchmarks.measure import Row, per_item
from tests.benchmarks.workspace import Workspace

_ROUNDS: Final = 5  # the best of them counts: a chain is a few µs, and the machine's pauses are more


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come."""
    count = workspace.count(10_000)
    log = StreamAudit("bench", str(workspace.directory / "audit.log"))
    record = AuditRecord(
        event=AuditEvent.ACCEPTED, at=1.0, server=new_id(), volume=new_id(), request_id="req-x", attempt=1
    )
    line = json.loads(record.to_line("bench"))
    bare = workspace.directory / "bare.log"
    with bare.open("ab", buffering=0) as stream:
        alone = per_item(lambda: [stream.write(f"{json.dumps(line)}\n".encode()) for _ in range(count)], count)
    ours = per_item(lambda: [log.write(record) for _ in range(count)], count)
    yield Row(what="audit line, written one by one", value=ours, budget=15, bare=alone, bare_what="json, write")
    plain = record.to_line("bench")
    alone = min(per_item(lambda: [record.to_line("bench") for _ in range(count)], count) for _ in range(_ROUNDS))
    for what, key, budget in (("", None, 3), (" with a key (HMAC)", b"k" * 32, 8)):
        work = partial(_chained, plain, count, key)
        value = min(per_item(work, count) for _ in range(_ROUNDS))
        yield Row(
            what=f"audit line, its hash chain{what}", value=value, budget=budget, bare=alone, bare_what="to_line"
        )


def _chained(line: str, count: int, key: bytes | None) -> None:
    """Chain the line so many times, each in a write of its own."""
    chain = ChainState("f" * 16, key)
    for offset in range(0, count * 400, 400):
        ((_, digest),) = chain.link([line])
        chain.wrote(1, digest, offset)
