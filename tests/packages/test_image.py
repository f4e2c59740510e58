# SPDX-License-Identifier: Apache-2.0
"""OCI images of the control plane, built and run without Docker: an extend goes through them to a real guest."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bridge.core.extend import gib
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.functional.small_cloud import small_cloud
from tests.lab.cinder_bus import CinderBus
from tests.lab.deploy import Processes
from tests.lab.hypervisor import have_hypervisor
from tests.lab.paths import ROOT, lab_cache
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

ROLES = ("listener", "api", "engine")
USER = 64646


class Buildah:
    """buildah with a storage of its own."""

    def __init__(self, directory: Path) -> None:
        conf = directory / "storage.conf"
        conf.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{directory}/graph"\nrunroot = "{directory}/run"\n'
        )
        self.environment = dict(os.environ, CONTAINERS_STORAGE_CONF=str(conf), BUILDAH_ISOLATION="chroot")

    def __call__(self, *arguments: str) -> str:
        """Run a command; return its output."""
        done = subprocess.run(
            ["buildah", *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    """Storage that goes with the tests."""
    if os.geteuid() != 0 or shutil.which("buildah") is None or shutil.which("mmdebstrap") is None:
        missing("root, buildah or mmdebstrap")
    with TemporaryDirectory(prefix="eb-oci-", dir=lab_cache()) as directory:
        yield Buildah(Path(directory))


@pytest.fixture(scope="module")
def images(buildah: Buildah, image_base: Path) -> dict[str, str]:
    """The image of each role."""
    command = [str(ROOT / "etc/oci/build"), "--base", str(image_base), *ROLES]
    done = subprocess.run(command, env=buildah.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(ROLES, done.stdout.split(), strict=True))


def test_an_image_says_how_it_is_run(buildah: Buildah, images: dict[str, str]) -> None:
    """As an ordinary user, with the role's program; its files belong to root, so that it cannot change them."""
    for role, image in images.items():
        config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
        assert config["User"] == f"{USER}:{USER}"
        assert config["Entrypoint"] == [f"/opt/extend-bridge/bin/extend-bridge-{role}"]
    container = buildah("from", images["api"])
    writable = "find / -xdev -writable -not -path '/proc/*' -not -path '/dev/*' -not -path '/sys/*' -not -type l"
    found = set(buildah("run", container, "--", "sh", "-c", f"{writable} 2>/dev/null; true").split())
    assert {path for path in found if path.startswith(("/opt", "/usr", "/etc"))} <= {
        "/etc/hosts",
        "/etc/resolv.conf",
    }
    assert {"/var/lib/extend-bridge", "/tmp"} <= found


def test_a_role_runs_on_a_read_only_root(buildah: Buildah, images: dict[str, str], tmp_path: Path) -> None:
    """Of the whole image only a mounted /tmp can be written."""
    container = buildah("from", images["api"])
    root = buildah("mount", container)
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs tmpfs "$1/tmp"'
        f' && exec chroot --userspec={USER}:{USER} "$1" sh -c \'! touch /opt/x 2>/dev/null && ! touch /var/lib/x'
        " 2>/dev/null && cd /tmp && exec /opt/extend-bridge/bin/extend-bridge-manage --config-file /dev/null"
        " sample --part api --deployment stand-alone'"
    )
    unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "-", root]
    done = subprocess.run(unshare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[api]" in done.stdout


@pytest.mark.usefixtures("images")
def test_an_extend_goes_through_the_images_to_the_guest(
    buildah: Buildah, images: dict[str, str], vhost: Vhost
) -> None:
    """Listener, API and engine each from its image, ready by their own word; the host agent is on its host."""
    if not have_hypervisor():
        missing("QEMU, libvirt or gcc")
    with ExitStack() as stack:
        cloud = small_cloud(stack, vhost)
        site = cloud.site
        site.directory.chmod(0o777)
        bus = CinderBus(site.bus_url)
        stack.callback(bus.close)
        running = {}
        for role, image in images.items():
            container = buildah("from", image)
            command = ["run", "--volume", f"{site.directory}:{site.directory}", container, "--"]
            program = f"/opt/extend-bridge/bin/extend-bridge-{role}"
            log = stack.enter_context((site.directory / f"{role}.log").open("wb"))
            running[role] = subprocess.Popen(
                ["buildah", *command, program, "--config-file", str(site.conf)], env=buildah.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            stack.callback(running[role].wait)
            stack.callback(_end, program, str(site.conf))
            if role == "listener":
                site.audit_file.touch()
                site.audit_file.chmod(0o666)
        processes = Processes(site)
        stack.callback(processes.stop)
        processes.start("hostagent")
        processes.wait_ready()
        assert {_user(f"extend-bridge-{role}", str(site.conf)) for role in ROLES} == {USER}
        until(lambda: site.knows(cloud.guest.server_id), "the guest is known")
        body, _ = cloud.grow(2)
        bus.publish(body)
        cloud.guest.wait_size(gib(2))


def _pids(*words: str) -> list[int]:
    """Return the processes with these words in their command line, without buildah's own."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if all(word in command for word in words) and "buildah" not in command:
            found.append(int(entry.name))
    return found


def _user(*words: str) -> int:
    (pid,) = _pids(*words)
    return Path(f"/proc/{pid}").stat().st_uid


def _end(*words: str) -> None:
    for pid in _pids(*words):
        os.kill(pid, 15)
