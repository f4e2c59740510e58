# SPDX-License-Identifier: Apache-2.0
"""Who may come in is decided before the port is open."""

import pytest

from bridge.api.settings import API_GROUPS, api_settings, refuse_open_door
from bridge.core.errors import ConfigError
from bridge.runtime import config
from tests.unit.api.fakes import settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_noauth_is_for_this_machine(host: str) -> None:
    """On a loopback address nobody else can come in."""
    refuse_open_door(settings(bind_host=host), built_in=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "bridge.example.org"])
def test_noauth_elsewhere_is_refused_in_words(host: str) -> None:
    """Unless the operator insists."""
    with pytest.raises(ConfigError, match=r"noauth is refused on .*force_noauth"):
        refuse_open_door(settings(bind_host=host), built_in=True)
    refuse_open_door(settings(bind_host=host, force_noauth=True), built_in=True)


def test_noauth_under_an_external_server_is_refused_in_words() -> None:
    """We cannot see its address."""
    with pytest.raises(ConfigError, match=r"external WSGI server.*force_noauth"):
        refuse_open_door(settings(), built_in=False)
    refuse_open_door(settings(force_noauth=True), built_in=False)


def test_the_defaults_are_safe() -> None:
    """A file that says nothing serves this machine only."""
    conf = config.load("extend-bridge-api", API_GROUPS, [], description="")
    read = config.read(conf, api_settings)
    assert (read.bind_host, read.bind_port, read.force_noauth) == ("127.0.0.1", 8786, False)
    refuse_open_door(read, built_in=True)
