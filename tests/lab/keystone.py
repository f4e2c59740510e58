# SPDX-License-Identifier: Apache-2.0
"""A real Keystone of one's own: from PyPI in a virtualenv of its own, SQLite, on loopback, stopped by pid.

Its libraries and ours need not agree, so it never shares our virtualenv. Installing takes about a minute, once per
working tree; setting one up takes some seconds, once per test run.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, Self

import requests

from tests.lab.ports import steady_port
from tests.lab.process import InBlock, ServerProcess
from tests.lab.venvs import own_python

REQUIREMENTS: Final = ("keystone==30.0.0", "cheroot>=10", "setuptools<82")
_PASSWORD: Final = "lab-secret"
_HERE: Final = Path(__file__).parent


def keystone_python() -> Path:
    """The python of Keystone's virtualenv, which is made where it is missing; raises RuntimeError."""
    return own_python("keystone", REQUIREMENTS)


class Keystone(InBlock):
    """The server. Users cinder (service and admin), svconly (service), demo (member); project `service`, `demo`."""

    def __init__(self, *, cached: bool = False) -> None:
        """`cached`: as operators have it; a revoked token then lives on for a while."""
        self._cached = cached
        self.directory = Path(tempfile.mkdtemp(prefix="eb-keystone-"))
        self.port = steady_port()
        self.url = f"http://127.0.0.1:{self.port}/v3"
        self._python = keystone_python()
        self._conf = self.directory / "keystone.conf"
        self._log = self.directory / "server.log"
        self._process = ServerProcess("Keystone", self._log)
        self._admin = ""
        self.projects: dict[str, str] = {}
        self._setup()

    def validations(self, token: str) -> int:
        """How often it was asked whom this token belongs to; a service also looks whether its own one is valid."""
        return self._said().count(f"GET /v3/auth/tokens {hashlib.sha256(token.encode()).hexdigest()}\n")

    def start(self, *, token_seconds: int = 3600) -> Self:
        """Start, and wait until it answers. Its new tokens live so long."""
        self._conf.write_text(f"{self._common}expiration = {token_seconds}\n")
        command = [str(self._python), "-P", str(_HERE / "keystone_server.py"), str(self._conf), str(self.port)]
        self._process.start(command, answers=self._answers)
        return self

    def stop(self) -> None:
        """As an operator does."""
        self._process.stop()

    def populate(self) -> Self:
        """Make the projects, users and their roles."""
        self._admin = self.token("admin", "admin")
        domain = {"domain_id": "default"}
        roles = {role["name"]: role["id"] for role in self._ask("GET", "roles")["roles"]}
        for name in ("service", "demo"):
            self.projects[name] = self._ask("POST", "projects", project={"name": name, **domain})["project"]["id"]
        for name, project, held in (
            ("cinder", "service", ("service", "admin")),
            ("svconly", "service", ("service",)),
            ("demo", "demo", ("member",)),
        ):
            user = self._ask("POST", "users", user={"name": name, "password": _PASSWORD, **domain})["user"]["id"]
            for role in held:
                self._ask("PUT", f"projects/{self.projects[project]}/users/{user}/roles/{roles[role]}")
        return self

    @property
    def password(self) -> str:
        """The password of each user."""
        return _PASSWORD

    def offer(self, kind: str, url: str, *, region: str = "RegionOne") -> None:
        """Put an endpoint of a service into the catalogue of a region, public, internal and admin."""
        self._admin = self.token("admin", "admin")
        there = self._ask("GET", f"services?type={kind}")["services"]
        made = (there or [self._ask("POST", "services", service={"name": kind, "type": kind})["service"]])[0]["id"]
        for interface in ("public", "internal", "admin"):
            endpoint = {"service_id": made, "interface": interface, "region": region, "url": url}
            self._ask("POST", "endpoints", endpoint=endpoint)

    def token(self, user: str, project: str | None, *, system: bool = False) -> str:
        """A token of this user, scoped to the project, to the system, or to nothing."""
        domain = {"id": "default"}
        scope: dict[str, Any] = {}
        if system:
            scope = {"scope": {"system": {"all": True}}}
        elif project is not None:
            scope = {"scope": {"project": {"name": project, "domain": domain}}}
        identity = {
            "methods": ["password"],
            "password": {"user": {"name": user, "domain": domain, "password": _PASSWORD}},
        }
        body = {"auth": {"identity": identity, **(scope or {"scope": "unscoped"})}}
        answer = requests.post(f"{self.url}/auth/tokens", json=body, timeout=120)
        answer.raise_for_status()
        return answer.headers["X-Subject-Token"]

    def revoke(self, token: str) -> None:
        """End a token before its time."""
        headers = {"X-Auth-Token": self._admin, "X-Subject-Token": token}
        requests.delete(f"{self.url}/auth/tokens", headers=headers, timeout=120).raise_for_status()

    def knows(self, token: str) -> bool:
        """Whether a token is valid now."""
        headers = {"X-Auth-Token": self.token("admin", "admin"), "X-Subject-Token": token}
        return bool(requests.head(f"{self.url}/auth/tokens", headers=headers, timeout=120).ok)

    def authtoken(self) -> str:
        """[keystone_authtoken] for an API in front of it."""
        return f"""\
[keystone_authtoken]
auth_type = password
auth_url = {self.url}
www_authenticate_uri = {self.url}
username = cinder
password = {_PASSWORD}
user_domain_id = default
project_name = service
project_domain_id = default
"""

    def close(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return super().__enter__().populate()

    def _setup(self) -> None:
        for repository in ("fernet", "credential"):
            (self.directory / repository).mkdir(mode=0o700)
        self._conf.write_text(self._common)
        owner = ("--keystone-user", str(os.geteuid()), "--keystone-group", str(os.getegid()))
        urls = [part for kind in ("public", "internal", "admin") for part in (f"--bootstrap-{kind}-url", self.url)]
        self._manage("db_sync")
        self._manage("fernet_setup", *owner)
        self._manage("credential_setup", *owner)
        self._manage("bootstrap", "--bootstrap-password", _PASSWORD, "--bootstrap-region-id", "RegionOne", *urls)

    @property
    def _common(self) -> str:
        return f"""\
[database]
connection = sqlite:///{self.directory}/keystone.sqlite
[fernet_tokens]
key_repository = {self.directory}/fernet
[credential]
key_repository = {self.directory}/credential
[cache]
enabled = {str(self._cached).lower()}
backend = dogpile.cache.memory
[identity]
password_hash_rounds = 4
[token]
allow_expired_window = 0
"""

    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def _manage(self, *arguments: str) -> None:
        command = [str(self._python.with_name("keystone-manage")), "--config-file", str(self._conf), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"keystone-manage {arguments[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        headers = {"X-Auth-Token": self._admin}
        answer = requests.request(method, f"{self.url}/{path}", json=body or None, headers=headers, timeout=120)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _answers(self) -> bool:
        try:
            return bool(requests.get(self.url, timeout=2).status_code == requests.codes.ok)
        except requests.RequestException:
            return False
