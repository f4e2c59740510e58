# SPDX-License-Identifier: Apache-2.0
"""The command extend-bridge. The parts register its subcommands by entry point."""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final

from cliff.app import App
from cliff.commandmanager import CommandManager

from bridge import VERSION
from bridge.core.errors import ConfigError, JournalUnavailableError, OperatorError
from bridge.runtime.config import EXIT_UNREACHABLE, EXIT_USAGE
from bridge.runtime.listing import PrintableStream

NAMESPACE: Final = "extend_bridge.cli"


class OperatorApp(App):
    """The cliff application. An error of a command becomes one line and an exit code.

    Exit codes: 1 failed, 2 wrong usage, 3 unreachable.
    """

    LOG = logging.getLogger("extend_bridge.cli")

    def __init__(self) -> None:
        super().__init__(
            description="Operate Extend Bridge: see its state and the history of each extend, and send or close "
            "events by hand. Each command takes --config-file FILE, also in front of its name; default: "
            "/etc/extend-bridge/extend-bridge.conf.",
            version=VERSION,
            command_manager=CommandManager(NAMESPACE),
            deferred_help=True,
            stdout=PrintableStream(sys.stdout),
            stderr=PrintableStream(sys.stderr),
        )
        self.code: int | None = None

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> argparse.ArgumentParser:
        """Build the parser without abbreviations, because `--log` of a command is not the global `--log-file`."""
        kwargs = {**(argparse_kwargs or {}), "allow_abbrev": False}
        parser: argparse.ArgumentParser = super().build_option_parser(description, version, kwargs)
        return parser

    def configure_logging(self) -> None:
        """Write errors as bare lines to standard error.

        Messages of libraries are shown only with -v or in --log-file.
        """
        options = self.options
        self.LOG.handlers = [logging.StreamHandler(self.stderr)]
        self.LOG.propagate = False
        logging.lastResort = None  # a library's warning does not belong to a command's output
        if options.log_file:
            file = logging.FileHandler(options.log_file)
            file.setFormatter(logging.Formatter(self.LOG_FILE_MESSAGE_FORMAT))
            self.LOG.addHandler(file)
        if options.verbose_level > 1 or options.debug:
            logging.basicConfig(level=logging.DEBUG if options.debug else logging.INFO, stream=self.stderr)

    def clean_up(self, cmd: Any, result: int, err: BaseException | None) -> None:
        """Remember the exit code of the error."""
        super().clean_up(cmd, result, err)
        if isinstance(err, OperatorError):
            self.code = err.code
        elif isinstance(err, ConfigError):
            self.code = EXIT_USAGE
        elif isinstance(err, JournalUnavailableError):
            self.code = EXIT_UNREACHABLE

    def interact(self) -> int:
        """Print the help, because the program has no interactive shell."""
        self.parser.print_help(self.stderr)
        self.code = EXIT_USAGE
        return EXIT_USAGE


def behind_the_command(argv: Sequence[str]) -> list[str]:
    """Move leading --config-file and --config-dir behind the command, because each command defines these options.

    The other programs also accept both options in front.
    """
    rest, moved = list(argv), list[str]()
    while rest and rest[0].partition("=")[0] in {"--config-file", "--config-dir"}:
        count = 1 if "=" in rest[0] else 2
        moved, rest = [*moved, *rest[:count]], rest[count:]
    return [*rest, *moved]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    app = OperatorApp()
    result: int = app.run(behind_the_command(sys.argv[1:] if argv is None else argv))
    return result if app.code is None else app.code


if __name__ == "__main__":
    raise SystemExit(main())
