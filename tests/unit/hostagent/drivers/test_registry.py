# SPDX-License-Identifier: Apache-2.0
"""Which driver an agent gets: ours, another package's, or one clear line."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from oslo_config import cfg

from bridge.core.errors import ConfigError
from bridge.runtime.config import load, read
from hostagent.drivers.registry import found_drivers
from hostagent.settings import HostAgentSettings, hostagent_groups, hostagent_settings

DRIVER = """\
    from oslo_config import cfg

    class Other:
        name = "{name}"

        def options(self):
            return [("{group}", [cfg.StrOpt("where", default="nowhere", help="Where.")])]

        def settings(self, conf):
            return conf["{group}"].where

    DRIVER = Other()
"""


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    found_drivers.cache_clear()
    yield
    found_drivers.cache_clear()


def package(directory: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str = "other") -> None:
    """Put a distribution with one driver on the path."""
    module = f"driver_of_{directory.name.replace('-', '_')}_{name}"
    (directory / f"{module}.py").write_text(dedent(source))
    info = directory / f"{module}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[extend_bridge.drivers]\n{name} = {module}:DRIVER\n")
    monkeypatch.syspath_prepend(str(directory))


def settings(directory: Path, text: str) -> HostAgentSettings:
    file = directory / "agent.conf"
    file.write_text(text)
    conf: cfg.ConfigOpts = load("x", hostagent_groups(), ["--config-file", str(file)], description="")
    return read(conf, hostagent_settings)


def test_libvirt_is_the_default_with_the_options_it_always_had(tmp_path: Path) -> None:
    chosen = settings(
        tmp_path, "[hostagent]\nlibvirt_uri = test:///default\nlibvirt_limit = 3\nabandoned_max = 2\n"
    )
    assert chosen.driver.name == "libvirt"
    made = chosen.driver.settings
    assert (made.uri, made.limit, made.abandoned_max) == ("test:///default", 3.0, 2)


def test_another_packages_driver_is_found_with_its_own_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, monkeypatch, DRIVER.format(name="other", group="other"))
    chosen = settings(tmp_path, "[hostagent]\ndriver = other\n[other]\nwhere = here\n").driver
    assert (chosen.name, chosen.settings) == ("other", "here")


def test_an_unknown_driver_is_one_line_with_those_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(tmp_path, "[hostagent]\ndriver = hyperv\n")
    assert str(caught.value).startswith("[hostagent] driver: no driver 'hyperv' is installed; found: ")
    assert "libvirt" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("DRIVER = 1 / 0\n", "ZeroDivisionError"),
        (DRIVER.format(name="another", group="other"), "its entry point is other, its name is another"),
        (DRIVER.format(name="other", group="bus"), "its options must be in [other], not in bus"),
        ("DRIVER = None\n", "AttributeError"),
    ],
)
def test_a_broken_package_is_named_and_harms_no_other_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    package(tmp_path, monkeypatch, source)
    assert settings(tmp_path, "").driver.name == "libvirt"
    with pytest.raises(ConfigError, match="driver: other cannot be used") as caught:
        settings(tmp_path, "[hostagent]\ndriver = other\n")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_package_takes_the_name_of_a_driver_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, monkeypatch, DRIVER.format(name="libvirt", group="libvirt"), name="libvirt")
    assert type(settings(tmp_path, "").driver.driver).__name__ == "LibvirtDriver"
