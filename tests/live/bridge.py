# SPDX-License-Identifier: Apache-2.0
"""The bridge as the README installs it: in virtualenvs; each part with its sample and a broker user."""

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import requests

from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.process import ServerProcess
from tests.lab.rabbitmq import RabbitNode
from tests.lab.waiting import until

PARTS: Final = ("listener", "api", "engine", "hostagent")
ALL_IN_ONE: Final = "all-in-one"
OPERATOR: Final = "operator"
"""The part of a person with the command extend-bridge, who has a broker user and a configuration file."""
VHOST: Final = "extend_bridge"
PASSWORD: Final = "bridge-secret"
_EXTRAS: Final = {"control": "mysql", "hypervisor": "hostagent"}


def install(directory: Path) -> None:
    """Install the project as the README says: a virtualenv for the control plane, another for the hypervisor."""

    def one(place: str) -> None:
        home = directory / place
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        command = [str(home / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*command, f"{ROOT}[{_EXTRAS[place]}]"], check=True, cwd=directory)

    with ThreadPoolExecutor(len(_EXTRAS)) as pool:
        list(pool.map(one, _EXTRAS))


class BridgeSite:
    """The configuration of each part, from the sample it prints, and its daemon."""

    def __init__(
        self,
        directory: Path,
        programs: Path | None,
        node: RabbitNode,
        host: str,
        *,
        parts: Sequence[str] = PARTS,
        deployment: str = "stand-alone",
    ) -> None:
        """`programs`: a virtualenv's bin with everything, for trying; None for those that `install` made."""
        self.directory, self.parts, self._deployment = directory, tuple(parts), deployment
        self.host = host
        self.api_port = steady_port()
        self._programs = programs
        self._node = node
        self.users: list[str] = []
        self.operator = ""
        self._ports = {part: steady_port() for part in self.parts}
        self._servers = {part: ServerProcess(part, directory / f"{part}.log") for part in self.parts}
        for name in ("etc", "log", "state"):
            (directory / name).mkdir()

    def conf(self, part: str) -> Path:
        """The configuration file of a part."""
        return self.directory / "etc" / f"{part}.conf"

    @property
    def in_one(self) -> bool:
        """Whether one process has all the parts."""
        return self.parts == (ALL_IN_ONE,)

    @property
    def journal_part(self) -> str:
        """The part whose configuration the commands about the journal read."""
        return ALL_IN_ONE if self.in_one else "engine"

    @property
    def audit_log(self) -> Path:
        """The audit log of all parts of the control plane."""
        return self.directory / "log" / "audit.log"

    def configure(self, options: Mapping[str, Mapping[str, str]], url: Mapping[str, str]) -> None:
        """Write each part's file: its sample with what an operator fills in.

        `options`: by section, used where the sample has the section. `url`: [bus] transport_url by part.
        """
        own = {"audit": {"file": str(self.audit_log)}, "api": {"bind_port": str(self.api_port)}}
        for part in self.parts:
            sample = self.run("extend-bridge-manage", "sample", "--part", part, "--deployment", self._deployment)
            conf = configparser.RawConfigParser()
            conf.read_string(sample)
            filled: dict[str, dict[str, str]] = {**own, **{name: dict(given) for name, given in options.items()}}
            filled["bus"] = {**filled.get("bus", {}), "transport_url": url.get(part, "")}
            if part == ALL_IN_ONE:
                conf.add_section("api")  # its port alone is not an operator's: two sites take turns
            for section, given in filled.items():
                if conf.has_section(section):
                    conf[section] = {**dict(conf[section]), **given}
            section = part.replace("-", "_")
            if not conf.has_section(section):
                conf.add_section(section)
            conf[section]["ops_port"] = str(self._ports[part])
            with self.conf(part).open("w") as file:
                conf.write(file)

    def make_broker_users(self) -> None:
        """Run the commands that the project prints for each part's broker user."""
        printed = self.run(
            "extend-bridge-manage", "broker-commands", "--part", "listener", "--part", "engine", "--part", OPERATOR,
            "--host", self.host, "--vhost", VHOST, "--cinder-vhost", "/",
        )  # fmt: skip
        for line in printed.splitlines():
            if not line.startswith("rabbitmqctl "):
                continue
            words = shlex.split(line)[1:]
            self._node.ctl(*words, *((PASSWORD,) if words[0] == "add_user" else ()))
        users = re.findall(r"^rabbitmqctl add_user (\S+)", printed, re.MULTILINE)
        self.operator = next(user for user in users if user.endswith(OPERATOR))
        self.users = [user for user in users if user != self.operator]

    def start(self, *parts: str) -> None:
        """Start daemons, and wait until each has an ops port."""
        for part in parts or self.parts:
            command = [str(self._program(part, f"extend-bridge-{part}")), "--config-file", str(self.conf(part))]
            self._servers[part].start(command, answers=lambda part=part: self._lives(part))  # type: ignore[misc]

    def wait_ready(self, *parts: str) -> None:
        """Wait until daemons say that they are ready."""
        for part in parts or self.parts:
            until(lambda part=part: self.ready(part), lambda part=part: f"{part} is ready: {self.words(part)}")  # type: ignore[misc]

    def pid(self, part: str) -> int:
        """Return the pid of a daemon that runs."""
        pid = self._servers[part].pid
        assert pid is not None
        return pid

    def stop(self, part: str, number: int = signal.SIGTERM) -> None:
        """End a daemon."""
        self._servers[part].stop(number)

    def send(self, part: str, number: int) -> None:
        """Send a signal to a daemon."""
        self._servers[part].send(number)

    def close(self) -> None:
        """End all daemons."""
        for server in self._servers.values():
            server.stop()

    def ready(self, part: str) -> bool:
        """Whether its ops port says so."""
        return self.words(part).startswith("200")

    def words(self, part: str) -> str:
        """Return status and text of the readiness of a daemon."""
        try:
            answer = requests.get(f"http://127.0.0.1:{self._ports[part]}/healthz/ready", timeout=5)
        except requests.RequestException as ex:
            return str(ex)
        return f"{answer.status_code} {answer.text}"

    def run(self, program: str, *arguments: str, part: str = "api", check: bool = True) -> str:
        """Run a command of ours as an operator does; return its standard output."""
        done = subprocess.run(
            [str(self._program(part, program)), *arguments],
            capture_output=True, text=True, check=False, cwd=self.directory, env=self._environment(), timeout=600,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def operator_command(self, part: str) -> str:
        """Return the operator CLI with the configuration of a part, as a line of a shell."""
        return shlex.join(self._operator(part))

    def begin(self, part: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the operator CLI with the configuration of a part, and return at once."""
        return subprocess.Popen([*self._operator(part), *arguments], cwd=self.directory, env=self._environment())

    def _operator(self, part: str) -> list[str]:
        return [str(self._program(part, "extend-bridge")), "--config-file", str(self.conf(part))]

    def _program(self, part: str, name: str) -> Path:
        place = self.directory / ("hypervisor" if part in {"hostagent", ALL_IN_ONE} else "control") / "bin"
        return (self._programs or place) / name

    @staticmethod
    def _environment() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def _lives(self, part: str) -> bool:
        try:
            return bool(requests.get(f"http://127.0.0.1:{self._ports[part]}/healthz/live", timeout=5).ok)
        except requests.RequestException:
            return False
