# SPDX-License-Identifier: Apache-2.0
"""tools/lastmile: a Debian guest, a volume of each layout, every tier."""

import sys
import tempfile
import time
from pathlib import Path

from tests.lab.lastmile.guest_layouts import LAYOUTS, ROOT
from tests.lab.lastmile.image import guest_image, lacking
from tests.lab.lastmile.options import options
from tests.lab.lastmile.run import LastMile

_EXIT_UNREACHABLE = 3


def main() -> int:
    """Run it; the exit code."""
    chosen = options()
    if chosen.list:
        for layout in LAYOUTS:
            print(f"{layout.name:17} {layout.bus:6} {'grows' if layout.grows else layout.reason}")
        return 0
    if unknown := set(chosen.layout or ()) - {layout.name for layout in LAYOUTS}:
        print(f"no layout named {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return 2
    if (missing := lacking()) is not None:
        print(f"missing: {missing}", file=sys.stderr)
        return _EXIT_UNREACHABLE
    wanted = [*chosen.layout, ROOT] if chosen.layout else None
    layouts = [each for each in LAYOUTS if (each.name in wanted if wanted else each.short or not chosen.short)]
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {what}", flush=True)

    tell("the guest's image")
    image = guest_image()
    with tempfile.TemporaryDirectory(prefix="eb-lastmile-") as directory:
        tell("boot")
        mile = LastMile(image, Path(directory), layouts, compares=not chosen.short)
        try:
            tell("layouts")
            mile.make()
            mile.see_first()
            mile.extend()
            mile.see()
            tell("grow")
            mile.grow("grow")
            mile.grow("again")
            mile.frozen()
            if not chosen.short:
                mile.helper_again()
            for number in () if chosen.short else range(1 + max(layout.cuts for layout in layouts)):
                tell(f"power cut after {number} commands")
                mile.cut(number)
            tell("helper")
            mile.helper()
            if not chosen.short:
                tell("helper again")
                mile.helper_again()
        finally:
            mile.close()
    tell("end")
    for cell in mile.counts.wrong:
        print(f"not as it must be: {cell}")
    print(mile.counts.line())
    return 1 if mile.counts.wrong or mile.counts.lied or mile.counts.touched else 0


if __name__ == "__main__":
    raise SystemExit(main())
