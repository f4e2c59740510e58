# SPDX-License-Identifier: Apache-2.0
"""The stand-in's volumes behave as a Cinder's were measured to."""

from pathlib import Path

import pytest

from bridge.core.errors import ConfigError
from bridge.standin.cinder import Attachment, RefusedError, StandInCinder, load_volumes
from bridge.standin.volumes import Volume, Volumes
from tests.unit.clock import PlayedClock

VOLUME = "0e63d806-6fe4-4ffc-99bf-f3dd056574c0"
SERVER = "11111111-1111-4111-8111-111111111101"


def test_an_extend_takes_its_time_and_then_status_and_size_change_together() -> None:
    """Extending with the old size, then in-use with the new one: nothing between."""
    clock = PlayedClock()
    volumes = Volumes(extend_seconds=5, clock=clock)
    volumes.add(Volume(id=VOLUME, size=1, status="in-use", attachments=(Attachment(server_id=SERVER),)))
    volumes.extend(VOLUME, 3)
    assert (volumes.get(VOLUME).status, volumes.get(VOLUME).size) == ("extending", 1)
    clock.now += 4.9
    assert volumes.get(VOLUME).status == "extending"
    clock.now += 0.1
    assert (volumes.get(VOLUME).status, volumes.get(VOLUME).size) == ("in-use", 3)


def test_a_second_extend_meanwhile_is_refused() -> None:
    """As Cinder: the status is wrong."""
    volumes = Volumes(extend_seconds=5, clock=PlayedClock())
    volumes.add(Volume(id=VOLUME, size=1, status="available"))
    volumes.extend(VOLUME, 2)
    with pytest.raises(RefusedError, match="currently extending"):
        volumes.extend(VOLUME, 3)


@pytest.mark.parametrize("size", [1, 2])
def test_no_volume_ever_shrinks(size: int) -> None:
    """Same or smaller is refused."""
    volumes = Volumes()
    volumes.add(Volume(id=VOLUME, size=2, status="available"))
    with pytest.raises(RefusedError, match="must be greater than current size"):
        volumes.extend(VOLUME, size)
    assert volumes.get(VOLUME).size == 2


def test_a_volume_in_use_is_extended_since_3_42() -> None:
    """Below, its status is wrong."""
    volumes = Volumes()
    volumes.add(Volume(id=VOLUME, size=2, status="in-use"))
    with pytest.raises(RefusedError, match="currently in-use"):
        volumes.extend(VOLUME, 3, version=(3, 41))
    volumes.extend(VOLUME, 3, version=(3, 42))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("{}", "expected a list"),
        ('[{"size": 1}]', "volume 0: 'id' is missing"),
        ('[{"id": "x", "size": 1}]', "expected a UUID"),
        (f'[{{"id": "{VOLUME}", "size": 0}}]', "at least 1"),
        (f'[{{"id": "{VOLUME}", "size": 1, "colour": "red"}}]', "colour"),
        (f'[{{"id": "{VOLUME}", "size": 1, "attachments": [{{"server_id": "x"}}]}}]', "expected a UUID"),
        (f'[{{"id": "{VOLUME}", "size": 1, "attachments": [{{"server": "x"}}]}}]', "server"),
        ("[3]", "volume 0"),
        (f'[{{"id": "{VOLUME}", "size": "big"}}]', "size"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    """One line that says where."""
    path = tmp_path / "volumes.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_volumes(StandInCinder(), str(path))
