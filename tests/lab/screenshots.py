# SPDX-License-Identifier: Apache-2.0
"""Screenshots of the report's page for the documentation: python -m tests.lab.screenshots [DIRECTORY]."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bridge.audit import page, report
from tests.lab.paths import ROOT
from tests.lab.trail import START, extend, lines

PICTURES: Final = ROOT / "doc" / "source" / "images"
WIDE: Final = 960
_RESULTS: Final = [*["resized"] * 40, "already", "unsupported", *["resized"] * 15, "parked", "open", "already"]


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the pictures; 3 without chromium."""
    arguments = sys.argv[1:] if argv is None else argv
    browser = shutil.which("chromium")
    if browser is None:
        sys.stderr.write("chromium is not installed\n")
        return 3
    target = Path(arguments[0]) if arguments else PICTURES
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="eb-") as directory:
        html = Path(directory) / "report.html"
        html.write_text(example(Path(directory) / "audit.log"))
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={directory}/profile", f"--window-size={WIDE},760", "--virtual-time-budget=4000",
            f"--screenshot={target / 'report.png'}", html.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    return 0


def example(log: Path) -> str:
    """Write an example of an audit log, and return its report as a page."""
    told = [
        record
        for number, result in enumerate(_RESULTS)
        for record in extend(number, result=result, at=START + 90.0 * number, took=0.3 + (number * 7 % 13) * 0.4)
    ]
    log.write_text("".join(f"{line}\n" for line in lines(told)))
    return page.render(report.make([log], older_than=1.0))


if __name__ == "__main__":
    raise SystemExit(main())
