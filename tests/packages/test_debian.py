# SPDX-License-Identifier: Apache-2.0
"""The Debian package, built on Debian 13 and installed on a bare one: files, users, units, and a clean purge."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.chroot import output_inside

UNITS = {"extend-bridge": {"api", "engine", "listener", "all-in-one"}}
UNITS["extend-bridge-hostagent"] = UNITS["extend-bridge"] | {"hostagent"}
_ELSEWHERE = "-path /proc -prune -o -path /root -prune -o -path /var/lib/dpkg -prune"
_OURS = f"find / -xdev {_ELSEWHERE} -o -name '*extend*bridge*' -print"


@pytest.fixture(scope="module", params=sorted(UNITS))
def package(request: pytest.FixtureRequest, builder: Path) -> Path:
    """One of the two packages."""
    variant = "--hostagent" if request.param == "extend-bridge-hostagent" else ""
    said = output_inside(
        builder, f"rm -rf /root/debs; cd / && /root/extend-bridge/etc/debian/build-deb {variant} /root/debs"
    )
    return builder / said.strip().splitlines()[-1].lstrip("/")


def test_a_package_installs_works_and_purges_without_rests(package: Path, bare: Callable[[], Path]) -> None:
    """On a machine with nothing but apt; a file of the configuration, a state and a log are gone as well."""
    root, name = bare(), package.name.partition("_")[0]
    shutil.copy(package, root / "root")
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends"
    output_inside(root, f"apt-get update -q && {install} /root/{package.name}")
    units = {unit.stem for unit in (root / "usr/lib/systemd/system").glob("extend-bridge-*.service")}
    assert units == {f"extend-bridge-{part}" for part in UNITS[name]}
    listed = output_inside(root, "systemctl --root=/ list-unit-files 'extend-bridge-*' --no-legend")
    assert {line.split()[1] for line in listed.splitlines()} == {"disabled"}
    stat = output_inside(
        root, "stat -c '%U:%G %a' /etc/extend-bridge /var/lib/extend-bridge /var/log/extend-bridge"
    )
    assert stat.split("\n")[:3] == ["root:extend-bridge 750", *["extend-bridge:extend-bridge 750"] * 2]
    assert not (root / "opt/extend-bridge/bin/pip").exists()
    sample = "extend-bridge-manage sample --part engine --deployment stand-alone"
    conf, journal = "/etc/extend-bridge/extend-bridge.conf", "sqlite:////var/lib/extend-bridge/journal.sqlite3"
    output_inside(
        root,
        f"{sample} | sed 's#^connection = .*#connection = {journal}#' > {conf}"
        " && systemd-tmpfiles --create extend-bridge.conf; chmod 640 /etc/extend-bridge/*;"
        " runuser -u extend-bridge -- extend-bridge-manage db sync && extend-bridge --version"
        " && touch /var/log/extend-bridge/audit.log && systemctl --root=/ enable extend-bridge-engine",
    )
    if name == "extend-bridge-hostagent":
        output_inside(root, "/opt/extend-bridge/bin/python3 -c 'import libvirt, os_brick'")
    output_inside(root, f"DEBIAN_FRONTEND=noninteractive apt-get purge -y -q {name}")
    assert output_inside(root, _OURS).split() == []
    assert "extend-bridge" not in (root / "etc/passwd").read_text() + (root / "etc/group").read_text()


def test_the_two_packages_never_stand_side_by_side(package: Path, builder: Path) -> None:
    """Both hold the same virtualenv."""
    said = output_inside(builder, f"dpkg-deb -f /{package.relative_to(builder)} Conflicts").strip()
    assert {said, package.name.partition("_")[0]} == set(UNITS)
