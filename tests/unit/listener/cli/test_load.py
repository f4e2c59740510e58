# SPDX-License-Identifier: Apache-2.0
"""A load made from a recording: more of it, and worse, and the same at each run."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.app import main
from bridge.core.extend import ExtendKey, is_uuid, new_id
from bridge.standin.cinder import StandInCinder, load_volumes
from listener.cli.load import LoadMessage, Mutation, multiplied, mutated, volumes_of
from listener.cli.record import notification
from listener.cli.recordings import Item
from listener.notification import Origin, ResizeEnd, Row, parse
from tests.lab.paths import ROOT

STREAM = ROOT / "bridge" / "standin" / "recorded.jsonl"


def items(count: int) -> list[Item]:
    """Events of as many volumes, two to a server."""
    servers = [new_id() for _ in range(count // 2 + 1)]
    return [Item(ExtendKey(servers[n // 2], new_id()), Origin(), float(n)) for n in range(count)]


def message(key: ExtendKey) -> LoadMessage:
    """A notification of one event."""
    row = Row(server_id=key.server_id, attached=True, readable=True)
    return LoadMessage(notification(key.volume_id, [row], size=None, origin=Origin()), key)


@given(st.integers(1, 20), st.integers(1, 8))
def test_each_copy_has_ids_of_its_own_and_the_first_is_as_recorded(count: int, copies: int) -> None:
    recorded = items(count)
    load = multiplied(recorded, copies)
    assert load[::copies] == recorded
    assert len({item.key for item in load}) == count * copies
    assert all(is_uuid(item.key.server_id) and is_uuid(item.key.volume_id) for item in load)
    assert multiplied(recorded, copies) == load


def test_volumes_of_one_server_are_copied_onto_one_server() -> None:
    first, second = multiplied(items(2), 3)[1::3]
    assert first.key.server_id == second.key.server_id


def test_the_stand_in_reads_the_volumes_and_a_server_is_on_one_of_the_hosts(tmp_path: Path) -> None:
    volumes = volumes_of(multiplied(items(10), 5), hosts=3)
    path = tmp_path / "volumes.json"
    path.write_text(json.dumps(volumes))
    assert load_volumes(StandInCinder(), str(path)) == 50
    on = {(row["server_id"], row["host"]) for volume in volumes for row in volume["attachments"]}
    assert len({server for server, _ in on}) == len(on)
    assert {host for _, host in on} == {"host-1", "host-2", "host-3"}


@given(st.integers(1, 60), st.integers(0, 2**32))
def test_no_seed_loses_an_event_and_each_fault_is_marked(count: int, seed: int) -> None:
    messages = [message(item.key) for item in items(count)]
    load = list(mutated(messages, seed))
    assert load == list(mutated(messages, seed))
    whole = [each for each in load if each.key is not None]
    assert {each.key for each in whole} == {each.key for each in messages}
    assert all(isinstance(parse(each.body, max_bytes=1 << 20, max_rows=10), ResizeEnd) for each in whole)
    twice = Counter(each.key for each in whole)
    assert sum(twice.values()) - count == sum(each.mutation is Mutation.DUPLICATED for each in whole)
    for each in load:
        if each.key is None:
            assert each.mutation in {Mutation.CUT, Mutation.POISONED}
            assert not isinstance(parse(each.body, max_bytes=1 << 20, max_rows=10), ResizeEnd)


def test_a_load_of_a_hundred_has_every_kind_of_fault() -> None:
    load = mutated([message(item.key) for item in items(100)], 7)
    assert {each.mutation for each in load} == {*Mutation, None}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--mutate", "1"), "--mutate needs --to broker"),
        (("--hosts", "3"), "--hosts needs --volumes"),
        (("--multiply", "0"), "is not a number from 1"),
        (("--volumes", "/nowhere/v.json"), "cannot be written"),
    ],
)
def test_options_that_make_no_load_are_refused_in_words(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    try:
        code: object = main(["replay", *options, str(STREAM)])
    except SystemExit as ex:
        code = ex.code
    assert code == 2
    assert words in capsys.readouterr().err


def test_a_dry_run_counts_the_copies_and_writes_the_volumes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "volumes.json"
    assert (
        main(["replay", "-f", "json", "--multiply", "4", "--hosts", "2", "--volumes", str(path), str(STREAM)]) == 0
    )
    rows = {row["Verdict"]: row["Count"] for row in json.loads(capsys.readouterr().out)}
    recorded = rows["events"] // 4
    assert rows["would send"] == 4 * recorded
    assert {row["host"] for volume in json.loads(path.read_text()) for row in volume["attachments"]} == {
        "host-1", "host-2",
    }  # fmt: skip
