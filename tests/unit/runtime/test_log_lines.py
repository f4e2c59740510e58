# SPDX-License-Identifier: Apache-2.0
"""Our lines are oslo.log's, byte for byte, whatever a record has and an operator has set."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg
from oslo_context import context
from oslo_log import log as oslo_log
from oslo_log.formatters import ContextFormatter

from bridge.runtime import log_lines
from bridge.runtime.log_lines import LineFormatter

DATE = "%Y-%m-%d %H:%M:%S"


def pair(text: str | None = None, date: str | None = DATE) -> tuple[ContextFormatter, LineFormatter]:
    """Return oslo.log's formatter and ours, of the same options."""
    conf = cfg.ConfigOpts()
    oslo_log.register_options(conf)
    conf([])
    if text is not None:
        conf.set_override("logging_default_format_string", text)
    theirs = ContextFormatter(project="p", version="v", datefmt=date, config=conf)
    return theirs, LineFormatter(theirs)


def record(level: int = logging.INFO, message: str = "%s of %d", *args: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("bridge.api", level, "/x/y.py", 7, message, args or ("a", 3), None, func="f")
    for name, value in more.items():
        setattr(made, name, value)
    return made


def same(formatters: tuple[ContextFormatter, LineFormatter], **more: Any) -> str:
    """Return the line, which must be the same by both."""
    first, second = record(**more), record(**more)
    second.created, second.msecs = first.created, first.msecs
    theirs, ours = formatters
    expected = theirs.format(first)
    assert ours.format(second) == expected
    return str(expected)


@pytest.fixture
def in_context() -> Iterator[None]:
    context.RequestContext(user_id="u", request_id="req-7", overwrite=True)
    yield
    context._request_store.context = None


@pytest.mark.parametrize(
    "text",
    [
        None, "%(message)s", "%(asctime)s %(levelname)s %(funcName)s:%(lineno)d%(instance)s%(color)s %(message)s",
        "%(isotime)s %(message)s", "%(project)s %(version)s %(message)s", "%(error_summary)s %(message)s",
        "100%% %(process)d %(threadName)s %(message)s",
    ],
)  # fmt: skip
@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING])
def test_a_line_is_oslo_logs(text: str | None, level: int) -> None:
    assert "a of 3" in same(pair(text), level=level)


@pytest.mark.parametrize(
    "more",
    [
        {"instance": "i"}, {"instance_uuid": "u"}, {"request_id": "req-1"}, {"user_identity": "x"},
        {"resource": "r"}, {"exc_text": "Traceback"}, {"stack_info": "Stack"}, {"extra": {"a": 1}},
    ],
)  # fmt: skip
def test_what_the_code_says_beside_its_message_is_in_the_line(more: dict[str, Any]) -> None:
    same(pair(), **more)


def test_a_traceback_is_in_the_line() -> None:
    try:
        int("x")
    except ValueError:
        assert "ValueError: invalid" in same(pair(), exc_info=sys.exc_info())


@pytest.mark.usefixtures("in_context")
def test_a_context_is_in_the_line() -> None:
    assert "req-7" in same(pair())


def test_without_a_format_of_times_the_line_has_milliseconds() -> None:
    same(pair(date=None))


def test_lines_of_one_second_share_its_text_and_the_next_second_has_its_own() -> None:
    _, ours = pair("%(asctime)s")
    texts = []
    for at in (1_700_000_000.1, 1_700_000_000.9, 1_700_000_001.0, 1_700_000_000.5):
        made = record()
        made.created = at
        texts.append(ours.format(made))
    assert texts[0] == texts[1] == texts[3] != texts[2]


def test_only_oslo_logs_own_formatter_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, _ = pair()
    ours, other = logging.StreamHandler(), logging.StreamHandler()
    ours.setFormatter(theirs)
    other.setFormatter(plain := logging.Formatter("%(message)s"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [ours, other])
    log_lines.install()
    assert isinstance(ours.formatter, LineFormatter)
    assert other.formatter is plain
