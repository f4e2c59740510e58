# SPDX-License-Identifier: Apache-2.0
"""The built-in server with TLS: versions, a certificate that is replaced, clients that never finish a handshake."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from bridge.core.errors import ConfigError
from bridge.http.server import HttpServer
from bridge.http.tls import TlsAdapter, TlsSettings

CA = trustme.CA()


def scheme(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """What the application sees."""
    body = environ["wsgi.url_scheme"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def issue(where: Path, serial: str) -> TlsSettings:
    """A certificate for loopback; `serial` stands in its name."""
    made = CA.issue_cert("127.0.0.1", common_name=serial)
    cert, key = where / "cert.pem", where / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    made.private_key_pem.write_to_path(key)
    CA.cert_pem.write_to_path(where / "ca.pem")
    return TlsSettings(cert_file=str(cert), key_file=str(key))


def make(settings: TlsSettings) -> HttpServer:
    return HttpServer(
        "test", scheme, host="127.0.0.1", port=0, threads=2, option="[test] port", server_name="test", grace=5,
        tls=settings, tls_option="[test] cert_file",
    )  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    part = make(issue(tmp_path, "first"))
    part.start()
    yield part
    part.stop()
    assert part.join(120)


def get(server: HttpServer, where: Path) -> str:
    return requests.get(server.url, verify=str(where / "ca.pem"), timeout=120).text


def name_shown(server: HttpServer) -> str:
    """The common name of the certificate a new connection gets."""
    context = ssl.create_default_context()
    CA.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=120) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
    ):
        subject = dict(pair[0] for pair in sock.getpeercert()["subject"])  # type: ignore[index, misc]
        return str(subject["commonName"])


def test_it_speaks_tls_and_the_application_knows(server: HttpServer, tmp_path: Path) -> None:
    """So links in the version documents are https."""
    assert server.url.startswith("https://")
    assert get(server, tmp_path) == "https"


def test_a_connection_is_kept_over_tls(server: HttpServer, tmp_path: Path) -> None:
    with requests.Session() as session:
        ca = str(tmp_path / "ca.pem")
        assert [session.get(server.url, verify=ca, timeout=120).text for _ in range(3)] == ["https"] * 3


def test_clients_that_never_finish_their_handshake_stop_nobody(server: HttpServer, tmp_path: Path) -> None:
    """cheroot alone waits for each in the loop that accepts."""
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=120) for _ in range(10)]
    try:
        assert get(server, tmp_path) == "https"
    finally:
        for sock in silent:
            sock.close()


def test_plain_http_on_the_port_is_cut_off(server: HttpServer, tmp_path: Path) -> None:
    """And nobody else suffers."""
    with pytest.raises(requests.RequestException):
        requests.get(server.url.replace("https", "http"), timeout=120)
    assert get(server, tmp_path) == "https"


def test_old_versions_are_refused(tmp_path: Path) -> None:
    """TLS 1.2 where 1.3 is asked for; nothing below 1.2 anywhere."""
    settings = issue(tmp_path, "x")
    adapter = TlsAdapter(settings, option="x")
    assert adapter.context.minimum_version == ssl.TLSVersion.TLSv1_2
    part = make(TlsSettings(cert_file=settings.cert_file, key_file=settings.key_file, minimum="1.3"))
    part.start()
    try:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection(("127.0.0.1", part.port), timeout=120) as raw,
            pytest.raises((ssl.SSLError, ConnectionResetError)),
        ):
            context.wrap_socket(raw, server_hostname="127.0.0.1")
    finally:
        part.stop()
        assert part.join(120)


def test_a_new_certificate_is_shown_after_a_reload_and_a_broken_one_is_not(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert name_shown(server) == "first"
    issue(tmp_path, "second")
    server.reload()
    assert name_shown(server) == "second"
    (tmp_path / "cert.pem").write_text("nonsense")
    server.reload()
    assert name_shown(server) == "second"
    assert "the old certificate stays in use: [test] cert_file" in caplog.text


def test_a_certificate_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """In words that name the option and the files, not the key."""
    settings = issue(tmp_path, "x")
    with pytest.raises(ConfigError, match=r"\[test\] cert_file: .*absent\.pem"):
        make(TlsSettings(cert_file=str(tmp_path / "absent.pem")))
    other = tmp_path / "other"
    other.mkdir()
    issue(other, "y")
    with pytest.raises(ConfigError, match="cannot be used"):
        make(TlsSettings(cert_file=settings.cert_file, key_file=str(other / "key.pem")))
