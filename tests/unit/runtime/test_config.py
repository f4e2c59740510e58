# SPDX-License-Identifier: Apache-2.0
"""Wrong usage is one clear line and status 2."""

import os
from pathlib import Path

import pytest

from bridge.core.errors import ConfigError
from bridge.runtime import config
from bridge.runtime.bus_url import check_url


def load(path: Path, text: str) -> object:
    """A configuration file of this text, through the door."""
    file = path / "x.conf"
    file.write_text(text)
    conf = config.load("x", [], ["--config-file", str(file)], description="x")
    return config.read(conf, config.bus_settings)


def test_a_missing_file_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        config.load("x", [], ["--config-file", "/no/such.conf"], description="x")
        return 0

    assert config.run(main, "extend-bridge-x") == 2
    assert capsys.readouterr().err == "extend-bridge-x: Failed to find some config files: /no/such.conf\n"


def test_an_unknown_option_ends_with_status_2() -> None:
    with pytest.raises(SystemExit) as ended:
        config.load("x", [], ["--no-such-option"], description="x")
    assert ended.value.code == 2


@pytest.mark.parametrize("text", ["[bus]\nheartbeat = soon\n", "[bus]\nheartbeat = 1\n"])
def test_a_value_that_cannot_be_read_names_its_option(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="heartbeat"):
        load(tmp_path, text)


def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, "this is no option\n")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_bytes(b"[DEFAULT]\n\xff\xfe = 1\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        config.load("x", [], ["--config-file", str(file)], description="x")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "is not a transport_url"),
        ("kafka://u:p@h/", "transport 'kafka' is unknown"),
        ("rabbit://", "has no host name"),
    ],
)
def test_a_transport_nobody_knows_is_refused_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        check_url(url, "[bus] transport_url")
    assert "u:p@" not in str(refused.value)
    assert str(refused.value).startswith("[bus] transport_url")


@pytest.mark.parametrize("url", ["memory://", "rabbit://u:p@h1:5672,u:p@h2:5672/v"])
def test_a_transport_we_speak_is_accepted(url: str) -> None:
    check_url(url, "[bus] transport_url")


@pytest.mark.parametrize(("given", "kept"), [(None, "timeout:2 attempts:2"), ("timeout:9", "timeout:9")])
def test_address_lookups_end_before_a_check_may_read_ready(
    given: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver's own 40 seconds cannot be interrupted; an operator's options are left as they are."""
    monkeypatch.delenv("RES_OPTIONS", raising=False)
    if given is not None:
        monkeypatch.setenv("RES_OPTIONS", given)
    config.load("x", (), ["--config-file", "/dev/null"], description="")
    assert os.environ["RES_OPTIONS"] == kept
