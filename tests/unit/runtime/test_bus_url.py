# SPDX-License-Identifier: Apache-2.0
"""transport_url: what it may say, and words for what it must not."""

import socket
import ssl
from pathlib import Path

import amqp.exceptions
import pytest
from oslo_config import cfg
from oslo_messaging.opts import list_opts

from bridge.core.errors import ConfigError
from bridge.runtime import config, rabbit_options
from bridge.runtime.bus_url import BusHost, NotConnectedError, check_url, connect_failure, parse_bus_url
from tests.lab.broker_tls import TlsFiles

PLAIN = "rabbit://u:p@host/"


def test_without_a_query_the_connection_is_plain() -> None:
    bus = parse_bus_url("rabbit://u:p%40@one:5673,v:q@[::1]/v%2Fhost")
    assert [(host.address, host.username, host.password) for host in bus.hosts] == [
        ("one:5673", "u", "p@"),
        ("[::1]:5672", "v", "q"),
    ]
    assert (bus.vhost, bus.tls) == ("v/host", None)


@pytest.mark.parametrize("word", ["1", "true", "True", "yes", "on"])
def test_tls_is_always_verified(word: str) -> None:
    tls = parse_bus_url(f"{PLAIN}?ssl={word}").tls
    assert tls is not None
    context = tls.context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_the_host_name_may_be_left_unverified_as_in_oslo_messaging() -> None:
    tls = parse_bus_url(f"{PLAIN}?ssl=1&ssl_enforce_hostname_verification=false").tls
    assert tls is not None
    assert (tls.context().verify_mode, tls.context().check_hostname) == (ssl.CERT_REQUIRED, False)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("heartbeat=3", "[bus] heartbeat"),
        ("rabbit_quorum_queue=true", "rabbit_quorum_queue"),
        ("SSL=1", "SSL"),
        ("ssl=maybe", "neither true nor false"),
        ("ssl=", "neither true nor false"),
        ("ssl", "neither true nor false"),
        ("ssl_ca_file=/ca.pem", "without ssl=1"),
        ("ssl=0&ssl_ca_file=/ca.pem", "without ssl=1"),
        ("ssl=1&ssl_version=TLSv1", "ssl_version TLSv1"),
        ("ssl=1&ssl_key_file=/key.pem", "without ssl_cert_file"),
        ("rabbit_login_method=RABBIT-CR-DEMO", "RABBIT-CR-DEMO"),
    ],
)
def test_a_query_that_is_not_honoured_is_refused(query: str, words: str) -> None:
    with pytest.raises(ConfigError) as told:
        check_url(f"{PLAIN}?{query}", "[bus] transport_url")
    assert words in str(told.value)
    assert "[bus] transport_url" in str(told.value)


def test_a_password_that_is_not_encoded_is_named_without_showing_it() -> None:
    for url in (
        "rabbit://u:SECRET#w@host/",
        "rabbit://u:SECRET/w@host/",
        "rabbit://u:SEC?RET@host/",
        "rabbit://[u:SECRET@h",
    ):
        with pytest.raises(ConfigError, match="%23") as told:
            check_url(url, "[bus] transport_url")
        assert "SEC" not in str(told.value)


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    for path in (tmp_path / "missing", tmp_path / "empty", tmp_path):
        with pytest.raises(ConfigError, match=r"ssl_ca_file|TLS files"):
            check_url(f"{PLAIN}?ssl=1&ssl_ca_file={path}", "[bus] transport_url")
    files = TlsFiles(tmp_path / "tls")
    with pytest.raises(ConfigError, match="TLS files"):
        check_url(
            f"{PLAIN}?ssl=1&ssl_cert_file={files.client_cert}&ssl_key_file={files.key}", "[bus] transport_url"
        )
    check_url(
        f"{PLAIN}?ssl=1&ssl_ca_file={files.ca}&ssl_cert_file={files.client_cert}&ssl_key_file={files.client_key}",
        "[bus] transport_url",
    )


def load(tmp_path: Path, text: str) -> str:
    """Return [bus] transport_url as the parts take it."""
    file = tmp_path / "bridge.conf"
    file.write_text(text)
    conf = config.load("test", [], ["--config-file", str(file)], description="")
    return config.bus_settings(conf).transport_url


def test_the_section_of_oslo_messaging_serves_every_bus(tmp_path: Path) -> None:
    section = "[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = /etc/ca &.pem\nrabbit_login_method = EXTERNAL\n"
    bus = parse_bus_url(load(tmp_path, f"[bus]\ntransport_url = {PLAIN}\n{section}"))
    assert bus.tls is not None
    assert (bus.tls.ca_file, bus.login_method) == ("/etc/ca &.pem", "EXTERNAL")


def test_the_url_goes_before_the_section(tmp_path: Path) -> None:
    section = "[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = /section.pem\n"
    assert parse_bus_url(load(tmp_path, f"[bus]\ntransport_url = {PLAIN}?ssl=0\n{section}")).tls is None
    tls = parse_bus_url(load(tmp_path, f"[bus]\ntransport_url = {PLAIN}?ssl_ca_file=/url.pem\n{section}")).tls
    assert tls is not None
    assert tls.ca_file == "/url.pem"


def test_a_section_without_ssl_leaves_the_connection_plain(tmp_path: Path) -> None:
    section = "[oslo_messaging_rabbit]\nssl_ca_file = /section.pem\nheartbeat_timeout_threshold = 9\n"
    assert load(tmp_path, f"[bus]\ntransport_url = {PLAIN}\n{section}") == PLAIN
    assert load(tmp_path, f"[bus]\ntransport_url = memory://\n{section}ssl = true\n") == "memory://"


def test_an_option_of_the_section_that_no_connection_uses_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bridge.conf"
    file.write_text("[oslo_messaging_rabbit]\nssl = true\nheartbeat_rate = often\nrabbit_ha_queues = true\n")
    conf = config.load("test", [], ["--config-file", str(file)], description="")
    assert rabbit_options.unused_options(conf) == ["heartbeat_rate", "rabbit_ha_queues"]


def test_every_option_of_oslo_messagings_section_is_known() -> None:
    conf = cfg.ConfigOpts()
    rabbit_options.register(conf)
    theirs = {opt.dest for group, opts in list_opts() if str(group) == rabbit_options.GROUP for opt in opts}
    assert theirs <= set(conf[rabbit_options.GROUP])


@pytest.mark.parametrize(
    "url",
    [
        "rabbit://u:p@host:port/", "rabbit://u:p@[::1/", "rabbit://u:p@[::1]5672/", "u:p@host", "rabbit:///v", "",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\[bus\] transport_url") as info:
        parse_bus_url(url, "[bus] transport_url")
    assert "p@" not in str(info.value)


def test_a_host_without_a_login_is_the_guest_and_an_address_needs_no_brackets_without_a_port() -> None:
    hosts = parse_bus_url("rabbit://one,2001:db8::1,u:a:b@two:5673").hosts
    assert [(h.hostname, h.port, h.username, h.password) for h in hosts] == [
        ("one", 5672, "guest", "guest"), ("2001:db8::1", 5672, "guest", "guest"), ("two", 5673, "u", "a:b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (amqp.exceptions.NotAllowed("NOT_ALLOWED - vhost v not found", (10, 40)), "vhost v not found"),
        (amqp.exceptions.AccessRefused("ACCESS_REFUSED - Login was refused", (0, 0)), "login of u"),
        (socket.gaierror(-2, "Name or service not known"), "does not resolve"),
        (ConnectionRefusedError(), "no broker listens"),
        (TimeoutError(), "no answer in time"),
        (OSError("Server unexpectedly closed connection"), "TLS port"),
        (ConnectionResetError(), "TLS port"),
    ],
)
def test_a_host_that_does_not_take_us_is_named_with_the_reason(error: Exception, words: str) -> None:
    bus = parse_bus_url(PLAIN)
    assert words in connect_failure(bus, bus.hosts[0], error)


def test_hosts_with_the_same_failure_are_named_together() -> None:
    hosts = [BusHost(hostname=name, port=1, username="u", password="p") for name in ("one", "two", "three")]
    failure = NotConnectedError([(hosts[0], "refused"), (hosts[1], "silent"), (hosts[2], "refused")])
    assert str(failure) == "one:1, three:1: refused; two:1: silent"
