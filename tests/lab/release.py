# SPDX-License-Identifier: Apache-2.0
"""An earlier release, taken from this repository's history, whose daemons run with today's libraries."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from tests.lab.deploy import MODULES, Processes, Site
from tests.lab.paths import ROOT

FIRST: Final = "ceac1b27"
"""The commit of 0.1.0."""


def release_tree(commit: str, directory: Path) -> Path | None:
    """Unpack a commit's packages into a directory of their own; None where the clone lacks the commit."""
    archive = directory / "release.tar"
    command = ["git", "archive", "-o", str(archive), commit, "bridge", "listener", "hostagent"]
    if subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode != 0:
        return None
    tree = directory / "release"
    with tarfile.open(archive) as packed:
        packed.extractall(tree, filter="data")
    return tree


class MixedProcesses(Processes):
    """The daemons of a site, each from the tree it was started from last."""

    def __init__(self, site: Site, earlier: Path) -> None:
        super().__init__(site)
        self._earlier = earlier

    def start_earlier(self, *names: str) -> None:
        """Start these daemons, or all four, from the earlier release."""
        environment = dict(os.environ, PYTHONPATH=str(self._earlier))
        for name in names or tuple(MODULES):
            with self.log(name).open("ab") as output:
                self._running[name] = subprocess.Popen(
                    [sys.executable, "-m", MODULES[name], "--config-file", str(self.site.conf)],
                    cwd=self._earlier, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                )  # fmt: skip
