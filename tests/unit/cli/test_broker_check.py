# SPDX-License-Identifier: Apache-2.0
"""What upgrade check says of a broker's release."""

from collections.abc import Sequence

import pytest
from oslo_upgradecheck.upgradecheck import Code

from bridge.cmd.broker_check import BrokerRelease, judged


@pytest.mark.parametrize(
    ("product", "version", "limited", "code", "words"),
    [
        ("RabbitMQ", "3.9.27", [], Code.FAILURE, "RabbitMQ 3.9.27 is too old: RabbitMQ 3.10 or newer"),
        ("RabbitMQ", "3.10.8", [], Code.SUCCESS, "accepts our user; RabbitMQ 3.10.8"),
        ("RabbitMQ", "4.3.0-rc.1", [], Code.SUCCESS, "accepts our user; RabbitMQ 4.3.0-rc.1"),
        ("RabbitMQ", "10.0", [], Code.SUCCESS, "accepts our user"),
        ("RabbitMQ", "4.0.5", ["extend_bridge.due"], Code.WARNING, "from extend_bridge.due after 20 deliveries"),
        ("RabbitMQ", "nightly", [], Code.WARNING, "only RabbitMQ is tested"),
        ("LavinMQ", "2.0.0", [], Code.WARNING, "LavinMQ 2.0.0 is not a RabbitMQ"),
    ],
)
def test_a_release_is_named_and_judged(
    product: str, version: str, limited: Sequence[str], code: Code, words: str
) -> None:
    found = judged(BrokerRelease(product=product, version=version), limited)
    assert (found.code, words in found.details) == (code, True), found.details


@pytest.mark.parametrize(
    ("version", "limits", "refuses"),
    [
        ("3.13.7", False, False),
        ("4.0.5", True, False),
        ("4.2.9", True, False),
        ("4.3.0", True, True),
        ("", False, False),
    ],
)
def test_a_release_has_the_defaults_of_rabbitmqs_notes(version: str, limits: bool, refuses: bool) -> None:
    release = BrokerRelease(product="RabbitMQ", version=version)
    assert (release.limits_deliveries, release.refuses_transient_queues) == (limits, refuses)
