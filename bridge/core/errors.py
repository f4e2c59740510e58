# SPDX-License-Identifier: Apache-2.0
"""Errors that cross the border of a part, kept here because neither side may import the other."""


class JournalRefusedError(Exception):
    """A value that the database will never take; nothing was committed. The text holds no value of any row."""


class JournalUnavailableError(Exception):
    """A journal that cannot be read or written now; nothing was committed and a retry is safe.

    `retry_after`: seconds until the next try. The text gives an operator the cause, and holds no value of any row.
    """

    def __init__(self, why: str, *, retry_after: float = 5.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class ShuttingDownError(Exception):
    """A process that was told to stop; pending messages are not acknowledged, so the broker delivers them again."""


class OperatorError(Exception):
    """An operator's command that cannot go on; the text is one line with the remedy.

    `code` is the exit code: 2 wrong usage or configuration, 3 a needed service is unreachable, 1 else.
    """

    def __init__(self, why: str, *, code: int = 2) -> None:
        super().__init__(why)
        self.code = code


class ConfigError(Exception):
    """A configuration that cannot be used; the text is one line that names the change."""
