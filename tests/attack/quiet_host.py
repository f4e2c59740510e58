# SPDX-License-Identifier: Apache-2.0
"""A host agent for tools/attack: the product's own down to libvirt, which is played and answers at once."""

import bridge.runtime.threads  # noqa: F401 - first, before anything that may choose another backend

# isort: split
import random
from functools import partial

from bridge.runtime.process import serve
from hostagent.settings import hostagent_groups, hostagent_settings
from hostagent.wiring import build
from tests.chaos.fake_host import Manners, fake_host


class QuietManners(Manners):
    """Each call answers at once, and none fails."""

    def take(self, most: float) -> None:
        """Return at once."""

    def fails(self, share: float) -> bool:
        """Return False."""
        return False


if __name__ == "__main__":
    wired = partial(build, look_outside=partial(fake_host, manners=QuietManners(random.Random())))
    raise SystemExit(serve("hostagent", hostagent_groups(), hostagent_settings, wired, description="A host."))
