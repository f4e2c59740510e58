# SPDX-License-Identifier: Apache-2.0
"""The audit line, written one by one."""

import json
from collections.abc import Iterator

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import new_id
from bridge.runtime.audit import StreamAudit
from tests.benchmarks.measure import Row, per_item
from tests.benchmarks.workspace import Workspace


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
