# SPDX-License-Identifier: Apache-2.0
"""The origin of a request: only trusted proxies say it, and only in the headers that they set."""

from pathlib import Path
from typing import Any

import falcon
import pytest
from falcon import testing
from hypothesis import given
from hypothesis import strategies as st

from bridge.api.forwarded import (
    ForwardedHeaders,
    ForwardingHeaders,
    Proxies,
    behind_proxies,
    key_of,
    origin,
    parse_address,
    proxies,
)
from bridge.api.identity import Identity
from bridge.api.settings import API_GROUPS, api_settings
from bridge.core.errors import ConfigError
from bridge.runtime import config
from tests.unit.api.fakes import PATH, Api, event

PROXY = "10.0.0.1"
KNOWN = proxies([PROXY, "10.0.1.0/24", "2001:db8:1::/48"])


def caller(x_for: str, peer: str = PROXY, known: Proxies = KNOWN) -> str:
    return origin(known, peer, ForwardingHeaders(x_for=x_for)).address


@pytest.mark.parametrize(
    ("x_for", "address"),
    [
        ("", PROXY),
        ("198.51.100.7", "198.51.100.7"),
        ("6.6.6.6, 198.51.100.7", "198.51.100.7"),  # a proxy that appends
        ("6.6.6.6, 198.51.100.7, 10.0.1.9", "198.51.100.7"),  # through two of them
        ("6.6.6.6, 10.0.1.8 , 10.0.1.9", "6.6.6.6"),
        ("10.0.1.8, 10.0.1.9", "10.0.1.8"),  # a call from a proxy itself
        ("198.51.100.7:4711", "198.51.100.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, ::ffff:10.0.1.9", "198.51.100.7"),
        ("198.51.100.7, unknown", PROXY),  # left of what is no address all is made up
        ("198.51.100.7, _hidden, 10.0.1.9", "10.0.1.9"),
        ("198.51.100.7,", PROXY),
        ("a" * 60_000, PROXY),
        ("6.6.6.6, " * 9000 + "198.51.100.7", "198.51.100.7"),
        ("6.6.6.6, " + "10.0.1.9, " * 500 + "10.0.1.9", "10.0.1.9"),
        ("198.51.100.7%eth0", "198.51.100.7"),
        ("0x7f.1", PROXY),
        ("198.51.100.7\r\nX: y", PROXY),
    ],
)
def test_the_caller_is_the_last_hop_that_is_no_trusted_proxy(x_for: str, address: str) -> None:
    assert caller(x_for) == address


@pytest.mark.parametrize("peer", ["192.0.2.9", "", "10.0.0.2", "2001:db8:2::1", "garbage"])
def test_other_peers_are_who_they_are(peer: str) -> None:
    """Whatever they say."""
    assert caller("198.51.100.7", peer) == peer


def test_a_proxy_on_a_unix_socket_has_to_be_listed_as_well() -> None:
    known = proxies(["unix"])
    assert caller("198.51.100.7", "", known) == "198.51.100.7"
    assert caller("198.51.100.7", "127.0.0.1", known) == "127.0.0.1"


def test_the_other_kind_of_headers_is_not_read() -> None:
    """A proxy that sets one kind hands the other on as its caller made it up."""
    headers = ForwardingHeaders(
        forwarded="for=6.6.6.6;host=evil.example;proto=javascript", x_for="198.51.100.7", x_proto="https"
    )
    found = origin(KNOWN, PROXY, headers)
    assert (found.address, found.scheme, found.host) == ("198.51.100.7", "https", None)
    by_rfc = proxies([PROXY], ForwardedHeaders.FORWARDED)
    headers = ForwardingHeaders(
        forwarded='for=6.6.6.6, for="[2001:db8::7]:80";host=compute.example;proto=https', x_for="6.6.6.7"
    )
    found = origin(by_rfc, PROXY, headers)
    assert (found.address, found.scheme, found.host) == ("2001:db8::7", "https", "compute.example")


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("x_proto", "https", "https"),
        ("x_proto", "javascript, HTTPS", "https"),
        ("x_proto", "javascript", None),
        ("x_proto", "https, ", None),
        ("x_host", "compute.example.org:8774", "compute.example.org:8774"),
        ("x_host", "[2001:db8::1]:8774", "[2001:db8::1]:8774"),
        ("x_host", "evil.example/", None),
        ("x_host", "evil.example@x", None),
        ("x_host", "a" * 300, None),
        ("x_host", 'x"><script>', None),
        ("x_host", "x\r\nSet-Cookie: y", None),
        ("x_prefix", "/compute", "/compute"),
        ("x_prefix", "/a/b-c/", "/a/b-c"),
        ("x_prefix", "//evil.example", None),
        ("x_prefix", "/../x", None),
        ("x_prefix", "javascript:", None),
        ("x_prefix", "/" + "a" * 300, None),
        ("x_prefix", "/a?b", None),
    ],
)
def test_what_a_trusted_proxy_says_has_to_make_sense(name: str, value: str, read: str | None) -> None:
    """It may hand on what its caller made up."""
    headers = ForwardingHeaders(**{name: value})
    found = origin(KNOWN, PROXY, headers)
    assert {"x_proto": found.scheme, "x_host": found.host, "x_prefix": found.prefix}[name] == read


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=60))
def test_any_headers_give_a_short_address(x_for: str, forwarded: str, peer: str) -> None:
    for kind in ForwardedHeaders:
        found = origin(proxies([PROXY], kind), PROXY, ForwardingHeaders(x_for=x_for, forwarded=forwarded))
        assert parse_address(found.address) is not None
    assert len(key_of(peer)) <= 45


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("198.51.100.7", "::ffff:198.51.100.7", True),
        ("198.51.100.7", "198.51.100.8", False),
        ("a" * 60_000, "b" * 60_000, True),
    ],
)
def test_failures_are_counted_by_network_of_one_subscriber(one: str, other: str, same: bool) -> None:
    """A /64 has more addresses than there is memory."""
    assert (key_of(one) == key_of(other)) is same


@pytest.mark.parametrize("word", ["0.0.0.0/0", "::/0", "proxy.example", "10.0.0.1:80", "", "unix:/run/x"])
def test_a_list_that_names_no_proxies_is_refused_in_words(word: str) -> None:
    with pytest.raises(ConfigError, match=r"\[api\] trusted_proxies: "):
        proxies([word])


class Seen:
    """Notes where callers come from."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def authenticate(self, req: falcon.Request) -> Identity:
        self.addresses.append(req.remote_addr)
        return Identity(user="u")


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "compute.example.org",
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Prefix": "/compute",
    "OpenStack-API-Version": "compute 2.51",
}


@pytest.mark.parametrize(
    ("lines", "link", "address"),
    [
        ("", "http://falconframework.org/v2.1/", "127.0.0.1"),
        ("[api]\ntrusted_proxies = 10.0.0.1", "http://falconframework.org/v2.1/", "127.0.0.1"),
        (
            "[api]\ntrusted_proxies = 10.0.0.1, 127.0.0.1",
            "https://compute.example.org/compute/v2.1/",
            "198.51.100.7",
        ),
        (
            "[oslo_middleware]\nenable_proxy_headers_parsing = true",
            "https://compute.example.org/compute/v2.1/",
            "198.51.100.7",
        ),
        (
            "[oslo_middleware]\nenable_proxy_headers_parsing = true\n[api]\ntrusted_proxies = 10.0.0.1",
            "http://falconframework.org/v2.1/",
            "127.0.0.1",
        ),
    ],
    ids=["no proxy", "another proxy", "listed", "0.1.0's option", "0.1.0's option and a list"],
)
def test_links_and_addresses_are_those_in_front_of_a_listed_proxy(
    tmp_path: Path, lines: str, link: str, address: str
) -> None:
    """0.1.0's option counts for proxies on this machine."""
    file = tmp_path / "x.conf"
    file.write_text(lines)
    conf = config.load("x", API_GROUPS, ["--config-file", str(file)], description="x")
    seen = Seen()
    api = Api(auth=seen, changes={"proxies": api_settings(conf).proxies}).client
    peer = {"REMOTE_ADDR": "127.0.0.1"}
    document = api.simulate_get("/v2.1", headers=FORWARDED, extras=peer).json
    assert document["version"]["links"][0]["href"] == link
    answer = api.simulate_post(PATH, json={"events": [event()]}, headers=FORWARDED, extras=peer)
    assert (answer.status_code, seen.addresses) == (200, [address])


def cleaned(environ: dict[str, Any]) -> dict[str, Any]:
    """The environ that the application gets."""
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], _: object) -> list[bytes]:
        seen.update(environ)
        return []

    list(behind_proxies(app, KNOWN)(environ, lambda *_: None))
    return seen


@pytest.mark.parametrize(
    "name",
    [
        "FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_FORWARDED_PORT", "X_REAL_IP",
        "X_CLIENT_IP", "X_CLUSTER_CLIENT_IP", "TRUE_CLIENT_IP", "CF_CONNECTING_IP", "X_ORIGINAL_URL", "X_HOST",
        "X_SCRIPT_NAME", "X_REMOTE_ADDR", "X_FORWARDED_SSL", "FRONT_END_HTTPS", "X_URL_SCHEME", "CLIENT_IP",
        "X_HTTP_METHOD_OVERRIDE", "X_REWRITE_URL", "X_PROXYUSER_IP", "REMOTE_USER", "X_REMOTE_USER", "VIA",
    ],
)  # fmt: skip
def test_no_forwarding_header_reaches_the_application(name: str) -> None:
    """From trusted peers neither: their word is in the environ by then."""
    for peer in (PROXY, "192.0.2.1"):
        seen = cleaned({f"HTTP_{name}": "x", "REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "x"})
        assert f"HTTP_{name}" not in seen
        assert seen["REMOTE_ADDR"] == peer


def test_headers_of_the_api_itself_stay() -> None:
    names = [
        "HTTP_X_AUTH_TOKEN", "HTTP_X_SERVICE_TOKEN", "HTTP_X_OPENSTACK_REQUEST_ID",
        "HTTP_X_OPENSTACK_NOVA_API_VERSION", "HTTP_OPENSTACK_API_VERSION", "HTTP_ACCEPT", "HTTP_AUTHORIZATION",
        "HTTP_X_ROLES", "HTTP_X_PROJECT_ID", "HTTP_X_SUBJECT_TOKEN",
    ]  # fmt: skip
    assert set(names) <= set(cleaned({**dict.fromkeys(names, "x"), "REMOTE_ADDR": "192.0.2.1"}))


@pytest.mark.parametrize("host", ["evil.example/evil?", "a b", "x" * 300, "a@b", "[::1", ""])
def test_a_host_that_is_none_does_not_stand_in_links(host: str) -> None:
    answer = testing.TestClient(Api().app).simulate_get("/", headers={"Host": host})
    assert "evil" not in answer.text
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("more", "scheme"),
    [({}, "http"), ({"HTTPS": "on"}, "https"), ({"UWSGI_SCHEME": "https"}, "https"), ({"HTTPS": ""}, "http")],
)
def test_uwsgi_believes_each_caller_and_we_do_not(more: dict[str, str], scheme: str) -> None:
    """Its url_scheme is the X-Forwarded-Proto of whoever calls; the truth is in the variables of the server."""
    environ = {"uwsgi.version": b"2", "wsgi.url_scheme": "https", "HTTP_X_FORWARDED_PROTO": "https", **more}
    assert cleaned({**environ, "REMOTE_ADDR": "192.0.2.1"})["wsgi.url_scheme"] == scheme
    assert cleaned({**environ, "REMOTE_ADDR": PROXY})["wsgi.url_scheme"] == "https"
