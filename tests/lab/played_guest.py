# SPDX-License-Identifier: Apache-2.0
"""A guest with an agent, played: disks with layouts whose commands change sizes as the real tools do."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.core.reasons import Reason
from hostagent.guest.answers import refused
from hostagent.guest.calls import AgentCalls
from hostagent.guest.errors import GuestLookError
from tests.lab.agent_socket import AgentRefusalError, Reply, answering

MIB = 1 << 20
VOLUME = "0af3c9e2-7d51-4a0e-9c07-3d1f0a5b6c7d"
SERVER = "11111111-2222-4333-8444-555555555555"


@dataclass
class PlayedGuest:
    """One disk, /dev/vdb, with an optional partition, LVM and a file system. All sizes in MiB.

    `dies_at`: a command before which the guest is cut off; `rules` replace the end of a command.
    """

    disk: int = 768
    partition: int | None = 511
    logical: int | None = None
    covered: int = 511
    kind: str = "ext4"
    label: str = "gpt"
    writable: bool = True
    serial: str = VOLUME[:20]
    uuid: str = "LVM-abc"
    lies: bool = False
    forbids_exec: bool = False
    dies_at: str = ""
    missing: frozenset[str] = frozenset()
    swap: bool = False
    mounted: bool = True
    volumes: int = 1
    extent: int = 4
    features: str = "has_journal extent 64bit"
    state: str = "clean"
    number: int = 1
    _unallocated: int = 0
    ran: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    _ended: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return f"/dev/vdb{self.number}" if self.partition is not None else "/dev/vdb"

    @property
    def device(self) -> str:
        return "/dev/dm-0" if self.logical is not None else self.base

    @property
    def room(self) -> int:
        return self.logical or self.partition or self.disk

    def agent(self, _server_id: str, command: Mapping[str, Any], _limit: float) -> Any:
        arguments = command.get("arguments", {})
        match command["execute"]:
            case "guest-get-fsinfo":
                return self._fsinfo()
            case "guest-get-disks":
                return self._disks()
            case "guest-exec" if self.forbids_exec:
                raise refused("CommandNotFound: The command guest-exec has been disabled for this instance")
            case "guest-exec":
                return {"pid": self._exec([arguments["path"], *arguments["arg"]])}
            case "guest-exec-status":
                return self._ended[arguments["pid"]]
        raise AssertionError(command)

    def _fsinfo(self) -> list[dict[str, Any]]:
        if not self.mounted:
            return []
        return [
            {
                "name": self.device.removeprefix("/dev/"),
                "mountpoint": "/data",
                "type": self.kind,
                "total-bytes": int(self.covered * 0.88) * MIB,
                "used-bytes": MIB,
                "disk": [{"serial": self.serial, "dev": self.base}],
            }
        ]

    def _disks(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [
            {"name": "/dev/vdb", "partition": False, "dependencies": [], "address": {"serial": self.serial}}
        ]
        if self.partition is not None:
            rows.append({"name": self.base, "partition": True, "dependencies": ["/dev/vdb"]})
        if self.logical is not None:
            rows.append({"name": "/dev/dm-0", "partition": False, "dependencies": [self.base], "alias": "vg-data"})
        return rows

    def _exec(self, argv: list[str]) -> int:
        assert all(isinstance(word, str) for word in argv)
        if argv[0] in self.missing:
            words = f"Failed to execute child process {argv[0]} (No such file or directory)"
            raise refused(f"GenericError: Guest agent command failed, error was '{words}'")
        if self.dies_at and argv[0] == self.dies_at and argv[1] != "--help":
            raise GuestLookError(Reason.FS_AGENT_SILENT, "the guest was cut off")
        self.ran.append(" ".join(argv))
        code, out = self._do(argv)
        pid = len(self.ran)
        data = base64.b64encode(out.encode()).decode()
        self._ended[pid] = {"exited": True, "exitcode": code, "out-data": data}
        return pid

    def _do(self, argv: list[str]) -> tuple[int, str]:  # noqa: C901, PLR0911 - one line per tool
        match argv:
            case ["cat", path] if path.startswith("/sys/class/block/") and path.endswith("/size"):
                name = path.split("/")[4]
                size = {"vdb": self.disk, "dm-0": self.logical}.get(name, self.partition)
                return 0, f"{(size or 0) * 2048}\n"
            case ["cat", "/sys/class/block/dm-0/dm/uuid"]:
                return 0, self.uuid
            case ["cat", "/proc/swaps"]:
                return 0, "Filename Type Size Used Priority\n" + (
                    f"{self.base} partition 1 0 -2" if self.swap else ""
                )
            case ["cat", "/proc/self/mountinfo"]:
                how = "rw" if self.writable else "ro"
                return 0, f"36 1 252:17 / /data {how},relatime shared:1 - {self.kind} {self.device} {how}\n"
            case ["sfdisk", "--json", "/dev/vdb"]:
                part = {"node": self.base, "start": 2048, "size": (self.partition or 0) * 2048, "type": "L"}
                table = {"label": self.label, "device": "/dev/vdb", "unit": "sectors", "sectorsize": 512}
                return 0, json.dumps({"partitiontable": {**table, "partitions": [part]}})
            case ["growpart", "--help"]:
                return 0, "growpart disk partition"
            case ["lvs", *_]:
                row = {"vg_name": "vg", "lv_name": "data", "lv_layout": "linear", "lv_kernel_minor": "0"}
                return 0, _report(
                    "lv", {**row, "lv_count": str(self.volumes), "vg_extent_size": str(self.extent * MIB)}
                )
            case ["pvs", *_]:
                device = self.partition or self.disk
                used = (self.logical or 0) + self._unallocated
                sizes = {"dev_size": device, "pe_start": 1, "pv_size": used, "pv_free": self._unallocated}
                row = {"pv_name": self.base, "vg_name": "vg", **{k: str(v * MIB) for k, v in sizes.items()}}
                return 0, _report("pv", row)
            case ["dumpe2fs", "-h", _]:
                return 0, (
                    f"Filesystem features:      {self.features}\nFilesystem state:         {self.state}\n"
                    f"Block count:              {self.covered * 256}\nBlock size:               4096\n"
                )
            case ["xfs_info", "/data"]:
                return 0, f"data     =      bsize=4096   blocks={self.covered * 256}, imaxpct=25\n"
            case ["btrfs", "filesystem", "show", *_]:
                size = self.covered * MIB
                return 0, f"Label: none\n\tdevid    1 size {size} used 1 path {self.device}\n"
        return self._change(argv)

    def _change(self, argv: list[str]) -> tuple[int, str]:
        self.touched.append(argv[0])
        if self.lies:
            return 0, "Successfully resized"
        match argv:
            case ["growpart", "/dev/vdb", _]:
                self.partition = self.disk - 1
            case ["pvresize", _]:
                self._unallocated = (self.partition or self.disk) - 1 - (self.logical or 0)
            case ["lvextend", "-l", "+100%FREE", "vg/data", _]:
                self.logical = (self.logical or 0) + self._unallocated
                self._unallocated = 0
            case ["resize2fs", _] | ["xfs_growfs", _] | ["btrfs", "filesystem", "resize", *_]:
                self.covered = self.room
            case _:
                raise AssertionError(argv)
        return 0, ""


def _report(what: str, row: Mapping[str, str]) -> str:
    return json.dumps({"report": [{what: [row]}]})


def reply_of(guest: PlayedGuest) -> Reply:
    """Return the reply of this guest's agent on a socket."""

    def answer(question: Mapping[str, Any]) -> Any:
        try:
            return guest.agent("", question, 0.0)
        except GuestLookError as ex:
            raise AgentRefusalError(ex.detail) from ex

    return answering(answer)


def calls_of(agents: Any, sleep: Callable[[float], bool] = lambda _: False) -> AgentCalls:
    """Return the calls of a guest whose clock goes on by each wait."""
    now = [0.0]

    def wait(seconds: float) -> bool:
        now[0] += seconds
        return sleep(seconds)

    return AgentCalls(agents, SERVER, limit=5, sleep=wait, clock=lambda: now[0])
