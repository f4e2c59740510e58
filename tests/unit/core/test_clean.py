# SPDX-License-Identifier: Apache-2.0
"""Text of others can neither drive a terminal nor a spreadsheet nor a shell, and can always be written."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.clean import clean, clean_lines, clean_value, for_shell, for_spreadsheet

ANY = st.text(alphabet=st.characters())


@given(ANY)
def test_a_cleaned_text_is_one_printable_line_that_any_encoder_takes(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text)) == len(text)
    clean(text).encode()


@pytest.mark.parametrize("bad", ["\x1b", "\x07", "\x9b", "\ud800", "\u202e", "\u2028", "\x00", "\x7f", "\r", "\b"])
def test_what_drives_a_terminal_or_breaks_an_encoder_is_replaced(bad: str) -> None:
    assert clean(f"a{bad}b") == "a\ufffdb"
    assert clean_lines(f"a{bad}b\n") == "a\ufffdb\n"


def test_a_text_is_cut_and_ordinary_words_stay_as_they_are() -> None:
    assert clean("größer, 大きい", 5) == "größe"
    assert clean("a\tb\u00a0c\nd") == "a b c d"


def test_nested_values_are_cleaned_and_numbers_stay_numbers() -> None:
    assert clean_value({"a\x1b": ["\ud800", 1, None, True]}) == {"a\ufffd": ["\ufffd", 1, None, True]}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\uff1d1", "\t=1"])
def test_a_formula_is_marked_as_text(text: str) -> None:
    assert for_spreadsheet(text) == f"'{text}"


def test_what_is_no_formula_is_left_alone() -> None:
    assert [for_spreadsheet(value) for value in ("a=b", -1, None, "cmp-1")] == ["a=b", -1, None, "cmp-1"]


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
def test_a_shell_reads_back_what_was_written(text: str) -> None:
    quoted = for_shell(text).replace('"', '\\"')  # the second half is cliff's
    shell = subprocess.run(
        ["/bin/sh", "-c", f'v="{quoted}"; printf %s "$v"'], capture_output=True, check=True, text=True
    )
    assert shell.stdout == text
