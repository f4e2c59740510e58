# SPDX-License-Identifier: Apache-2.0
"""Plots as inline SVG. Each plot is 360 units wide, because its letters must be readable on a phone."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from bridge.audit.histogram import Durations
from bridge.audit.report import Brief

WIDE: Final = 360
_LEFT, _RIGHT, _TOP, _HIGH, _FOOT = 34, 8, 8, 130, 22
_COLUMNS: Final = 60
_KINDS: Final = {
    "resized": "good", "already": "good2", "guest_off": "good3", "delivered": "good2", "parked": "warn",
    "volume_gone": "gone", "detached": "gone", "discarded": "gone", "unsupported": "bad", "refused": "bad",
    "failed": "bad",
}  # fmt: skip


def kind(result: str) -> str:
    """Return the CSS class of a result; `open` for an extend that is still open."""
    return _KINDS.get(result, "open")


def latency(hop: Durations) -> str:
    """Draw the distribution of a hop's durations on a logarithmic axis, with p50, p95 and p99."""
    spread = hop.spread()
    if not spread:
        return "<p>No extend ended in these logs.</p>"
    low = math.floor(math.log10(spread[0][0]))
    high = max(low + 1, math.ceil(math.log10(spread[-1][0])))
    columns: Counter[int] = Counter()
    for seconds, count in spread:
        columns[min(_COLUMNS - 1, int((math.log10(seconds) - low) / (high - low) * _COLUMNS))] += count
    top = max(columns.values())
    step = (WIDE - _LEFT - _RIGHT) / _COLUMNS
    parts = [_frame(top)]
    for column, count in sorted(columns.items()):
        start = 10 ** (low + column / _COLUMNS * (high - low))
        parts.append(_bar("good", _LEFT + column * step, step, 0, count / top, f"from {time_text(start)}: {count}"))
    for decade in range(low, high + 1):
        x = _LEFT + (decade - low) / (high - low) * (WIDE - _LEFT - _RIGHT)
        parts.append(_foot(x, time_text(10.0**decade), anchor="end" if decade == high else "middle"))
    for percent in (50, 95, 99):
        at = hop.percentile(percent)
        x = _LEFT + (math.log10(max(at, 10.0**low)) - low) / (high - low) * (WIDE - _LEFT - _RIGHT)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_TOP + _HIGH}"/>')
    marks = " · ".join(f"p{p} <b>{time_text(hop.percentile(p))}</b>" for p in (50, 95, 99))
    plot = _svg(_TOP + _HIGH + _FOOT, parts, "Distribution of latencies")
    return f"{plot}<p>{hop.count} extends · {marks}</p>"


def over_time(moments: Mapping[int, Counter[str]]) -> str:
    """Draw extends by the minute of their end, with one colour for each kind of result.

    An open extend is drawn at the minute of its beginning.
    """
    if not moments:
        return "<p>No extend in these logs.</p>"
    first, last = min(moments), max(moments)
    width = max(1, math.ceil((last - first + 1) / _COLUMNS))
    columns: dict[int, Counter[str]] = {}
    for minute, counts in moments.items():
        columns.setdefault((minute - first) // width, Counter()).update(counts)
    top = max(counts.total() for counts in columns.values())
    number = (last - first) // width + 1
    step = (WIDE - _LEFT - _RIGHT) / max(number, 12)
    parts = [_frame(top)]
    for column, counts in sorted(columns.items()):
        base = 0.0
        at = datetime.fromtimestamp((first + column * width) * 60, UTC).strftime("%Y-%m-%d %H:%M")
        for result, count in sorted(counts.items(), key=lambda item: (kind(item[0]), item[0])):
            about = f"{at} {result}: {count}"
            parts.append(_bar(kind(result), _LEFT + column * step, step, base, count / top, about))
            base += count / top
    shape = "%H:%M" if last - first < 24 * 60 else "%d %b %H:%M"
    parts.append(_foot(_LEFT, datetime.fromtimestamp(first * 60, UTC).strftime(shape), anchor="start"))
    if number > 1:
        end = _LEFT + number * step
        parts.append(_foot(end, datetime.fromtimestamp(last * 60, UTC).strftime(shape), anchor="end"))
    return _svg(_TOP + _HIGH + _FOOT, parts, "Extends over time by outcome")


def waterfall(brief: Brief) -> str:
    """Draw each stage of one extend as a bar, from the first line to the last."""
    if not brief.bars:
        return "<p>One line only.</p>"
    start = min(bar[1] for bar in brief.bars)
    whole = max(max(bar[2] for bar in brief.bars) - start, 1e-6)
    name, row = 112, 16
    room = WIDE - name - 52
    parts: list[str] = []
    for number, (what, begin, end) in enumerate(brief.bars):
        y = number * row + 4
        x = name + (begin - start) / whole * room
        long = max((end - begin) / whole * room, 1.0)
        css = "step" if what.startswith("step ") else "good"
        parts.append(f'<text class="name" x="{name - 6}" y="{y + 9}">{escape(what[:20])}</text>')
        parts.append(f'<rect class="{css}" x="{x:.1f}" y="{y}" width="{long:.1f}" height="{row - 5}"/>')
        parts.append(f'<text x="{x + long + 3:.1f}" y="{y + 9}">{time_text(end - begin)}</text>')
    return _svg(len(brief.bars) * row + 8, parts, "Waterfall of one extend")


def legend(results: Mapping[str, int]) -> str:
    """Return the list of colours with their results and counts."""
    items = (
        f'<li><i class="{kind(name)}"></i>{escape(name)} <b>{count}</b></li>' for name, count in results.items()
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def time_text(seconds: float) -> str:
    """Format a duration with a unit from µs to days."""
    for factor, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.3g} {unit}"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    if seconds >= 0.001:  # noqa: PLR2004 - a millisecond
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds * 1e6:.0f} µs"


def _bar(css: str, x: float, width: float, base: float, share: float, about: str) -> str:
    tall = share * _HIGH
    y = _TOP + _HIGH - base * _HIGH - tall
    return (
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{max(width - 0.6, 0.8):.1f}" '
        f'height="{max(tall, 0.7):.1f}"><title>{escape(about)}</title></rect>'
    )


def _frame(top: int) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = _TOP + _HIGH - share * _HIGH
        value = top * share
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if value == int(value):
            lines.append(f'<text class="name" x="{_LEFT - 4}" y="{y + 4:.1f}">{_short(int(value))}</text>')
    return "".join(lines)


def _short(number: int) -> str:
    return f"{number / 1000:.3g}k" if number >= 10_000 else str(number)  # noqa: PLR2004


def _foot(x: float, text: str, *, anchor: str = "middle") -> str:
    return f'<text text-anchor="{anchor}" x="{x:.1f}" y="{_TOP + _HIGH + 14}">{escape(text)}</text>'


def _svg(high: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDE} {high:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
