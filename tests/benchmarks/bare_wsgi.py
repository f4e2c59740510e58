# SPDX-License-Identifier: Apache-2.0
"""The bare application behind uWSGI; EXTEND_BRIDGE_BENCH is the URL of its journal."""

import os

import sqlalchemy as sa

from tests.benchmarks.api import as_the_journal, bare_app

_engine = sa.create_engine(os.environ["EXTEND_BRIDGE_BENCH"])
sa.event.listen(_engine, "connect", as_the_journal)
application = bare_app(_engine)
