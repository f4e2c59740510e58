# SPDX-License-Identifier: Apache-2.0
"""A RabbitMQ node of one's own: started by hand, loopback only, everything it writes in one directory.

Nothing under /etc or /var is read or touched. The Erlang port mapper is ours too and runs as a child, so that both
can be stopped by their pids.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import kombu

from bridge.runtime.broker import BROKER_ERRORS
from tests.lab.ports import steady_port
from tests.lab.process import InBlock, ServerProcess

_BIN: Final = Path("/usr/lib/rabbitmq/bin")
_COOKIE: Final = ".erlang.cookie"
_AT_ONCE: Final = 8
"""Virtual hosts that one call of rabbitmqctl makes: half a second of CPU goes into each call."""
_VERBS: Final = {
    "delete": 'rabbit_vhost:delete(V, <<"lab">>)',
    "add": 'rabbit_vhost:add(V, <<"lab">>), rabbit_auth_backend_internal:set_permissions('
    '<<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"lab">>)',
}


def have_rabbitmq() -> bool:
    """Whether the broker is installed."""
    return (_BIN / "rabbitmq-server").exists() and shutil.which("epmd") is not None


class RabbitNode(InBlock):
    """One node. `config` is added to its rabbitmq.conf, for consumer timeouts and the like.

    `beside`: a running node it shares the port mapper and the cookie with, to join it.
    """

    def __init__(
        self, directory: Path | None = None, *, config: str = "", beside: "RabbitNode | None" = None
    ) -> None:
        self._own = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="eb-rabbit-"))
        self.port, self._dist_port = steady_port(), steady_port()
        self._epmd_port: int = steady_port() if beside is None else beside._epmd_port
        self._beside = beside
        self.name = f"eb{self.port}@localhost"
        self._config = config
        self._vhosts: list[str] = []
        self._used_vhosts: list[str] = []
        self._epmd = ServerProcess("epmd", self.directory / "epmd.out")
        self._server = ServerProcess("RabbitMQ", self.directory / "server.out")

    @property
    def url(self) -> str:
        """The node as an oslo transport_url, default virtual host."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """The node as an oslo transport_url."""
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/{vhost if vhost != '/' else ''}"

    @property
    def pid(self) -> int | None:
        """The pid of the server's process group, None while it is down."""
        return self._server.pid

    @property
    def version(self) -> tuple[int, int]:
        """The release that runs, as (major, minor)."""
        with kombu.Connection(f"amqp://guest:guest@127.0.0.1:{self.port}//") as connection:
            connection.connect()
            major, minor = connection.connection.server_properties["version"].split(".")[:2]
            return int(major), int(minor)

    def start(self) -> Self:
        """Start and wait until a client can log in. Raises RuntimeError with the end of the log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nloopback_users = none\n{self._config}\n"
        )
        environment = self._environment()
        if self._beside is not None:
            self._share_cookie(self._beside)
        elif not self._epmd.running:
            self._epmd.start(
                ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                answers=lambda: _accepts(self._epmd_port), environment=environment,
            )  # fmt: skip
        self._server.start([str(_BIN / "rabbitmq-server")], answers=self._logs_in, environment=environment)
        return self

    def join(self) -> None:
        """Become a member of the cluster of the node this one is beside; what it held is gone."""
        assert self._beside is not None
        for command in (["stop_app"], ["join_cluster", self._beside.name], ["start_app"]):
            self.ctl(*command)

    def stop(self) -> None:
        """Stop as an operator does; what is durable stays on disk."""
        self._server.stop()

    def kill(self) -> None:
        """Stop as a power cut does."""
        self._server.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start again, same ports, same data."""
        self.stop()
        self.start()

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl; what it printed."""
        return subprocess.run(
            [str(_BIN / "rabbitmqctl"), "-q", "-n", self.name, *arguments],
            env=self._environment(), capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def lend_vhost(self) -> str:
        """Return the name of an empty virtual host; rabbitmqctl is dear, so it makes several at once."""
        if not self._vhosts:
            self._vhosts = [f"t-{uuid.uuid4().hex[:12]}" for _ in range(_AT_ONCE)]
            self.ctl("eval", f"{_each('delete', self._used_vhosts)}, {_each('add', self._vhosts)}.")
            self._used_vhosts.clear()
        return self._vhosts.pop()

    def return_vhost(self, name: str) -> None:
        """Take a virtual host back; it is deleted when others are made."""
        self._used_vhosts.append(name)

    def close(self) -> None:
        """Stop node and port mapper and remove what they wrote."""
        self.stop()
        self._epmd.stop()
        if self._own:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        d = str(self.directory)
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin",
            "LANG": "C.UTF-8",
            "HOME": d,  # the Erlang cookie lies here
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{d}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{d}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{d}/mnesia",
            "RABBITMQ_LOG_BASE": f"{d}/log",
            "RABBITMQ_SCHEMA_DIR": f"{d}/schema",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{d}/generated",
            "RABBITMQ_PID_FILE": f"{d}/pid",
        }

    def _share_cookie(self, other: "RabbitNode") -> None:
        cookie = self.directory / _COOKIE
        if not cookie.exists():
            cookie.write_bytes((other.directory / _COOKIE).read_bytes())
            cookie.chmod(0o400)

    def _logs_in(self) -> bool:
        try:
            with kombu.Connection(f"amqp://guest:guest@127.0.0.1:{self.port}//", connect_timeout=5) as connection:
                connection.connect()
                return True
        except BROKER_ERRORS:
            return False


def _each(verb: str, names: Sequence[str]) -> str:
    """Return Erlang that does this with each of these virtual hosts."""
    listed = ", ".join(f'<<"{name}">>' for name in names)
    return f"lists:foreach(fun(V) -> {_VERBS[verb]} end, [{listed}])"


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
