# SPDX-License-Identifier: Apache-2.0
"""The frame of every daemon: configuration, logs, ops port, audit log, signals."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from oslo_config import cfg
from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.runtime import config
from bridge.runtime.audit import AuditLog, JournalAudit, StreamAudit, open_audit
from bridge.runtime.audit_heads import AuditProof, KeepHead, log_head, read_key
from bridge.runtime.daemon import Daemon, Part
from bridge.runtime.health import Health
from bridge.runtime.metrics import ReadyCollector, audit_lost, bus_blocked, new_registry
from bridge.runtime.ops import OpsServer
from bridge.runtime.tracing import Spans, TracedAudit, open_spans

LOG = logging.getLogger(__name__)
S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Objects that the parts of one process share. `conf` is for oslo.messaging, which takes nothing else."""

    conf: cfg.ConfigOpts
    registry: CollectorRegistry
    health: Health = field(default_factory=Health)
    audit_file: str | None = None
    audit_journald: bool = False
    audit_key: bytes | None = None
    audit_heads_interval: float = 1.0
    audit_lost: Counter | None = None
    audit_logs: list[StreamAudit | JournalAudit] = field(default_factory=list)
    blocked: Gauge | None = None
    spans: Spans | None = None

    def on_blocked(self, blocked: bool) -> None:
        """Count a connection that the broker takes no messages from, or takes messages from again."""
        if self.blocked is not None:
            self.blocked.inc(1 if blocked else -1)

    def audit(self, part: str, keep: KeepHead = log_head) -> AuditLog:
        """Open the audit log under the name of one part; `keep` stores its heads. Raises ConfigError."""
        on_lost: Callable[[int], None] = self.audit_lost.inc if self.audit_lost is not None else lambda _: None
        kept = keep if self.audit_file or self.audit_journald or keep is not log_head else None
        log = open_audit(
            part, self.audit_file, journald=self.audit_journald, on_lost=on_lost,
            proof=AuditProof(key=self.audit_key, keep=kept, every=self.audit_heads_interval),
        )  # fmt: skip
        self.audit_logs.append(log)
        self.health.state(f"{part}.audit", log.state)
        return log if self.spans is None else TracedAudit(part, log, self.spans)

    def close_audit(self) -> None:
        """Keep the last head of each audit log, and send the last spans."""
        for log in self.audit_logs:
            log.close()
        if self.spans is not None:
            self.spans.close()


class _AuditEnd:
    """A part that closes the audit logs after all others have ended: it is started first and stopped last."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def start(self) -> None:
        """Do nothing, because the logs are open already."""

    def stop(self) -> None:
        """Keep the last heads; wait a few seconds for them at most."""
        self._process.close_audit()

    def join(self, seconds: float) -> bool:  # noqa: ARG002 - of the protocol
        """Return True at once, because `stop` has waited."""
        return True


def daemon(
    part: str,
    groups: config.OptGroups,
    reader: Callable[[cfg.ConfigOpts], S],
    build: Callable[[S, Process], Sequence[Part]],
    *,
    description: str,
    argv: Sequence[str],
) -> tuple[Daemon, Process]:
    """Wire the daemon `extend-bridge-<part>` without starting it; return the daemon and its parts' shared objects.

    `reader` makes the settings object, `build` the parts. The part's option group is its name with underscores.
    Raises ConfigError.
    """
    prog = f"extend-bridge-{part}"
    conf = config.load(
        prog,
        groups,
        argv,
        description=description,
        epilog=f"Example: {prog} --config-dir /etc/extend-bridge",
    )
    settings = config.read(conf, reader)
    ops = config.read(conf, lambda c: config.ops_settings(c, part.replace("-", "_")))
    config.setup_logging(conf, prog)
    registry, health = new_registry(part), Health()
    registry.register(ReadyCollector(health))
    process = Process(
        conf=conf,
        registry=registry,
        health=health,
        audit_file=conf.audit.file,
        audit_journald=conf.audit.journald,
        audit_key=read_key(conf.audit.key_file),
        audit_heads_interval=conf.audit.heads_interval,
        audit_lost=audit_lost(registry),
        blocked=bus_blocked(registry),
        spans=open_spans(conf.tracing.otlp_endpoint, prog),
    )
    server = OpsServer(ops, process.health, process.registry)
    parts = build(settings, process)
    if (conf.audit.file or conf.audit.journald) and not process.audit_logs:
        LOG.warning(
            "[audit] has no effect on a host agent: the engine writes the agent's steps into the engine's audit log"
        )
    if process.spans is not None and not process.audit_logs:
        LOG.warning("[tracing] has no effect on a host agent: the engine sends the spans of the agent's steps")
    return Daemon(
        prog,
        [_AuditEnd(process), server, *parts],
        health=health,
        reload=lambda: config.reload(conf),
    ), process


def serve(
    part: str,
    groups: config.OptGroups,
    reader: Callable[[cfg.ConfigOpts], S],
    build: Callable[[S, Process], Sequence[Part]],
    *,
    description: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run that daemon until a signal; return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv

    def main() -> int:
        wired, _ = daemon(part, groups, reader, build, description=description, argv=arguments)
        return wired.run()

    return config.run(main, f"extend-bridge-{part}")
