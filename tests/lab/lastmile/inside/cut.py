# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.lab.lastmile.inside.cut PORT`: the helper killed at each step, completed by its next run."""

import os
import sys

from tests.lab.lastmile.inside.__main__ import main

main(sys.argv[1], cut=True)
os._exit(0)
