# SPDX-License-Identifier: Apache-2.0
"""Guests of plain QEMU for the contract suite."""

import json
import shutil
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostagent.drivers.contract.factory import Ability
from tests.lab.disks import RawFile
from tests.lab.plain_qemu import PlainQemu


class QmpContractGuest:
    """One QEMU."""

    def __init__(self, qemu: PlainQemu, *, agent: bool) -> None:
        self.qemu = qemu
        self.server_id = qemu.server_id
        self.volumes = tuple(disk.volume_id for disk in qemu.guest.disks)
        self._agent = PlayedAgent(qemu.agent_socket) if agent else None

    def size(self, volume_id: str) -> int:
        """As QEMU says on the test's own monitor."""
        return self.qemu.size(self.volumes.index(volume_id))

    def seen(self, volume_id: str) -> list[int]:
        """As the guest printed."""
        return self.qemu.guest.sizes(self.qemu.guest.targets()[self.volumes.index(volume_id)])

    def reset(self) -> None:
        """The reset button."""
        self.qemu.execute("system_reset")

    def unplug(self, volume_id: str) -> None:
        """The tiny guest answers no unplug; a reset completes it."""
        self.qemu.execute("device_del", id=f"disk{self.volumes.index(volume_id)}")
        self.qemu.execute("system_reset")

    def freeze(self) -> None:
        """Stop QEMU's process."""
        self.qemu.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.qemu.signal(signal.SIGCONT)

    def agent_answers(self, text: bytes | None) -> None:
        """See PlayedAgent."""
        assert self._agent is not None
        self._agent.answer = text

    def stop(self) -> None:
        """Kill it."""
        self.qemu.stop()
        self.qemu.socket.unlink(missing_ok=True)
        if self._agent is not None:
            self._agent.close()


class PlayedAgent:
    """A guest's agent, played on the socket where QEMU would hand on what the guest writes."""

    def __init__(self, path: Path) -> None:
        self.answer: bytes | None = b"{}"
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with connection, suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        for line in connection.makefile("rb"):
            question = json.loads(line.rpartition(b"\xff")[2])
            if question["execute"] == "guest-sync-delimited":
                reply = json.dumps({"return": question["arguments"]["id"]}).encode()
                connection.sendall(b'{"return": "of an earlier call"}\n\xff' + reply + b"\n")
            elif self.answer is not None:
                connection.sendall(self.answer + b"\n")


class QmpFactory:
    """QEMUs in one directory."""

    can = frozenset(Ability)

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="eb-"))

    def options(self) -> Mapping[str, Mapping[str, Any]]:
        """Short limits: a frozen guest costs one."""
        return {"qmp": {"sockets": [f"{self._directory}/*.qmp"], "limit": 3.0, "scan_interval": 0.2}}

    def start(
        self, sizes: list[int], *, volumes: list[str] | None = None, bus: str = "notifying", agent: bool = False
    ) -> QmpContractGuest:
        """See ContractFactory."""
        ids = volumes or [str(uuid.uuid4()) for _ in sizes]
        disks = [
            RawFile(self._directory / volume_id, size, volume_id=volume_id)
            for size, volume_id in zip(sizes, ids, strict=True)
        ]
        qemu = PlainQemu(self._directory, disks, bus="virtio" if bus == "notifying" else "ide")
        return QmpContractGuest(qemu.start(), agent=agent)

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self._directory, ignore_errors=True)
