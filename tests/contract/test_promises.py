# SPDX-License-Identifier: Apache-2.0
"""All promises, by each of our own drivers."""

import pytest

from hostagent.drivers.contract.promises import *  # noqa: F403 - the promises are the tests

pytestmark = pytest.mark.functional
