# SPDX-License-Identifier: Apache-2.0
"""Common parts of the operator's commands: the configuration file, their audit log, Ctrl-C."""

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from amqp.exceptions import AccessRefused
from oslo_config import cfg

from bridge.core.errors import OperatorError
from bridge.runtime import config
from bridge.runtime.audit import AuditLog, open_audit
from bridge.runtime.audit_heads import AuditProof, read_key
from bridge.runtime.bus_url import failure_words, is_memory

CONFIG_FILE: Final = "/etc/extend-bridge/extend-bridge.conf"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add the options --config-file and --config-dir, which every daemon has as well."""
    parser.add_argument(
        "--config-file",
        action="append",
        metavar="FILE",
        help=f"the daemons' configuration; may be given several times (default: {CONFIG_FILE})",
    )
    parser.add_argument(
        "--config-dir",
        action="append",
        metavar="DIR",
        help="a directory whose .conf files are read after the files; may be given several times",
    )


def add_limit_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --limit of a list."""
    parser.add_argument(
        "--limit", type=positive, default=100, metavar="N", help="show at most N rows (default: 100)"
    )


def positive(text: str) -> int:
    """Return a number of 1 or more from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def broker_words(error: BaseException, option: str) -> str:
    """Return what the broker of `option` denied to a command, or why it cannot be reached.

    Each daemon's broker user has the daemon's rights alone, so a command has a user of its own.
    """
    if isinstance(error, AccessRefused):
        return (
            f"the broker user of {option} has no right to this ({failure_words(error)}); use a configuration file "
            "with the operator's user, for which `extend-bridge-manage broker-commands --part operator` prints the "
            "commands"
        )
    return f"{option} cannot be reached: {failure_words(error)}"


def outside(url: str, option: str) -> None:
    """Refuse a bus that is in the memory of a daemon; raises OperatorError."""
    if is_memory(url):
        raise OperatorError(f"{option} is in the memory of the daemon, which this command cannot read")


def load(parsed: argparse.Namespace, groups: config.OptGroups) -> cfg.ConfigOpts:
    """Read the configuration named on the command line, else the default file if it exists. Raises ConfigError."""
    named = parsed.config_file or parsed.config_dir
    files = parsed.config_file or ([CONFIG_FILE] if not named and Path(CONFIG_FILE).exists() else [])
    argv = [word for name in files for word in ("--config-file", name)]
    argv += [word for name in parsed.config_dir or [] for word in ("--config-dir", name)]
    return config.load("extend-bridge", groups, argv, description="")


def audit(conf: cfg.ConfigOpts) -> AuditLog:
    """Open the audit log under the operator's name; without a file or the journal, lines are dropped.

    Raises ConfigError.
    """
    journald = conf.audit.journald
    path = conf.audit.file or (None if journald else "/dev/null")
    return open_audit("operator", path, journald=journald, proof=AuditProof(key=read_key(conf.audit.key_file)))


def seconds(text: str, option: str) -> float:
    """Return the seconds of a length of time like 90s, 15m, 2h, 7d; raises OperatorError."""
    try:
        return float(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError):
        raise OperatorError(f"{option}: {text!r} is not a duration such as 90s, 15m, 2h or 7d") from None


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """Yield a flag that SIGINT and SIGTERM set, so that the work in hand is finished first."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
