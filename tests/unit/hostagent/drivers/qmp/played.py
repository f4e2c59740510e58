# SPDX-License-Identifier: Apache-2.0
"""A QEMU's monitor, played: a socket that answers as told, one client at a time."""

import json
import socket
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from bridge.runtime.health import Health
from hostagent.drivers.base import DriverTools, ProbeFacts
from hostagent.drivers.qmp.driver import DRIVER, QmpHost
from hostagent.drivers.qmp.settings import QmpSettings

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'


def disk(volume_id: str, number: int = 0, size: int = 64 << 20) -> dict[str, Any]:
    """An entry of query-block."""
    image = {"filename": f"/volumes/{volume_id}", "format": "qcow2", "virtual-size": size}
    inserted = {"node-name": f"n{number}", "drv": "qcow2", "ro": False, "image": image}
    return {"device": "", "qdev": f"/machine/peripheral/d{number}/virtio-backend", "inserted": inserted}


class PlayedMonitor:
    """`say`: all that a client gets, for a stranger that is no QEMU; None plays one."""

    def __init__(self, path: Path, *, server_id: str | None = None, say: bytes | None = None) -> None:
        self.path, self.server_id, self.say = path, server_id or str(uuid.uuid4()), say
        self.volume_id = str(uuid.uuid4())
        self.commands: list[str] = []
        self.silent = False
        self.before_answer = b""
        self.blocks: list[dict[str, Any]] = [disk(self.volume_id)]
        self.errors: dict[str, str] = {}
        self.status = "running"
        path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._client: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def event(self, name: str, **data: Any) -> None:
        """Send an event to the client."""
        assert self._client is not None
        self._client.sendall(json.dumps({"event": name, "data": data}).encode() + b"\n")

    def end(self, *, leave_socket: bool = True) -> None:
        """As when QEMU was killed: its socket's name stays."""
        for one in (self._listening, self._client):
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        if not leave_socket:
            self.path.unlink(missing_ok=True)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._client, _ = self._listening.accept()
                with self._client, suppress(OSError):
                    self._talk(self._client)

    def _talk(self, client: socket.socket) -> None:
        client.sendall(GREETING if self.say is None else self.say)
        if self.say is not None:
            client.recv(1)
            return
        for line in client.makefile("rb"):
            message = json.loads(line)
            self.commands.append(message["execute"])
            while self.silent:
                threading.Event().wait(0.01)
            answer: dict[str, Any] = {"return": self._answer(message["execute"], message.get("arguments", {}))}
            if (text := self.errors.get(message["execute"])) is not None:
                answer = {"error": {"class": "GenericError", "desc": text}}
            client.sendall(self.before_answer + json.dumps({**answer, "id": message["id"]}).encode() + b"\n")

    def _answer(self, command: str, arguments: dict[str, Any]) -> Any:
        if command == "query-uuid":
            return {"UUID": self.server_id}
        if command == "query-block":
            return self.blocks
        if command == "query-named-block-nodes":
            return [
                {"file": b["inserted"]["image"]["filename"], "drv": "file"} for b in self.blocks if "inserted" in b
            ]
        if command == "query-status":
            return {"status": self.status}
        if command == "qom-get":
            found = {"serial": self.volume_id, "type": "virtio-blk-device", "parent_bus": ""}
            return found[arguments["property"]]
        if command == "block_resize":
            for block in self.blocks:
                if block["inserted"]["node-name"] == arguments["node-name"]:
                    block["inserted"]["image"]["virtual-size"] = arguments["size"]
        return {}


def opened(
    directory: Path, *, limit: float = 5.0, read_only: bool = False, health: Health | None = None
) -> QmpHost:
    """The driver on the sockets of a directory; its threads are not started."""
    return DRIVER.open(
        QmpSettings(sockets=(f"{directory}/*.qmp",), limit=limit, scan_interval=0.05),
        DriverTools(
            health=health or Health(),
            hanging=Gauge("hanging", "x", registry=CollectorRegistry()),
            file_size=lambda _path: 0,
            facts=ProbeFacts(read_only=read_only),
        ),
    )
