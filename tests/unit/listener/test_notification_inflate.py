# SPDX-License-Identifier: Apache-2.0
"""Compressed bodies, as Cinder's kombu_compression makes them, are read; nothing grows beyond its limit."""

import bz2
import zlib

import kombu.compression
import pytest

from listener.notification import inflated

BODY = b'{"event_type": "volume.resize.end"}' * 50
GZIP, BZ2 = "application/x-gzip", "application/x-bz2"


@pytest.mark.parametrize("option", ["gzip", "bzip2"])
def test_what_oslo_messaging_compresses_is_what_it_was(option: str) -> None:
    compressed, way = kombu.compression.compress(BODY, option)
    assert inflated(compressed, way, len(BODY)) == BODY


def test_a_bomb_is_one_byte_above_the_limit_and_no_more() -> None:
    bomb = b"0" * 50_000_000
    assert inflated(zlib.compress(bomb), GZIP, 1000) == b"0" * 1001
    assert inflated(bz2.compress(bomb), BZ2, 1000) == b"0" * 1001


@pytest.mark.parametrize("way", ["gzip", "", "application/x-lzma", 1, None, [GZIP], {"a": 1}, True])
def test_a_way_nobody_knows_inflates_nothing(way: object) -> None:
    assert inflated(zlib.compress(BODY), way, 10_000) is None


@pytest.mark.parametrize("way", [GZIP, BZ2])
@pytest.mark.parametrize("body", [b"not compressed", b"\x00\x00\x00\x00\x00"])
def test_a_body_that_is_not_what_its_header_says_inflates_to_nothing(way: str, body: bytes) -> None:
    assert inflated(body, way, 10_000) is None
