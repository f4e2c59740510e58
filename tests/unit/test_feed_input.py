# SPDX-License-Identifier: Apache-2.0
"""tools/feed refuses a file nobody can use in one line, before anything starts; recordings may look many ways."""

import json
from pathlib import Path

import pytest

from tests.lab import feed
from tests.lab.recording import read_recording


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"{", "line 1: not JSON", id="cut short"),
        pytest.param(b'{"body": "a"}\n[]\n', "line 2: expected an object", id="a list"),
        pytest.param(b'{"body": "a"}\n\n{}\n', "line 3: the object has no body", id="no body"),
        pytest.param(b'{"body_b64": "%"}', "line 1:", id="broken base64"),
        pytest.param(b"\xff\xfe\n", "line 1: not JSON", id="binary"),
        pytest.param(b"[" * 100_000, "line 1: not JSON", id="brackets without end"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    path = tmp_path / "file.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert feed.main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_a_directory_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert feed.main([str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "body"),
    [
        pytest.param({"body": "text"}, b"text", id="a text"),
        pytest.param({"body": "dGV4dA==", "body_encoding": "base64"}, b"text", id="base64 by hint"),
        pytest.param({"body_b64": "dGV4dA=="}, b"text", id="base64 by key"),
        pytest.param({"body": {"a": 1}}, b'{"a": 1}', id="an object"),
        pytest.param({"body": "\ud800"}, b"\xed\xa0\x80", id="a lone surrogate"),
        pytest.param({"body": "text", "properties": None, "headers": [], "routing_key": 7}, b"text", id="odd keys"),
    ],
)
def test_a_recorded_body_is_what_was_on_the_wire(tmp_path: Path, row: object, body: bytes) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (message,) = read_recording(path)
    assert message.body == body
