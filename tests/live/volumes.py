# SPDX-License-Identifier: Apache-2.0
"""Volumes of the real Cinder: made, attached, extended and detached over its API, as Nova and users do it."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import quoteattr

import requests

from tests.lab.ceph import CephCluster
from tests.lab.keystone import Keystone
from tests.lab.waiting import until
from tests.live.cinder import BACKEND, RealCinder

_VERSION: Final = "volume 3.71"
_LOOK_EVERY: Final = 0.3  # seconds between two looks at a volume
_TOKEN_HOLDS: Final = 20.0  # seconds, much less than a token lives
_SDK: Final = """
import json, sys, openstack
auth, volume, size = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
cloud = openstack.connect(load_envvars=False, load_yaml_config=False, **auth)
cloud.block_storage.default_microversion = "3.42"
cloud.block_storage.extend_volume(volume, size)
"""


@dataclass(slots=True, kw_only=True)
class LiveVolume:
    """A volume attached to a guest, by the connection data that Cinder gave. `size` in GiB.

    `shared`: another guest may have it at the same time.
    """

    volume_id: str
    attachment_id: str
    server_id: str
    size: int
    data: dict[str, Any]
    ceph: CephCluster
    secret_id: str
    shared: bool = False

    def xml(self, target: str) -> str:
        """The <disk> element, as Nova writes it."""
        host, port = self.data["hosts"][0], self.data["ports"][0]
        cache, shareable = ("none", "<shareable/>") if self.shared else ("writeback", "")
        return (
            f"<disk type='network' device='disk'><driver name='qemu' type='raw' cache='{cache}'/>"
            f"<auth username={quoteattr(self.data['auth_username'])}>"
            f"<secret type='ceph' uuid='{self.secret_id}'/></auth>"
            f"<source protocol='rbd' name={quoteattr(self.data['name'])}><host name='{host}' port='{port}'/>"
            f"<config file={quoteattr(str(self.ceph.conf))}/></source>"
            f"<target dev='{target}' bus='virtio'/>{shareable}<serial>{self.volume_id}</serial></disk>"
        )

    def grow(self, size: int) -> None:
        """Do nothing: Cinder grows it."""

    def close(self) -> None:
        """Do nothing: the cluster is thrown away whole."""


class CinderUser:
    """Calls of a user, and those of Nova, with tokens of a real Keystone."""

    def __init__(self, keystone: Keystone, cinder: RealCinder, ceph: CephCluster, *, secret_id: str) -> None:
        self._keystone, self._cinder, self._ceph, self._secret_id = keystone, cinder, ceph, secret_id
        self._token, self._until = "", 0.0
        self._project = keystone.projects["service"]

    def make_type(self, name: str, **specs: str) -> None:
        """Make a volume type of the one backend, with these extra specs."""
        given = {"volume_backend_name": BACKEND, **specs}
        self._ask("POST", "types", {"volume_type": {"name": name, "extra_specs": given}})

    def create(self, size: int, *, kind: str | None = None) -> str:
        """Make a volume, of a type if it is given, and return its id once it is available."""
        wanted = {"size": size, "name": "live", "volume_type": kind}
        made = self._ask("POST", "volumes", {"volume": wanted})["volume"]["id"]
        self.wait_status(made, "available")
        return str(made)

    def attach(self, volume_id: str, server_id: str, host: str) -> LiveVolume:
        """Attach a volume to a server on a host, in Nova's three calls."""
        connector = {"host": host, "ip": "127.0.0.1", "platform": "x86_64", "os_type": "linux", "multipath": False}
        body = {"attachment": {"volume_uuid": volume_id, "instance_uuid": server_id, "connector": connector}}
        attachment = self._ask("POST", "attachments", body)["attachment"]
        self._ask("POST", f"attachments/{attachment['id']}/action", {"os-complete": None})
        self.wait_status(volume_id, "in-use")
        shown = self.show(volume_id)
        return LiveVolume(
            volume_id=volume_id,
            attachment_id=attachment["id"],
            server_id=server_id,
            size=shown["size"],
            shared=shown["multiattach"],
            data=attachment["connection_info"],
            ceph=self._ceph,
            secret_id=self._secret_id,
        )

    def detach(self, volume: LiveVolume) -> None:
        """Delete the attachment, with a service token as Nova does."""
        self._ask("DELETE", f"attachments/{volume.attachment_id}", service=True)
        others = [a for a in self.show(volume.volume_id)["attachments"] if a["server_id"] != volume.server_id]
        self.wait_status(volume.volume_id, "in-use" if others else "available")

    def retype(self, volume: LiveVolume, kind: str) -> None:
        """Give an attached volume another type of the same backend, and wait for it."""
        body = {"os-retype": {"new_type": kind, "migration_policy": "never"}}
        self._ask("POST", f"volumes/{volume.volume_id}/action", body)
        until(
            lambda: (shown := self.show(volume.volume_id))["volume_type"] == kind and shown["status"] == "in-use",
            lambda: f"the volume has the type {kind}: {self.show(volume.volume_id)['volume_type']}",
            every=_LOOK_EVERY,
        )

    def delete(self, volume_id: str) -> None:
        """Delete a volume and wait until it is gone."""
        self._ask("DELETE", f"volumes/{volume_id}")
        until(
            lambda: self._get(volume_id).status_code == requests.codes.not_found, "the volume is deleted",
            every=_LOOK_EVERY,
        )  # fmt: skip

    def extend(self, volume: LiveVolume, *, by: str = "cinder") -> int:
        """Extend by 1 GiB; return the new size in GiB.

        `by`: cinder for python-cinderclient's command, sdk for openstacksdk, api for one request of our own.
        """
        volume.size += 1
        if by == "api":
            self._ask("POST", f"volumes/{volume.volume_id}/action", {"os-extend": {"new_size": volume.size}})
            return volume.size
        if by == "sdk":
            arguments = ["-c", _SDK, json.dumps(self._sdk_auth()), volume.volume_id, str(volume.size)]
        else:
            program = str(self._cinder.python.with_name("cinder"))
            arguments = [program, "extend", volume.volume_id, str(volume.size)]
        done = subprocess.run(
            [str(self._cinder.python), *arguments],
            env=self._environment(), capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{by} extend: {done.returncode}\n{done.stdout}{done.stderr}")
        return volume.size

    def extended(self, volume: LiveVolume) -> float:
        """Wait until Cinder has extended the volume; return the seconds it took."""
        began = time.monotonic()
        self.wait_status(volume.volume_id, "in-use")
        assert self.show(volume.volume_id)["size"] == volume.size
        return time.monotonic() - began

    def wait_status(self, volume_id: str, status: str) -> None:
        """Wait until Cinder says so."""
        until(
            lambda: self.show(volume_id)["status"] == status,
            lambda: f"the volume is {status}, not {self.show(volume_id)['status']}",
            every=_LOOK_EVERY,
        )

    def show(self, volume_id: str) -> dict[str, Any]:
        """Return a volume as Cinder shows it."""
        answer = self._get(volume_id)
        answer.raise_for_status()
        shown: dict[str, Any] = answer.json()["volume"]
        return shown

    def _get(self, volume_id: str) -> requests.Response:
        return requests.get(f"{self._url}/volumes/{volume_id}", headers=self._headers(), timeout=120)

    @property
    def _url(self) -> str:
        return f"{self._cinder.url}/{self._project}"

    def _headers(self, *, service: bool = False) -> dict[str, str]:
        if time.monotonic() > self._until:
            self._token, self._until = self._keystone.token("cinder", "service"), time.monotonic() + _TOKEN_HOLDS
        token = self._token
        extra = {"X-Service-Token": token} if service else {}
        return {"X-Auth-Token": token, "OpenStack-API-Version": _VERSION, **extra}

    def _ask(self, method: str, path: str, body: Any = None, *, service: bool = False) -> Any:
        answer = requests.request(
            method, f"{self._url}/{path}", json=body, headers=self._headers(service=service), timeout=120
        )
        if not answer.ok:
            raise RuntimeError(f"Cinder answered {answer.status_code} to {method} {path}: {answer.text[:1000]}")
        return answer.json() if answer.content else None

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": str(Path("/usr/bin")), "OS_AUTH_URL": self._keystone.url, "OS_USERNAME": "cinder",
            "OS_PASSWORD": self._keystone.password, "OS_PROJECT_NAME": "service", "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default", "OS_VOLUME_API_VERSION": "3.42", "OS_REGION_NAME": "RegionOne",
        }  # fmt: skip

    def _sdk_auth(self) -> dict[str, Any]:
        names = {
            "auth_url": self._keystone.url, "username": "cinder", "password": self._keystone.password,
            "project_name": "service", "user_domain_id": "default", "project_domain_id": "default",
        }  # fmt: skip
        return {"auth": names, "region_name": "RegionOne"}
