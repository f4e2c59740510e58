# SPDX-License-Identifier: Apache-2.0
"""The Ansible role, applied to a bare Debian 13 twice: the second run changes nothing, in each deployment."""

import configparser
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import matrix
from tests.lab.chroot import copy_of, output_inside

DEPLOYMENTS = {
    "stand-alone": ["listener", "api", "engine", "hostagent"],
    "beside-nova": ["listener", "engine", "hostagent"],
    "all-in-one": ["all-in-one"],
}
SECTIONS = {
    "stand-alone": {"audit", "notifications", "journal", "cinder", "api", "endpoint", "hostagent"},
    "beside-nova": {"audit", "notifications", "journal", "cinder", "endpoint", "engine", "nova", "hostagent"},
    "all-in-one": {"audit", "notifications", "journal", "cinder", "hostagent"},
}
_PLAYED = "cd /root/extend-bridge/etc/ansible && /root/ansible/bin/ansible-playbook -i localhost, -c local"


@pytest.fixture(scope="module")
def prepared(bare_root: Callable[[], Path]) -> Path:
    """A bare Debian 13 with Ansible, a wheel of the bridge, and pip's cache of what the bridge needs."""
    root = bare_root()
    matrix.put_tree(root)
    packages = "python3-venv python3-apt systemd python3-dev libvirt-dev gcc libc6-dev pkg-config"
    output_inside(
        root,
        f"apt-get update -q && apt-get install -y -q --no-install-recommends {packages}"
        " && python3 -m venv --system-site-packages /root/ansible && /root/ansible/bin/pip -q install ansible-core"
        " && python3 -m venv /root/pip"
        " && /root/pip/bin/pip -q wheel --no-deps -w /root/wheel /root/extend-bridge"
        " && /root/pip/bin/pip -q install --no-compile $(ls /root/wheel/*.whl)'[mysql,hostagent]'",
    )
    return root


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_a_second_run_changes_nothing(deployment: str, prepared: Path, tmp_path: Path) -> None:
    root = copy_of(prepared, tmp_path / "root")
    (wheel,) = (root / "root/wheel").glob("extend_bridge-*.whl")
    urls = {part: f"rabbit://{part}:secret@broker:5672/extend_bridge" for part in DEPLOYMENTS[deployment]}
    variables = {
        "extend_bridge_deployment": deployment,
        "extend_bridge_parts": DEPLOYMENTS[deployment],
        "extend_bridge_package": f"/root/wheel/{wheel.name}",
        "extend_bridge_notifications_url": "rabbit://cinder:secret@broker:5672/",
        "extend_bridge_bus_urls": urls if deployment != "all-in-one" else {},
        "extend_bridge_host": "compute-1",
        "extend_bridge_started": False,
        "extend_bridge_no_log": False,
    }
    book = [{"hosts": "localhost", "gather_facts": True, "roles": ["extend_bridge"], "vars": variables}]
    (root / "root/extend-bridge/etc/ansible/test.yml").write_text(json.dumps(book))
    first, second = (output_inside(root, f"{_PLAYED} test.yml", debian_chroot="x") for _ in range(2))
    assert "failed=0" in first
    assert " changed=0 " in second, second
    conf = configparser.RawConfigParser()
    conf.read(root / "etc/extend-bridge/extend-bridge.conf")
    assert set(conf.sections()) == SECTIONS[deployment]
    assert conf["hostagent"].get("read_only") == ("true" if deployment == "beside-nova" else None)
    for part in DEPLOYMENTS[deployment]:
        assert (root / f"etc/systemd/system/multi-user.target.wants/extend-bridge-{part}.service").is_symlink()
        program = f"/opt/extend-bridge/bin/extend-bridge-{part}"
        files = f"--config-file /etc/extend-bridge/extend-bridge.conf --config-file /etc/extend-bridge/{part}.conf"
        unit = (root / f"etc/systemd/system/extend-bridge-{part}.service").read_text()
        assert f"ExecStart={program} {files}\n" in unit
    assert (
        output_inside(root, "stat -c '%U:%G %a' /etc/extend-bridge/*.conf | sort -u").strip()
        == "root:extend-bridge 640"
    )
