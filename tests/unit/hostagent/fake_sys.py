# SPDX-License-Identifier: Apache-2.0
"""A small sysfs for tests of what reads it."""

from pathlib import Path

NUMBERS = {
    "/dev/sda": "8:0", "/dev/sdb": "8:16", "/dev/sdc": "8:32", "/dev/dm-0": "253:0", "/dev/dm-1": "253:1",
    "/dev/loop0": "7:0", "/dev/nvme0n1": "259:0",
}  # fmt: skip
SIZE = 5 * 512


class FakeSys:
    """A sysfs laid out as the kernel's: block/NAME, and dev/block/NUMBER a link to it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def device(self, name: str, *, size: int = 5 * 512, uuid: str = "", slaves: tuple[str, ...] = ()) -> Path:
        here = self.root / "block" / name
        (here / "slaves").mkdir(parents=True)
        (here / "dev").write_text(NUMBERS[f"/dev/{name}"] + "\n")
        self.resize(name, size)
        if uuid:
            (here / "dm").mkdir()
            (here / "dm" / "uuid").write_text(f"{uuid}\n")
            (here / "dm" / "name").write_text(f"map-of-{name}\n")
        for slave in slaves:
            (here / "slaves" / slave).symlink_to(self.root / "block" / slave)
        link = self.root / "dev" / "block" / NUMBERS[f"/dev/{name}"]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(here)
        return here

    def scsi(self, name: str) -> None:
        here = self.device(name) / "device"
        here.mkdir()
        (here / "rescan").touch()
        self.state(name, "running")

    def address(self, name: str, hctl: str, *, port: str = "", session: str = "", iqn: str = "") -> None:
        """Put the SCSI disk below its host: a Fibre Channel port, or an iSCSI session with its target."""
        old = self.root / "block" / name / "device"
        new = self.root / "devices" / f"host{hctl[0]}" / session / hctl
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
        old.symlink_to(new)
        if port:
            target = self.root / "class" / "fc_transport" / f"target{hctl.rpartition(':')[0]}"
            target.mkdir(parents=True, exist_ok=True)
            (target / "port_name").write_text(f"{port}\n")
        if iqn:
            known = self.root / "class" / "iscsi_session" / session
            known.mkdir(parents=True, exist_ok=True)
            (known / "targetname").write_text(f"{iqn}\n")

    def wwid(self, name: str, wwid: str) -> None:
        (self.root / "block" / name / "device" / "wwid").write_text(f"{wwid}\n")

    def nvme(self, name: str, *controllers: str, **identity: str) -> None:
        here = self.device(name)
        subsystem = self.root / "nvme-subsys0"
        for controller in controllers:
            (subsystem / controller).mkdir(parents=True)
            (self.root / "class" / "nvme" / controller).mkdir(parents=True)
            (self.root / "class" / "nvme" / controller / "state").write_text("live\n")
        (here / "device").symlink_to(subsystem)
        (subsystem / "subsysnqn").write_text(identity.pop("nqn", "n") + "\n")
        for key, value in identity.items():
            (here / key).write_text(f"{value}\n")

    def state(self, name: str, state: str) -> None:
        (self.root / "block" / name / "device" / "state").write_text(f"{state}\n")

    def resize(self, name: str, size: int) -> None:
        (self.root / "block" / name / "size").write_text(f"{size // 512}\n")
