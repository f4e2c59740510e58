# SPDX-License-Identifier: Apache-2.0
"""Tempest from PyPI, with our plugin, against the cloud of tools/live --nova."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.paths import ROOT
from tests.lab.venvs import own_python
from tests.live.edge import IMAGE
from tests.live.nova_cloud import NovaCloud
from tests.live.servers import FLAVOR

REQUIREMENTS: Final = ("tempest==47.0.0", "-e", f"{ROOT}[tempest]")
OWN_TEST: Final = "tempest.api.volume.test_volumes_extend.VolumesExtendAttachedTest"
OUR_TESTS: Final = "bridge.tempest.cases.test_extend"
_RUN_SECONDS: Final = 600.0
_CONF: Final = """\
[DEFAULT]
log_file = {directory}/tempest.log
[oslo_concurrency]
lock_path = {directory}
[auth]
use_dynamic_credentials = true
create_isolated_networks = false
admin_username = admin
admin_password = {password}
admin_project_name = admin
admin_domain_name = Default
[identity]
auth_version = v3
uri_v3 = {keystone}
region = RegionOne
[compute]
image_ref = {image}
image_ref_alt = {image}
flavor_ref = {flavor}
flavor_ref_alt = {flavor}
build_interval = 1
build_timeout = {seconds}
[validation]
run_validation = false
[volume]
build_interval = 1
build_timeout = {seconds}
max_microversion = latest
[volume-feature-enabled]
extend_attached_volume = true
[network-feature-enabled]
api_extensions =
[service_available]
cinder = true
nova = true
neutron = true
swift = false
horizon = false
[extend_bridge]
command = {command}
console_pattern = SIZE vd[a-z] {{bytes}}\\b
seen_timeout = {seconds}
{more}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TempestResult:
    """The end of one run. `words` are the last lines that it printed."""

    ran: int
    skipped: int
    ok: bool
    words: str

    def expect_passed(self, tests: int) -> None:
        """Raise unless so many tests ran, none was skipped and none failed."""
        assert (self.ok, self.ran - self.skipped) == (True, tests), self.words


def result_of(output: str, code: int) -> TempestResult:
    """Read what testtools' runner printed."""
    ran = re.search(r"^Ran (\d+) tests?", output, re.MULTILINE)
    skipped = re.search(r"skipped=(\d+)", output)
    return TempestResult(
        ran=int(ran.group(1)) if ran else 0,
        skipped=int(skipped.group(1)) if skipped else 0,
        ok=code == 0 and ran is not None,
        words=output[-3000:],
    )


class TempestRunner:
    """Tempest with a configuration for one cloud. `seconds`: its patience for each thing it waits for."""

    def __init__(self, cloud: NovaCloud, *, seconds: int, volume_id: str = "", console: Path | None = None) -> None:
        """`volume_id`, `console`: an attached volume and its guest's console, for the test without Nova."""
        self._python = own_python("tempest", REQUIREMENTS)
        self._conf = cloud.directory / "tempest" / "tempest.conf"
        self._conf.parent.mkdir(exist_ok=True)
        more = f"volume_id = {volume_id}\nconsole_file = {console}" if volume_id else ""
        self._conf.write_text(
            _CONF.format(
                directory=self._conf.parent, password=cloud.keystone.password, keystone=cloud.keystone.url,
                image=IMAGE, flavor=FLAVOR, seconds=seconds, more=more,
                command=cloud.bridge.operator_command("engine"),
            )
        )  # fmt: skip

    def run(self, *tests: str) -> TempestResult:
        """Run tests by their Python names."""
        done = self._run("-m", "testtools.run", *tests)
        return result_of(done.stdout + done.stderr, done.returncode)

    def plugins(self) -> str:
        """Return Tempest's list of its plugins."""
        return self._run(str(self._python.with_name("tempest")), "list-plugins").stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        place = {"TEMPEST_CONFIG_DIR": str(self._conf.parent), "TEMPEST_CONFIG": self._conf.name}
        return subprocess.run(
            [str(self._python), *arguments], env={**environment, **place}, cwd=self._conf.parent,
            capture_output=True, text=True, check=False, timeout=_RUN_SECONDS,
        )  # fmt: skip
