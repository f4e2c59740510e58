# SPDX-License-Identifier: Apache-2.0
"""The report's page in a real browser, as wide as a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bridge.audit import page, report
from tests.conftest import missing
from tests.lab import screenshots
from tests.lab.trail import START, extend, lines

pytestmark = pytest.mark.functional

_PROBE = """<script>addEventListener("load", () => {
  const box = [...document.querySelectorAll("svg rect")].filter(r => r.getBoundingClientRect().width > 0);
  const out = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll") &&
    e.getBoundingClientRect().right > document.documentElement.clientWidth + 1);
  const small = [...document.querySelectorAll("svg text")].filter(t => t.getBoundingClientRect().height < 8);
  document.title = `drawn=${box.length} outside=${out.length} small=${small.length}` +
    ` wide=${document.documentElement.scrollWidth} window=${document.documentElement.clientWidth}`;
});</script>"""


_FRAME = """<iframe id="f" src="page.html" style="border:0;width:WIDEpx;height:3000px"></iframe><script>
setTimeout(() => { document.title = document.getElementById("f").contentDocument.title }, 1500)</script>"""


@pytest.mark.parametrize("wide", [390, 1280])
def test_everything_is_drawn_inside_the_screen_and_can_be_read(tmp_path: Path, wide: int) -> None:
    """Bars are there, nothing needs scrolling sideways, no letter is tiny."""
    browser = shutil.which("chromium")
    if browser is None:
        missing("chromium")
    log, html = tmp_path / "audit.log", tmp_path / "page.html"
    results = ["resized", "already", "unsupported", "parked", "open", "resized"]
    told = [x for n, r in enumerate(results) for x in extend(n, result=r, at=START + 100 * n, took=0.3 * (n + 1))]
    log.write_text("".join(f"{line}\n" for line in lines(told)))
    text = page.render(report.make([log], older_than=1.0))
    # the page forbids scripts; the probe is let in for this test alone
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text).replace("</head>", f"{_PROBE}</head>")
    html.write_text(text)
    frame = tmp_path / "frame.html"  # a headless window has a least width; a frame has none
    frame.write_text(_FRAME.replace("WIDE", str(wide)))
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,3200", "--virtual-time-budget=4000",
            frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    found = re.search(r"drawn=(\d+) outside=(\d+) small=(\d+) wide=(\d+) window=(\d+)", done.stdout)
    assert found is not None, done.stderr[-500:] + done.stdout[-500:]
    drawn, outside, small, scroll, window = map(int, found.groups())
    assert drawn > 20
    assert (outside, small) == (0, 0)
    assert scroll <= window <= wide


def test_the_picture_of_the_documentation_can_be_drawn_again(tmp_path: Path) -> None:
    """By python -m tests.lab.screenshots, which has the size of the page's picture."""
    if shutil.which("chromium") is None:
        missing("chromium")
    assert screenshots.main([str(tmp_path)]) == 0
    made, kept = (tmp_path / "report.png").read_bytes(), (screenshots.PICTURES / "report.png").read_bytes()
    assert made[:24] == kept[:24]  # the header of PNG, with width and height
