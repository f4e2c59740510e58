# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of a test's own, and a RabbitMQ that speaks TLS only."""

import socket
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlencode

import trustme

from tests.lab.ports import steady_port
from tests.lab.rabbitmq import RabbitNode
from tests.lab.waiting import until

_NAMES: Final = ("localhost", "127.0.0.1")


class TlsFiles:
    """Files of one authority: `ca`; a server certificate of `names`; a client certificate."""

    def __init__(self, directory: Path, *names: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.cert, self.key = _written(authority.issue_cert(*(names or _NAMES)), directory, "server")
        self.client_cert, self.client_key = _written(
            authority.issue_cert("client.test", common_name="client"), directory, "client"
        )


class TlsNode(RabbitNode):
    """A node that has started once both listeners are up: the one for TLS may be the last."""

    def __init__(self, tls_port: int, config: str) -> None:
        super().__init__(config=f"listeners.ssl.1 = 127.0.0.1:{tls_port}\n{config}")
        self._tls_port = tls_port

    def start(self) -> Self:
        """Start and wait for both listeners."""
        super().start()
        until(self._listens, "the listener for TLS is up")
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._tls_port)) == 0


def tls_node(files: TlsFiles, *, client_certificates: bool = False) -> tuple[RabbitNode, int]:
    """Return a node, not yet started, with a TLS listener, and the port of that.

    Its plain listener stays for the test's own look at it; nothing that is tested is told of it.
    """
    port = steady_port()
    verify = "verify_peer" if client_certificates else "verify_none"
    config = (
        f"ssl_options.cacertfile = {files.ca}\n"
        f"ssl_options.certfile = {files.cert}\n"
        f"ssl_options.keyfile = {files.key}\n"
        f"ssl_options.verify = {verify}\n"
        f"ssl_options.fail_if_no_peer_cert = {'true' if client_certificates else 'false'}\n"
    )
    return TlsNode(port, config), port


def tls_url(port: int, *, host: str = "localhost", vhost: str = "", **query: object) -> str:
    """Return a transport_url of that listener: `ssl=1` and what `query` adds."""
    said = urlencode({"ssl": "1", **{name: str(value) for name, value in query.items()}})
    return f"rabbit://guest:guest@{host}:{port}/{vhost}?{said}"


def _written(certificate: trustme.LeafCert, directory: Path, name: str) -> tuple[Path, Path]:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    cert.write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(key))
    return cert, key
