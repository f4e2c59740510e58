# SPDX-License-Identifier: Apache-2.0
"""schemathesis puts the OpenAPI document against a running API and finds nothing outside this list."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.conformance.site import Site
from tests.lab.openapi import PATH

pytestmark = pytest.mark.functional

SWITCHED_OFF = {
    "unsupported_method": "Nova answers 404 where HTTP would say 405, and 200 at the version documents",
    "positive_data_acceptance": "which names an event may have depends on the microversion header, and the project "
    "of a path on the token: OpenAPI cannot say either",
}
"""Checks of schemathesis that are not meant for an API which answers as Nova does, each with its reason."""


def schemathesis(site: Site, directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """One run of its command line with every check that is not switched off."""
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"),
            "run", str(PATH),
            "--url", f"http://127.0.0.1:{site.port}",
            "--header", "X-Auth-Token: <admin>",
            "--checks", "all",
            "--exclude-checks", ",".join(SWITCHED_OFF),
            "--max-examples", "150",
            "--continue-on-failure",
            "--seed", "4",
            "--no-color",
            *more,
        ],
        capture_output=True, text=True, check=False, cwd=directory, timeout=600,
    )  # fmt: skip


def test_schemathesis_finds_no_answer_against_the_document(site: Site, tmp_path: Path) -> None:
    """In examples, coverage of each parameter, and fuzzing."""
    done = schemathesis(site, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in site.log.read_text()
