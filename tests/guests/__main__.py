# SPDX-License-Identifier: Apache-2.0
"""tools/guests: play each way, print what the guest saw, and how many disks were told."""

import bridge.runtime.threads  # noqa: F401, I001 - native threads, before anything that makes one

import sys
from collections.abc import Sequence

from tests.guests.lab import GuestLab, running_lab
from tests.guests.options import KINDS, SHORT_KINDS, options
from tests.guests.stock import lacking
from tests.guests.verdict import Verdict, slowest_lines
from tests.guests.volumes import BOOT_ONLY, QEMU_GROWS, GuestVolume
from tests.guests.way import Played, Way
from tests.guests.ways import WAYS

_EXIT_UNREACHABLE = 3
_LONG = 1.0  # seconds of one resize of the hypervisor


def main() -> int:
    """Run it; the exit code."""
    chosen = options()
    ways = [
        way
        for way in WAYS
        if way.name in (chosen.way or ()) or (not chosen.way and (way.short or not chosen.short))
    ]
    unknown = set(chosen.way or ()) - {way.name for way in WAYS}
    if unknown:
        print(f"no way named {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return 2
    if chosen.list:
        for way in ways:
            print(f"{way.name:24} {way.about}")
        return 0
    if (missing := lacking()) is not None:
        print(f"missing: {missing}", file=sys.stderr)
        return _EXIT_UNREACHABLE
    verdicts: list[Verdict] = []
    kinds = SHORT_KINDS if chosen.short else KINDS
    with running_lab(kinds=kinds, limit=chosen.limit, keep=chosen.keep) as lab:
        for way in ways:
            verdicts += played(lab, way)
    told = sum(verdict.told for verdict in verdicts)
    lines, slow = slowest_lines(verdicts, chosen.within)
    for line in lines:
        print(line)
    print(f"told {told} of {len(verdicts)}")
    return 0 if told == len(verdicts) and not slow else 1


def played(lab: GuestLab, way: Way) -> list[Verdict]:
    """Play one way and print its line; the guest's disks that were not told have a line each."""
    try:
        lab.run_guest()
        ended = way.play(lab)
        verdicts = lab.judge(way.name, _judged(lab, ended), ended.since, booted=ended.booted)
        if ended.silent:
            lab.send_events()
        lab.wait_ended()
        verdicts = lab.with_held(verdicts, ended.since)
    except Exception as ex:  # noqa: BLE001 - whatever it is, the other ways are played
        verdicts = [
            Verdict(way=way.name, volume=volume.name, told=False, seconds=None, words=f"the way failed: {ex}")
            for volume in lab.volumes.all
        ]
    _show(way, verdicts)
    return verdicts


def _judged(lab: GuestLab, ended: Played) -> list[GuestVolume]:
    """Return the disks a way is about: without an event, those that grow by themselves and can be told."""
    if not ended.silent:
        return lab.volumes.all
    return [v for v in lab.volumes.all if v.backing not in QEMU_GROWS and v.bus not in BOOT_ONLY]


def _show(way: Way, verdicts: Sequence[Verdict]) -> None:
    seconds = [verdict.seconds for verdict in verdicts if verdict.seconds is not None]
    named = sum(verdict.told and verdict.seconds is None for verdict in verdicts)
    told = sum(verdict.told for verdict in verdicts)
    slowest = f"slowest {max(seconds):.2f} s" if seconds else ""
    held = max((verdict.held for verdict in verdicts), default=0.0)
    print(
        f"{way.name:24} {told:2} of {len(verdicts):2}  {slowest:16} {f'{named} at restart' if named else '':13}"
        f"{f'  the hypervisor {held:.2f} s' if held > _LONG else ''}".rstrip(),
        flush=True,
    )
    wrong = [verdict for verdict in verdicts if not verdict.told]
    if len({verdict.words for verdict in wrong}) == 1:
        wrong = wrong[:1]
    for verdict in wrong:
        print(f"    {verdict.volume:12} {verdict.words}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
