# SPDX-License-Identifier: Apache-2.0
"""A real Cinder of one's own: API, scheduler and volume service from PyPI, its RBD driver on a Ceph of the lab.

Nothing of Cinder is replaced. Its libraries and ours need not agree, so it has a virtualenv of its own.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Self

import requests

from tests.lab.ceph import POOL, USER, CephCluster
from tests.lab.keystone import Keystone
from tests.lab.ports import steady_port
from tests.lab.process import InBlock, ServerProcess
from tests.lab.venvs import own_python

REQUIREMENTS: Final = (
    "cinder==29.0.0",
    "python-cinderclient",
    "openstacksdk",
    "pymysql",
    "cheroot>=10",
    "setuptools<82",
)
PARTS: Final = ("scheduler", "volume")
BACKEND: Final = "ceph"
_LIBRARIES: Final = ("rados", "rbd")
_SYSTEM: Final = Path("/usr/lib/python3/dist-packages")
_HERE: Final = Path(__file__).parent
_CONF: Final = """\
[DEFAULT]
auth_strategy = keystone
transport_url = {bus}
state_path = {directory}
api_paste_config = {etc}/api-paste.ini
resource_query_filters_file = {etc}/resource_filters.json
enabled_backends = ceph
host = block-1
my_ip = 127.0.0.1
rpc_response_timeout = 60
[ceph]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = ceph
rbd_pool = {pool}
rbd_user = {user}
rbd_ceph_conf = {ceph}
rbd_secret_uuid = {secret}
[database]
connection = {database}
[oslo_messaging_notifications]
driver = messagingv2
topics = extend_bridge
[oslo_messaging_rabbit]
{rabbit}
[oslo_concurrency]
lock_path = {directory}/locks
[coordination]
backend_url = file://{directory}
[nova]
auth_type = password
auth_url = {keystone}
username = cinder
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
region_name = {nova_region}
{authtoken}
"""


class RealCinder(InBlock):
    """The three services. `bus` and `rabbit`: the transport_url and the options of [oslo_messaging_rabbit].

    Its own call to Nova goes where the catalogue's compute endpoint of `nova_region` points. `secret_id`: the
    libvirt secret that connection data name.
    """

    def __init__(
        self,
        *,
        keystone: Keystone,
        ceph: CephCluster,
        database: str,
        bus: str,
        rabbit: str,
        nova_region: str,
        secret_id: str,
    ) -> None:
        self._python = own_python("cinder", REQUIREMENTS)
        self.directory = Path(tempfile.mkdtemp(prefix="eb-cinder-"))
        self.port = steady_port()
        self.url = f"http://127.0.0.1:{self.port}/v3"
        self._conf = self.directory / "cinder.conf"
        self._configure: Callable[..., str] = partial(
            _CONF.format,
            bus=bus,
            rabbit=rabbit,
            directory=self.directory,
            etc=self._python.parents[1] / "etc" / "cinder",
            pool=POOL,
            user=USER,
            ceph=ceph.conf,
            secret=secret_id,
            database=database,
            keystone=keystone.url,
            password=keystone.password,
            authtoken=keystone.authtoken(),
        )
        self._conf.write_text(self._configure(nova_region=nova_region))
        self._servers = {
            name: ServerProcess(f"cinder-{name}", self.directory / f"{name}.log") for name in ("api", *PARTS)
        }
        self._environment = {**os.environ, "PYTHONPATH": str(self._libraries()), "CEPH_CONF": str(ceph.conf)}

    def start(self) -> Self:
        """Make the tables, start the services, and wait until the volume service can take a request."""
        self._manage("db", "sync")
        for name in self._servers:
            self.start_part(name)
        return self

    def start_part(self, name: str) -> None:
        """Start one service; the API is waited for."""
        if name == "api":
            command = [str(self._python), "-P", str(_HERE / "cinder_server.py"), str(self._conf), str(self.port)]
            self._servers[name].start(command, answers=self._answers, environment=self._environment)
            return
        program = self._python.with_name(f"cinder-{name}")
        command = [str(self._python), str(program), "--config-file", str(self._conf)]
        self._servers[name].start(command, answers=lambda: True, environment=self._environment)

    def stop_part(self, name: str, number: int = signal.SIGKILL) -> None:
        """Stop one service."""
        self._servers[name].stop(number)

    def look_for_nova_in(self, region: str) -> None:
        """Restart the volume service, which from now on calls the Nova of this region."""
        self._servers["volume"].stop()
        self._conf.write_text(self._configure(nova_region=region))
        self.start_part("volume")

    def pid(self, name: str) -> int:
        """Return the pid of a service that runs."""
        pid = self._servers[name].pid
        assert pid is not None
        return pid

    def close(self) -> None:
        """Stop the services and remove what they wrote."""
        for server in self._servers.values():
            server.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def logs(self) -> list[Path]:
        """Return the log of each service."""
        return [server.output for server in self._servers.values()]

    @property
    def python(self) -> Path:
        """The python that has python-cinderclient and openstacksdk."""
        return self._python

    def _libraries(self) -> Path:
        """Return a directory with Ceph's libraries of Debian's own Python, and nothing else of it."""
        directory = self.directory / "libraries"
        directory.mkdir()
        for name in _LIBRARIES:
            for file in _SYSTEM.glob(f"{name}.*.so"):
                (directory / file.name).symlink_to(file)
        return directory

    def _manage(self, *arguments: str) -> None:
        program = self._python.with_name("cinder-manage")
        done = subprocess.run(
            [str(self._python), str(program), "--config-file", str(self._conf), *arguments],
            env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"cinder-manage {' '.join(arguments)}:\n{(done.stdout + done.stderr)[-2000:]}")

    def _answers(self) -> bool:
        try:
            answer = requests.get(f"http://127.0.0.1:{self.port}/", timeout=10)
        except requests.RequestException:
            return False
        return bool(answer.status_code == requests.codes.multiple_choices)
