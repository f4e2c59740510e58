# SPDX-License-Identifier: Apache-2.0
"""Servers of the real Nova: booted, given a volume, and asked for what Nova did, over its API."""

import time
from dataclasses import dataclass
from typing import Any, Final

import requests

from tests.lab.ceph import CephCluster
from tests.lab.guest import Guest
from tests.lab.keystone import Keystone
from tests.lab.waiting import until
from tests.live.edge import IMAGE
from tests.live.nova import COMPUTE, NovaServices
from tests.live.volumes import CinderUser, LiveVolume

FLAVOR: Final = "lab"
_VERSION: Final = "compute 2.89"
_LOOK_EVERY: Final = 0.3
_TOKEN_HOLDS: Final = 600.0
EXTEND: Final = "extend_volume"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceAction:
    """An action of Nova on a server. `result` is that of nova-compute; None while there is none."""

    request_id: str
    result: str | None


class NovaUser:
    """Calls of an operator to Nova."""

    def __init__(self, keystone: Keystone, nova: NovaServices, user: CinderUser, ceph: CephCluster) -> None:
        self._keystone, self._nova, self._user, self._ceph = keystone, nova, user, ceph
        self._token, self._until = "", 0.0

    def make_flavor(self) -> None:
        """Make the flavor of all servers."""
        self._ask("POST", "flavors", {"flavor": {"id": FLAVOR, "name": FLAVOR, "ram": 32, "vcpus": 1, "disk": 1}})

    def wait_compute(self) -> None:
        """Wait until nova-compute is up and the scheduler has found its host."""
        until(
            lambda: [x["hypervisor_hostname"] for x in self._ask("GET", "os-hypervisors/detail")["hypervisors"]
                     if x["state"] == "up"],
            "Nova has a hypervisor that is up", every=_LOOK_EVERY,
        )  # fmt: skip

    def boot(self) -> Guest:
        """Boot a server and wait until its guest has named its disk."""
        body = {"name": "live", "imageRef": IMAGE, "flavorRef": FLAVOR, "networks": "none"}
        made = str(self._ask("POST", "servers", {"server": body})["server"]["id"])
        until(lambda: self._active(made), lambda: f"the server is ACTIVE: {self._said(made)}", every=_LOOK_EVERY)
        guest = Guest(disks=(), console=self._nova.console(made), server_id=made, name="live")
        until(guest.sizes, "the guest names its disk")
        return guest

    def attach(self, guest: Guest, volume_id: str) -> LiveVolume:
        """Attach a volume to a running server and wait until the guest has it."""
        body = {"volumeAttachment": {"volumeId": volume_id}}
        self._ask("POST", f"servers/{guest.server_id}/os-volume_attachments", body)
        self._user.wait_status(volume_id, "in-use")
        size = self._user.show(volume_id)["size"]
        guest.wait_size(size << 30, "vdb")
        return LiveVolume(
            volume_id=volume_id, attachment_id="", server_id=guest.server_id, size=size, data={}, ceph=self._ceph,
            secret_id="",
        )  # fmt: skip

    def delete(self, guest: Guest) -> None:
        """Delete a server and wait until it is gone."""
        self._ask("DELETE", f"servers/{guest.server_id}")
        until(
            lambda: self._request("GET", f"servers/{guest.server_id}").status_code == requests.codes.not_found,
            lambda: f"the server is deleted: {self._said(guest.server_id)}", every=_LOOK_EVERY,
        )  # fmt: skip

    def extends(self, guest: Guest) -> list[InstanceAction]:
        """Return Nova's actions extend_volume on a server, oldest first."""
        path = f"servers/{guest.server_id}/os-instance-actions"
        found = [a for a in self._ask("GET", path)["instanceActions"] if a["action"] == EXTEND]
        return [self._action(path, action["request_id"]) for action in reversed(found)]

    def wait_extended(self, guest: Guest, *, times: int = 1) -> list[InstanceAction]:
        """Wait until nova-compute has a result for so many extends of a server, and return them."""

        def done() -> list[InstanceAction]:
            found = self.extends(guest)
            return found if len(found) >= times and all(action.result for action in found) else []

        return until(done, lambda: f"Nova has done {times} extends: {self.extends(guest)}", every=_LOOK_EVERY)

    def _action(self, path: str, request_id: str) -> InstanceAction:
        shown = self._ask("GET", f"{path}/{request_id}")["instanceAction"]
        results = [e["result"] for e in shown["events"] if e["event"].startswith(COMPUTE) and e["finish_time"]]
        return InstanceAction(request_id=request_id, result=results[-1] if results else None)

    def _active(self, server_id: str) -> bool:
        status = self._ask("GET", f"servers/{server_id}")["server"]["status"]
        if status == "ERROR":
            raise RuntimeError(f"Nova cannot boot the server: {self._said(server_id)}")
        return bool(status == "ACTIVE")

    def _said(self, server_id: str) -> str:
        shown = self._ask("GET", f"servers/{server_id}")["server"]
        return f"{shown['status']}, {shown['OS-EXT-STS:task_state']}, {shown.get('fault')}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._request(method, path, body)
        if not answer.ok:
            raise RuntimeError(f"Nova answered {answer.status_code} to {method} {path}: {answer.text[:1000]}")
        return answer.json() if answer.content else None

    def _request(self, method: str, path: str, body: Any = None) -> requests.Response:
        if time.monotonic() > self._until:
            self._token, self._until = self._keystone.token("cinder", "service"), time.monotonic() + _TOKEN_HOLDS
        headers = {"X-Auth-Token": self._token, "OpenStack-API-Version": _VERSION}
        return requests.request(method, f"{self._nova.url}/{path}", json=body, headers=headers, timeout=120)
