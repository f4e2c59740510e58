# SPDX-License-Identifier: Apache-2.0
"""Settings are read from options by name: every option reaches the settings of its part."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from bridge.api.settings import API_GROUPS, api_settings
from bridge.engine.settings import engine_groups, engine_settings
from bridge.runtime import config
from bridge.runtime.config import OptGroups
from hostagent.settings import hostagent_groups, hostagent_settings
from listener.settings import listener_groups, listener_settings

Reader = Callable[[cfg.ConfigOpts], object]

PARTS: tuple[tuple[str, OptGroups, Reader], ...] = (
    ("api", API_GROUPS, api_settings),
    ("engine", engine_groups(), engine_settings),
    ("journal", engine_groups(), engine_settings),
    ("locator", engine_groups(), engine_settings),
    ("hostagent", hostagent_groups(), hostagent_settings),
    ("key_manager", hostagent_groups(), hostagent_settings),
    ("listener", listener_groups(), listener_settings),
)
BUS = "[notifications]\ntransport_url = rabbit://u:p@h/\n[bus]\ntransport_url = rabbit://u:p@h/\n"
BESIDE = {
    "key_file": "cert_file = /x",
    "tls_minimum_version": "cert_file = /x",
    "forwarded_headers": "trusted_proxies = 192.0.2.1",
}
OTHERS = {
    "agent_suffix": ".other",
    "connection": "sqlite:////other",
    "driver": "qmp",
    "libvirt_uri": "test:///default",
    "trusted_proxies": "192.0.2.1",
}


def cases() -> list[Any]:
    return [
        pytest.param(groups, reader, group, option, id=f"{group}-{option.name}")
        for group, groups, reader in PARTS
        for option in dict(groups)[group]
        if option.name not in {"ops_host", "ops_port"}
    ]


def other(option: cfg.Opt) -> str:
    """Return a value that is not the option's default."""
    if option.name in OTHERS and not getattr(option.type, "choices", None):
        return OTHERS[option.name]
    match option:
        case cfg.BoolOpt():
            return str(not option.default)
        case cfg.HostAddressOpt():
            return "127.0.0.9"
        case cfg.IntOpt() | cfg.FloatOpt() | cfg.PortOpt():
            return str(int(option.default) + 1)
        case _ if getattr(option.type, "choices", None):
            return next(str(choice) for choice in option.type.choices if choice != option.default)
        case _:
            return "/other"


def read(path: Path, groups: OptGroups, reader: Reader, text: str) -> object:
    file = path / "x.conf"
    file.write_text(text)
    return config.read(config.load("x", groups, ["--config-file", str(file)], description="x"), reader)


@pytest.mark.parametrize(("groups", "reader", "group", "option"), cases())
def test_every_option_reaches_its_settings(
    tmp_path: Path, groups: OptGroups, reader: Reader, group: str, option: cfg.Opt
) -> None:
    beside = f"{BUS}[{group}]\n{BESIDE.get(option.name, '')}\n"
    before = read(tmp_path, groups, reader, beside)
    after = read(tmp_path, groups, reader, f"{beside}{option.name} = {other(option)}\n")
    assert after != before


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Sample:
    colour: Colour
    folder: Path
    names: tuple[str, ...]
    number: int = 1
    ours: str = "default"


def test_a_value_gets_the_type_of_its_field_and_a_field_without_option_keeps_its_default() -> None:
    conf = cfg.ConfigOpts()
    options = [
        cfg.StrOpt("my_colour", default="red"),
        cfg.StrOpt("my_folder", default="/x"),
        cfg.ListOpt("my_names", default=["a"]),
        cfg.IntOpt("my_number", default=7),
        cfg.StrOpt("ours", default="another option"),
    ]
    conf.register_opts(options, group="sample")
    conf([])
    assert config.section(conf, "sample", Sample, prefix="my_") == Sample(Colour.RED, Path("/x"), ("a",), 7)
    assert config.section(conf, "sample", Sample, prefix="my_", number=9).number == 9


def test_a_value_that_its_field_does_not_know_is_a_config_error() -> None:
    conf = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("colour", default="blue")], group="sample")
    conf([])
    with pytest.raises(ValueError, match="blue"):
        config.section(conf, "sample", Sample, folder=Path(), names=())
