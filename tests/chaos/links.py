# SPDX-License-Identifier: Apache-2.0
"""A proxy between every process of a run and everything it speaks to."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy as sa

from tests.chaos.gray_plan import Service
from tests.chaos.libvirt_socket import SOCKET, PlayedLibvirtd
from tests.lab.proxy import Proxy


class Links:
    """The proxies of a run, made as URLs are asked for; `stack` closes them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._proxies: dict[tuple[str, Service, int], Proxy] = {}

    def through(self, process: str, service: Service, url: str) -> str:
        """Return the URL by way of this process's own proxy; a URL that names a file is returned as it is."""
        if url.startswith("sqlite"):
            return url
        if service in {Service.BUS, Service.NOTIFICATIONS}:
            head, _, rest = url.partition("//")
            hosts, slash, path = rest.partition("/")
            each = [self._host(process, service, n, host) for n, host in enumerate(hosts.split(","))]
            return f"{head}//{','.join(each)}{slash}{path}"
        if service is Service.JOURNAL:
            parsed = sa.make_url(url)
            assert parsed.port is not None
            port = self._proxy(process, service, 0, parsed.port).port
            return parsed.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        host = url.partition("//")[2].partition("/")[0]
        return self._proxy(process, service, 0, int(host.rpartition(":")[2])).url(url)

    def libvirt(self, process: str, state: Path) -> None:
        """Give a host agent a played libvirtd, and a proxy before it."""
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="eb-chaos-")))
        server, proxy = directory / "libvirtd", directory / "proxy"
        self._stack.enter_context(PlayedLibvirtd(server))
        self._proxies[process, Service.LIBVIRT, 0] = self._stack.enter_context(Proxy(server, listen=proxy))
        (state / SOCKET).symlink_to(proxy)

    def of(self, service: Service, processes: Iterable[str]) -> Iterator[Proxy]:
        """Return the proxies between these processes and a service."""
        wanted = set(processes)
        return (proxy for (process, to, _), proxy in self._proxies.items() if to is service and process in wanted)

    def _host(self, process: str, service: Service, number: int, host: str) -> str:
        login, at, address = host.rpartition("@")
        port = int(address.rpartition(":")[2])
        return f"{login}{at}127.0.0.1:{self._proxy(process, service, number, port).port}"

    def _proxy(self, process: str, service: Service, number: int, port: int) -> Proxy:
        key = (process, service, number)
        if key not in self._proxies:
            self._proxies[key] = self._stack.enter_context(Proxy(port))
        return self._proxies[key]
