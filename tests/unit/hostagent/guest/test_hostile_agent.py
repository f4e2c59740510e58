# SPDX-License-Identifier: Apache-2.0
"""A hostile agent behind a socket: whatever it sends, the call ends in time, in little memory, with a reason."""

import json
import signal
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.extend import ExtendKey
from bridge.core.file_systems import FileSystemSeen, FsState
from bridge.core.reasons import Reason
from hostagent.drivers.qmp.agent import ask
from hostagent.guest import answers
from hostagent.guest.calls import AgentCalls
from hostagent.guest.errors import GuestLookError
from hostagent.guest.grow import VolumeGrowth
from hostagent.guest.layout import tree_of
from hostagent.guest.printed import read_covered
from hostagent.guest.see import judge_volume, unseen, view
from tests.lab.agent_socket import AgentRefusalError, SocketAgent
from tests.lab.agent_socket import answering as replying
from tests.lab.played_guest import MIB, SERVER, VOLUME, calls_of

Talk = Callable[[socket.socket], None]
LONG = 30.0


class Sockets:
    """The seam of a driver whose guests' agents lie behind sockets."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def agent(self, _server_id: str, command: Mapping[str, Any], limit: float) -> Any:
        return ask(str(self._path), command, limit)


def asked(path: Path, limit: float) -> Any:
    return AgentCalls(Sockets(path), SERVER, limit=limit, sleep=lambda _: False).ask("guest-get-fsinfo")


@contextmanager
def served(path: Path, talk: Talk) -> Iterator[Path]:
    """An agent that talks in its own way to each connection."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        while True:
            try:
                channel, _ = server.accept()
            except OSError:
                return
            with channel:
                try:
                    talk(channel)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(LONG)


def synchronised(channel: socket.socket, before: bytes = b"") -> Any:
    """Answer the synchronisation, after other bytes; return the command."""
    lines = channel.makefile("rb")
    number = json.loads(lines.readline().lstrip(b"\xff"))["arguments"]["id"]
    channel.sendall(before + b"\xff" + json.dumps({"return": number}).encode() + b"\n")
    return json.loads(lines.readline())


def answering(words: bytes, before: bytes = b"") -> Talk:
    def talk(channel: socket.socket) -> None:
        synchronised(channel, before)
        channel.sendall(words + b"\n")
        channel.recv(1)

    return talk


def a_gigabyte(channel: socket.socket) -> None:
    synchronised(channel)
    for _ in range(1024):
        channel.sendall(b"[" * MIB)


def endless_noise(channel: socket.socket) -> None:
    while True:
        channel.sendall(b"\xff{}\n" * 4096)


def endless_answers(channel: socket.socket) -> None:
    """Valid JSON, line after line: each would take the time to parse it."""
    while True:
        channel.sendall(b'{"return": [' + b"{}, " * (MIB // 4) + b"{}]}\n")


def drip(channel: socket.socket) -> None:
    synchronised(channel)
    while channel.send(b" "):
        threading.Event().wait(0.01)


def silence(channel: socket.socket) -> None:
    while channel.recv(4096):
        pass


def frozen(channel: socket.socket) -> None:
    """As an agent of a guest that fsfreeze holds: it synchronises and then answers an error to most commands."""
    synchronised(channel)
    words = "Command guest-exec has been disabled: the agent is in frozen state"
    channel.sendall(json.dumps({"error": {"class": "GenericError", "desc": words}}).encode() + b"\n")


HOSTILE: list[tuple[Talk, Reason]] = [
    (a_gigabyte, Reason.FS_AGENT_BAD_ANSWER),
    (endless_noise, Reason.FS_AGENT_BAD_ANSWER),
    (endless_answers, Reason.FS_AGENT_BAD_ANSWER),
    (answering(b'{"return": [' + b"{}, " * (MIB - 100) + b"{}]}"), Reason.FS_AGENT_BAD_ANSWER),
    (drip, Reason.FS_AGENT_SILENT),
    (silence, Reason.FS_AGENT_SILENT),
    (frozen, Reason.FS_AGENT_SILENT),
    (lambda channel: None, Reason.FS_NO_AGENT),
    (answering(b"not json"), Reason.FS_AGENT_BAD_ANSWER),
    (answering(b'{"return": ' + b"9" * 5000 + b"}"), Reason.FS_AGENT_BAD_ANSWER),
    (answering(b"[" * 100_000), Reason.FS_AGENT_BAD_ANSWER),
    (answering(b'"return"'), Reason.FS_AGENT_BAD_ANSWER),
    (answering(b'{"error": "no"}'), Reason.FS_AGENT_BAD_ANSWER),
    (answering(b"\xfe\xfe"), Reason.FS_AGENT_BAD_ANSWER),
]


@pytest.mark.parametrize(("talk", "reason"), HOSTILE, ids=range(len(HOSTILE)))
def test_every_call_ends_in_time_with_a_reason_and_in_bounded_memory(
    tmp_path: Path, talk: Talk, reason: Reason
) -> None:
    tracemalloc.start()
    try:
        with served(tmp_path / "agent", talk) as agent, pytest.raises(GuestLookError) as caught:
            asked(agent, 0.5 if reason is Reason.FS_AGENT_SILENT else LONG)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.reason is reason


def test_an_answer_to_an_earlier_question_is_not_taken_for_this_one(tmp_path: Path) -> None:
    late = b'{"return": [1]}\n\xff{"return": 7}\n{"return": [2]}\n'
    with served(tmp_path / "agent", answering(b'{"return": [3]}', before=late)) as agent:
        assert asked(agent, LONG) == [3]


def test_nobody_behind_the_socket_is_no_agent(tmp_path: Path) -> None:
    with pytest.raises(GuestLookError) as caught:
        asked(tmp_path / "nowhere", LONG)
    assert caught.value.reason is Reason.FS_NO_AGENT


def test_words_of_a_guest_reach_no_log_with_escapes_and_no_more_than_their_bound() -> None:
    words = "\x1b[2J\u202e" + "A" * 100_000
    ex = answers.refused(words)
    assert ex.detail.isprintable()
    assert len(ex.detail) <= 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
device_names = st.sampled_from(
    ["/dev/vdb", "/dev/vdb1", "/dev/../etc", "/dev/-a", "/dev/vd\nb", "vdb", "", "$(id)"]
)
rows = st.fixed_dictionaries(
    {},
    optional={
        "name": device_names | json_values,
        "mountpoint": st.sampled_from(["/data", "-o", "/a b", "\x1b[31m", ""]) | json_values,
        "type": st.sampled_from(["ext4", "xfs"]) | json_values,
        "total-bytes": st.integers() | json_values,
        "used-bytes": json_values,
        "partition": st.booleans() | json_values,
        "dependencies": st.lists(device_names, max_size=3) | json_values,
        "address": st.fixed_dictionaries({"serial": st.just(VOLUME[:20]) | json_values}) | json_values,
        "disk": json_values,
    },
)


class AnyGuest:
    """An agent that answers each command with drawn values, of the right shape or not."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.executed: list[list[str]] = []

    def agent(self, _server_id: str, command: dict[str, Any], _limit: float) -> Any:
        match command["execute"]:
            case "guest-exec":
                arguments = command["arguments"]
                self.executed.append([arguments["path"], *arguments["arg"]])
                return self.data.draw(st.just({"pid": 1}) | json_values)
            case "guest-exec-status":
                text = st.text('0123456789abcdef\n-/ {}[]":,', max_size=60).map(
                    lambda words: {"exited": True, "exitcode": 0, "out-data": _base64(words)}
                )
                return self.data.draw(text | json_values)
        return self.data.draw(st.lists(rows, max_size=4) | json_values)


def _base64(words: str) -> str:
    import base64  # noqa: PLC0415 - one use

    return base64.b64encode(words.encode()).decode()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_valid_json_of_any_shape_ends_as_a_value_and_never_changes_a_guest(data: st.DataObject) -> None:
    guest, ticks = AnyGuest(data), count()
    growth = VolumeGrowth(
        calls=calls_of(guest), key=ExtendKey(SERVER, VOLUME), volume_ids={VOLUME}, capacity=768 * MIB,
        command_limit=5, clock=lambda: float(next(ticks)),
    )  # fmt: skip
    seen = growth.run()
    assert seen.state in {FsState.FAILED, FsState.REFUSED, FsState.FITS}
    assert FileSystemSeen.from_wire(json.loads(json.dumps(seen.to_wire()))) == seen
    changing = {"growpart", "pvresize", "lvextend", "resize2fs", "xfs_growfs"}
    assert not [argv for argv in guest.executed if argv[0] in changing]
    for argv in guest.executed:
        assert not [word for word in argv[1:] if word.startswith("-") and word not in _OPTIONS]


_OPTIONS = {"--json", "--reportformat", "--units", "--nosuffix", "-o", "-h", "--raw", "--help"}


def test_a_guest_that_answers_only_to_hold_a_command_for_ever_is_left() -> None:
    class Holding:
        def agent(self, _server_id: str, command: dict[str, Any], _limit: float) -> Any:
            return {"pid": 1} if command["execute"] == "guest-exec" else {"exited": False}

    calls: AgentCalls = calls_of(Holding())
    with pytest.raises(GuestLookError) as caught:
        calls.run(("cat", "/proc/swaps"), 60)
    assert caught.value.reason is Reason.FS_AGENT_SILENT


BAD = "\x1b[2J\u202e\n; rm -rf / $(id) `id` && \U0001f4a9"


def a_disk(**more: Any) -> dict[str, Any]:
    return {"name": "/dev/vdb", "partition": False, "dependencies": [], "address": {"serial": VOLUME[:20]}, **more}


def a_mount(**more: Any) -> dict[str, Any]:
    return {"name": "vdb", "mountpoint": "/data", "type": "ext4", "total-bytes": 400 * MIB, "disk": [], **more}


LIES: dict[str, tuple[list[Any], list[Any], str]] = {
    "another serial": ([a_disk(address={"serial": "f" * 20})], [a_mount()], "fs_disk_not_found"),
    "a serial of nineteen": ([a_disk(address={"serial": VOLUME[:19]})], [a_mount()], "fs_disk_not_found"),
    "a serial with escapes": ([a_disk(address={"serial": VOLUME + BAD})], [a_mount()], "fs_disk_not_found"),
    "a serial that is a list": ([a_disk(address={"serial": [VOLUME]})], [a_mount()], "fs_disk_not_found"),
    "the disk twice": ([a_disk(), a_disk()], [a_mount()], "fs_serial_ambiguous"),
    "two disks": ([a_disk(), a_disk(name="/dev/vdc")], [a_mount()], "fs_serial_ambiguous"),
    "the disk on itself": ([a_disk(dependencies=["/dev/vdb"])], [a_mount()], "fs_disk_not_found"),
    "a device with a shell in it": ([a_disk(name="/dev/vdb;id")], [a_mount()], "fs_agent_bad_answer"),
    "a device elsewhere": ([a_disk(name="/dev/../etc/passwd")], [a_mount()], "fs_agent_bad_answer"),
    "a mount with newlines": ([a_disk()], [a_mount(mountpoint="/da\nta")], "fs_not_mounted"),
    "a mount with escapes": ([a_disk()], [a_mount(mountpoint="/" + BAD)], "fs_not_mounted"),
    "a type with a shell in it": ([a_disk()], [a_mount(type="ext4 $(id)")], "fs_not_mounted"),
    "a negative size": ([a_disk()], [a_mount(**{"total-bytes": -1})], "fs_can_follow"),
    "a size of 2 ** 63": ([a_disk()], [a_mount(**{"total-bytes": 2**63})], "fs_can_follow"),
    "a size of 1e999": ([a_disk()], [a_mount(**{"total-bytes": float("inf")})], "fs_can_follow"),
    "a size in words": ([a_disk()], [a_mount(**{"total-bytes": "400"})], "fs_can_follow"),
    "a row that is a list": ([a_disk(), []], [a_mount()], "fs_agent_bad_answer"),
    "5000 disks": ([a_disk()] * 5000, [a_mount()], "fs_agent_bad_answer"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_over_the_socket_changes_nothing_in_the_guest_and_is_told_in_clean_words(
    tmp_path: Path, lie: str
) -> None:
    disks, mounts, reason = LIES[lie]
    asked: list[str] = []

    def answer(question: Mapping[str, Any]) -> Any:
        asked.append(question["execute"])
        found = {"guest-get-disks": disks, "guest-get-fsinfo": mounts}.get(question["execute"])
        if found is None:
            raise AgentRefusalError(f"{BAD} {'A' * MIB}")
        return found

    path = tmp_path / "agent"
    calls = AgentCalls(Sockets(path), SERVER, limit=LONG, sleep=lambda _: False)
    with SocketAgent(path, replying(answer)):
        try:
            seen = judge_volume(view(calls), ExtendKey(SERVER, VOLUME), {VOLUME}, 768 * MIB)
        except GuestLookError as ex:
            seen = unseen(ExtendKey(SERVER, VOLUME), ex.reason)
        assert seen.reason == reason
        assert set(asked) <= {"guest-get-disks", "guest-get-fsinfo"}, "to see is to run nothing"
        growth = VolumeGrowth(
            calls=calls, key=ExtendKey(SERVER, VOLUME), volume_ids={VOLUME}, capacity=768 * MIB, command_limit=5
        )
        grown = growth.run()
    assert grown.state in {FsState.REFUSED, FsState.FAILED}
    for words in (seen.mount_point, seen.kind, grown.mount_point, *(step.detail for step in grown.steps)):
        assert words.isprintable()
        assert len(words) <= 500


def test_disks_that_lie_on_one_another_by_the_thousand_are_each_looked_at_once() -> None:
    looks = count()

    class Beneath(tuple[str, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            next(looks)
            return super().__iter__()

    chain = [
        answers.GuestDisk(device=f"/dev/d{n}", partition=False, beneath=Beneath([f"/dev/d{n - 1}"]))
        for n in range(answers.ROWS_MAX)
    ]
    tree = tree_of(chain[0], chain[::-1], ())
    assert len(tree.devices) == answers.ROWS_MAX
    assert next(looks) < 10 * answers.ROWS_MAX


@pytest.mark.parametrize("kind", ["btrfs", "xfs", "ext4"])
@pytest.mark.parametrize("out", ["\n", " ", "\n ", "data ", "data bsize=1 ", "devid ", "Block count:", "\x1c"])
def test_output_made_to_be_slow_to_search_is_not(kind: str, out: str) -> None:
    """A pattern that goes back over it holds the whole process, extends included, for minutes."""

    def too_slow(_number: int, _frame: object) -> None:
        raise AssertionError("not within a minute")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(60)
    try:
        with pytest.raises(GuestLookError):
            read_covered(kind, (out * answers.PRINTED_MAX)[: answers.PRINTED_MAX], "/dev/vdb")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
