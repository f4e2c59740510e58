# SPDX-License-Identifier: Apache-2.0
"""[qmp] at the door."""

from pathlib import Path

import pytest

from bridge.core.errors import ConfigError
from bridge.runtime.config import load, read
from hostagent.hostcheck import probes
from hostagent.settings import HostAgentSettings, hostagent_groups, hostagent_settings


def settings(tmp_path: Path, text: str) -> HostAgentSettings:
    file = tmp_path / "x.conf"
    file.write_text(f"[hostagent]\ndriver = qmp\nstate_path = {tmp_path}\n[qmp]\n{text}\n")
    return read(load("x", hostagent_groups(), ["--config-file", str(file)], description="x"), hostagent_settings)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("sockets = run/*.qmp", "sockets"),
        ("sockets =", "sockets"),
        ("sockets = /run/x/*.qmp, ..", "sockets"),
        ("limit = 0", "limit"),
        ("agent_suffix = qga", "agent_suffix"),
        ("agent_suffix = ./../x", "agent_suffix"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        settings(tmp_path, line)
    assert "\n" not in str(caught.value)


def test_several_patterns_and_a_check_of_their_directories(tmp_path: Path) -> None:
    """Without libvirt there is no look for its socket."""
    made = settings(tmp_path, "sockets = /run/a/*.qmp, /srv/guests/*/qmp.sock")
    assert made.driver.settings.sockets == ("/run/a/*.qmp", "/srv/guests/*/qmp.sock")
    (tmp_path / "srv/guests/one").mkdir(parents=True)
    found = {probe.about: probe.wrong for probe in probes(made, root=tmp_path)}
    assert "no directory" in (found["the sockets /run/a/*.qmp"] or "")
    assert found["the sockets /srv/guests/*/qmp.sock"] is None
    assert "libvirt's socket" not in found
