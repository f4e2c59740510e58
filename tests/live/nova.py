# SPDX-License-Identifier: Apache-2.0
"""A whole Nova of one's own: Placement, API, conductor, scheduler and a nova-compute with its libvirt driver.

Nothing of Nova is replaced. It has a virtualenv of its own, because its libraries and ours need not agree.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final, Self

import requests

from tests.lab.ceph import USER
from tests.lab.ports import steady_port
from tests.lab.process import InBlock, ServerProcess
from tests.lab.venvs import own_python
from tests.live.ground import HOST, CloudGround

REQUIREMENTS: Final = (
    "nova==34.0.0", "openstack-placement", "python-novaclient", "libvirt-python", "pymysql", "cheroot>=10",
    "setuptools<82",
)  # fmt: skip
APIS: Final = ("placement", "nova")
DAEMONS: Final = ("conductor", "scheduler", "compute")
COMPUTE: Final = "compute"
QUEUE: Final = f"compute-alt.{HOST}"
"""The queue of the casts with external events to nova-compute; others go to its queue `compute`."""
_HERE: Final = Path(__file__).parent
_PLACEMENT: Final = """\
[placement_database]
connection = {database}
sync_on_startup = true
{authtoken}
"""
_CONF: Final = """\
[DEFAULT]
transport_url = {bus}
state_path = {directory}
instances_path = {directory}/instances
host = {host}
my_ip = 127.0.0.1
compute_driver = libvirt.LibvirtDriver
force_raw_images = false
heal_instance_info_cache_interval = -1
reserved_host_memory_mb = 0
rpc_response_timeout = 60
[oslo_messaging_rabbit]
{rabbit}
[wsgi]
api_paste_config = {etc}/api-paste.ini
[api_database]
connection = {api_database}
[database]
connection = {database}
[oslo_concurrency]
lock_path = {directory}/locks
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 2
[vnc]
enabled = false
[libvirt]
virt_type = qemu
cpu_mode = none
images_type = raw
connection_uri = {libvirt}
rbd_user = {user}
rbd_secret_uuid = {secret}
[nova_sys_admin]
helper_command = {helper}
[privsep_osbrick]
helper_command = {helper}
[service_user]
send_service_user_token = true
{auth}
[placement]
endpoint_override = {placement}
{auth}
[glance]
api_servers = {edge}
[neutron]
endpoint_override = {edge}
{auth}
[cinder]
endpoint_template = {cinder}/%(project_id)s
{auth}
{authtoken}
"""
_AUTH: Final = """\
auth_type = password
auth_url = {url}
username = cinder
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default"""


class NovaServices(InBlock):
    """The services on a cloud's ground. `edge` answers for Glance and Neutron."""

    def __init__(self, ground: CloudGround, edge: str) -> None:
        self._python = own_python("nova-compute", REQUIREMENTS)
        self.directory = Path(tempfile.mkdtemp(prefix="eb-nova-"))
        self._ports = {name: steady_port() for name in APIS}
        self.url = f"http://127.0.0.1:{self._ports['nova']}/v2.1"
        self._etc = self.directory / "etc"
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._servers = {
            name: ServerProcess(f"Nova's {name}", self.directory / f"{name}.log") for name in (*APIS, *DAEMONS)
        }
        self._cell0 = ground.database.new_url()
        for path in (self._etc, self.directory / "instances", self.directory / "locks"):
            path.mkdir()
        shutil.copy(self._python.parents[1] / "etc" / "nova" / "api-paste.ini", self._etc)
        self._configure(ground, edge)

    def start(self) -> Self:
        """Make the tables, start the services, and wait until the APIs answer."""
        self._manage("api_db", "sync")
        self._manage("cell_v2", "map_cell0", "--database_connection", self._cell0)
        self._manage("cell_v2", "create_cell", "--name", "cell1")
        self._manage("db", "sync")
        for name in self._servers:
            self.start_part(name)
        return self

    def start_part(self, name: str) -> None:
        """Start one service; an API is waited for."""
        if name in APIS:
            command = [str(_HERE / "nova_server.py"), name, str(self._etc), str(self._ports[name])]
        else:
            command = [str(self._python.with_name(f"nova-{name}")), "--config-file", str(self._conf)]
        self._servers[name].start(
            [str(self._python), "-P", *command],
            answers=lambda: name not in APIS or self._answers(name),
            environment=self._environment,
        )

    def stop_part(self, name: str, number: int = signal.SIGKILL) -> None:
        """Stop one service."""
        self._servers[name].stop(number)

    def send(self, name: str, number: int) -> None:
        """Send a signal to one service."""
        self._servers[name].send(number)

    def pid(self, name: str) -> int:
        """Return the pid of a service that runs."""
        pid = self._servers[name].pid
        assert pid is not None
        return pid

    def console(self, server_id: str) -> Path:
        """Return the file that the console of a server is written to."""
        return self.directory / "instances" / server_id / "console.log"

    def close(self) -> None:
        """Stop the services and remove what they wrote."""
        for server in self._servers.values():
            server.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _conf(self) -> Path:
        return self._etc / "nova.conf"

    def _configure(self, ground: CloudGround, edge: str) -> None:
        auth = _AUTH.format(url=ground.keystone.url, password=ground.keystone.password)
        authtoken = ground.keystone.authtoken()
        helper = f"{self._python} {self._python.with_name('privsep-helper')} --config-file {self._conf}"
        self._conf.write_text(
            _CONF.format(
                bus=ground.openstack_bus, rabbit=ground.rabbit, directory=self.directory, host=HOST, etc=self._etc,
                api_database=ground.database.new_url(), database=ground.database.new_url(),
                libvirt=ground.libvirtd.uri, user=USER, secret=ground.secret_id, helper=helper, auth=auth,
                placement=f"http://127.0.0.1:{self._ports['placement']}", edge=edge, cinder=ground.cinder.url,
                authtoken=authtoken,
            )
        )  # fmt: skip
        (self._etc / "placement.conf").write_text(
            _PLACEMENT.format(database=ground.database.new_url(), authtoken=authtoken)
        )

    def _manage(self, *arguments: str) -> None:
        program = str(self._python.with_name("nova-manage"))
        done = subprocess.run(
            [str(self._python), program, "--config-file", str(self._conf), *arguments],
            env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"nova-manage {' '.join(arguments)}:\n{(done.stdout + done.stderr)[-2000:]}")

    def _answers(self, name: str) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self._ports[name]}/", timeout=10).ok
        except requests.RequestException:
            return False
