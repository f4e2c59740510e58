# SPDX-License-Identifier: Apache-2.0
"""The README alone, on a bare Debian 13: its commands as they stand, then each deployment with its samples."""

import configparser
import re
import subprocess
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from bridge.core.extend import new_id
from bridge.standin.cinder import Attachment, StandInCinder
from tests.functional.conftest import Vhost
from tests.lab import matrix
from tests.lab.chroot import command_inside, environment_inside, output_inside
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

README: Final = (ROOT / "README.md").read_text()
DEPLOYMENTS: Final = {
    "stand-alone": ("listener", "api", "engine", "hostagent"),
    "beside-nova": ("listener",),
    "all-in-one": ("all-in-one",),
}
_GROUPS: Final = {"all-in-one": "all_in_one"}


def commands(section: str) -> list[str]:
    """Return the commands of a section's blocks, without their comments."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [
        line
        for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    return [line.partition("  #")[0].strip() for line in lines if not line.startswith("[") and " = " not in line]


@pytest.fixture(scope="module")
def installed(bare_root: Callable[[], Path]) -> Path:
    """A bare Debian 13 in which the commands of the README's section Install were run, one after another."""
    root = bare_root()
    matrix.put_tree(root)
    script = " && ".join(line for line in commands("Install") if line)
    output_inside(
        root, f"export DEBIAN_FRONTEND=noninteractive; cd /root/extend-bridge && apt-get update -q && {script}"
    )
    return root


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_deployment_works_as_the_readme_says(deployment: str, installed: Path, vhost: Vhost) -> None:
    """From the sample of each part: tables, the check, daemons that are ready, and a first extend on its way."""
    with ExitStack() as stack:
        nova = stack.enter_context(RecordingEndpoint())
        cinder = StandInCinder()
        volume, server = new_id(), new_id()
        info = {"driver_volume_type": "nfs", "format": "qcow2"}
        attachment = Attachment(id=new_id(), server_id=server, host="compute-1", connection_info=info)
        cinder.add_volume(volume, 2, attachment)
        served = cinder.server()
        served.start()
        stack.callback(lambda: (served.stop(), served.join(120)))
        bus = CinderBus(vhost.url)
        stack.callback(bus.close)
        walk = _Walk(installed, deployment, vhost.url, f"{served.url}/v3", nova.url)
        if deployment == "stand-alone":
            said = walk.inside("extend-bridge-manage --config-file /etc/extend-bridge/api.conf db sync")
            assert "were brought" in said
        for part in DEPLOYMENTS[deployment]:
            check = f"--part {part} --config-file /etc/extend-bridge/{part}.conf upgrade check"
            assert "Traceback" not in walk.inside(f"extend-bridge-status {check} || true")
            stack.enter_context(walk.running(part))
        for part in DEPLOYMENTS[deployment]:
            until(partial(walk.ready, part), f"{part} is ready", seconds=600)
        body, request_id = resize_end(
            volume_id=volume, server_id=server, attachment_id=attachment.id, host="compute-1", size=2
        )
        bus.publish(body)
        if deployment == "beside-nova":
            until(lambda: nova.events, "Nova has the event")
        trace = "extend-bridge audit trace"
        until(
            lambda: "posted" in walk.inside(f"{trace} {request_id} --log '/var/log/extend-bridge/audit.log'; true"),
            "the trace shows the post",
        )


class _Walk:
    """An operator in a chroot, who filled in the samples of one deployment."""

    def __init__(self, root: Path, deployment: str, bus: str, cinder: str, nova: str) -> None:
        self._root = root
        self._ports = {part: steady_port() for part in DEPLOYMENTS[deployment]}
        api = steady_port()
        self.inside(
            "for each in /var/lib/extend-bridge /var/log/extend-bridge; do rm -rf $each; mkdir -p $each; done"
        )
        for part, ops_port in self._ports.items():
            sample = self.inside(f"extend-bridge-manage sample --part {part} --deployment {deployment}")
            conf = configparser.RawConfigParser()
            conf.read_string(sample)
            filled = {
                "notifications": {"transport_url": bus},
                "bus": {"transport_url": bus},
                "journal": {"connection": "sqlite:////var/lib/extend-bridge/journal.sqlite3"},
                "cinder": {"auth_type": "none", "endpoint_override": cinder},
                "endpoint": {
                    "auth_type": "none",
                    "endpoint_override": nova if deployment == "beside-nova" else f"http://127.0.0.1:{api}/v2.1",
                },
                "api": {"bind_port": str(api)},
                "hostagent": {"libvirt_uri": "test:///default", "state_path": "/var/lib/extend-bridge"},
            }
            for section, options in filled.items():
                if conf.has_section(section) or (section == "api" and part == "all-in-one"):
                    conf[section] = {**(dict(conf[section]) if conf.has_section(section) else {}), **options}
            group = _GROUPS.get(part, part)
            conf[group] = {**(dict(conf[group]) if conf.has_section(group) else {}), "ops_port": str(ops_port)}
            with (root / f"etc/extend-bridge/{part}.conf").open("w") as file:
                conf.write(file)

    def inside(self, command: str) -> str:
        """Run a command as the README leaves the operator: with the virtualenv's programs on the path."""
        return output_inside(self._root, f"PATH=$PATH:/opt/extend-bridge/bin; {command}")

    def running(self, part: str) -> "_Daemon":
        """Return a daemon to be entered."""
        return _Daemon(self._root, part)

    def ready(self, part: str) -> bool:
        """Ask the ops port, as a monitoring does."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._ports[part]}/healthz/ready", timeout=10
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class _Daemon:
    """A daemon in the chroot, which ends with the block."""

    def __init__(self, root: Path, part: str) -> None:
        self._root = root
        self._part = part

    def __enter__(self) -> None:
        program = f"/opt/extend-bridge/bin/extend-bridge-{self._part}"
        self._process = subprocess.Popen(
            command_inside(self._root, f"exec {program} --config-file /etc/extend-bridge/{self._part}.conf"),
            env=environment_inside(self._root), stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # its namespaces end with it
        self._process.wait()
