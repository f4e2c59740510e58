# SPDX-License-Identifier: Apache-2.0
"""Errors that cross the border of a part, so that neither side has to import the other to name them."""


class JournalRefusedError(Exception):
    """The database will not take a value, now or ever; nothing was committed. It holds no value of any row."""


class JournalUnavailableError(Exception):
    """The journal cannot be read or written now; nothing was committed and it is safe to come back.

    `retry_after` in seconds: when to try again. The text says why, in words an operator can act on, and holds no
    value of any row.
    """

    def __init__(self, why: str, *, retry_after: float = 5.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class ShuttingDownError(Exception):
    """The process was told to stop; what is in hand is not acknowledged, so the broker delivers it again."""


class OperatorError(Exception):
    """An operator's command cannot go on; the text is one line that says what to do.

    `code` is the exit code: 2 wrong usage or configuration, 3 something it needs cannot be reached, 1 else.
    """

    def __init__(self, why: str, *, code: int = 2) -> None:
        super().__init__(why)
        self.code = code


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line that says what to change."""
