# SPDX-License-Identifier: Apache-2.0
"""The report as one self-contained page without scripts and external files, readable on a phone and in the dark."""

from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from typing import Final

from bridge.audit import plots, trace
from bridge.audit.entry import Entry
from bridge.audit.histogram import Durations
from bridge.audit.report import Brief, LogReport

_SHOWN: Final = 100
_WATERFALLS: Final = 10


def render(made: LogReport) -> str:
    """Return the report as HTML. All text from the logs is escaped."""
    css = resources.files("bridge.audit").joinpath("page.css").read_text(encoding="utf-8")
    head = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Extend Bridge report</title><style>{css}</style></head><body><main>"
    )
    return head + "".join(_body(made)) + "</main></body></html>\n"


def _body(made: LogReport) -> Iterator[str]:
    yield "<h1>What happened to the extends</h1>"
    if made.oldest is not None and made.newest is not None:
        span = f"{trace.clock(made.oldest)[:19]} to {trace.clock(made.newest)[:19]} UTC"
        yield f'<p class="soft">{span}, {made.reading.lines} lines of {made.reading.files} files</p>'
    for line in made.missing:
        yield f'<p class="note">Not known: {escape(line)}.</p>'
    yield f'<div class="figures">{"".join(_figures(made))}</div>'
    overall = made.hops.get("cinder to guest") or made.hops.get("accepted to closed") or Durations()
    source = "From Cinder's notification" if "cinder to guest" in made.hops else "From the acceptance"
    yield '<div class="cards">'
    yield f"<section><h2>{source} to the guest</h2>{plots.latency(overall)}</section>"
    legend = plots.legend(dict(made.results.most_common()))
    yield f"<section><h2>Extends over time</h2>{plots.over_time(made.moments)}{legend}</section>"
    yield "</div><br>"
    for title, kind, briefs in (
        ("Stuck: open for too long", "stuck", made.stuck),
        ("Parked: wait for a person", "parked", made.parked),
        ("Behind: the guest has not got the size", "behind", made.behind),
    ):
        if briefs:
            yield f"<section><h2>{title} ({made.wrong[kind]})</h2>{_table(briefs)}</section>"
    if made.at_restart:
        title = f"At its restart the guest sees the size ({made.at_restarts})"
        yield f"<section><h2>{title}</h2>{_table(made.at_restart)}</section>"
    if made.file_systems:
        counts = ", ".join(f"{number} {escape(state)}" for state, number in made.file_systems.most_common())
        table = _file_systems(made.unused) if made.unused else ""
        yield f"<section><h2>File systems in guests</h2><p>{counts}</p>{table}</section>"
    yield f"<section><h2>Each hop</h2>{_hops(made)}</section>"
    if made.slowest:
        yield "<section><h2>The slowest, stage by stage</h2>"
        for number, brief in enumerate(made.slowest[:_WATERFALLS]):
            yield _waterfall(brief, is_open=number == 0)
        yield "</section>"


def _figures(made: LogReport) -> Iterator[str]:
    yield f"<div><b>{made.extends}</b>extends</div>"
    for kind in ("stuck", "parked", "behind"):
        alarm = ' class="alarm"' if made.wrong[kind] else ""
        yield f"<div{alarm}><b>{made.wrong[kind]}</b>{kind}</div>"
    if made.replayed:
        yield f"<div><b>{made.replayed}</b>replayed</div>"


def _hops(made: LogReport) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{hop.count}</td>'
        + "".join(f'<td class="number">{plots.time_text(hop.percentile(p))}</td>' for p in (50, 95, 99))
        + f'<td class="number">{plots.time_text(hop.longest)}</td></tr>'
        for name, hop in made.hops.items()
    )
    names = "".join(f'<th class="number">{name}</th>' for name in ("count", "p50", "p95", "p99", "max"))
    return f'<div class="scroll"><table><tr><th>hop</th>{names}</tr>{rows}</table></div>'


def _table(briefs: Sequence[Brief]) -> str:
    names = ("volume", "server", "since (UTC)", "stands", "why", "host")
    rows = "".join(
        "<tr>" + "".join(f'<td data-name="{n}">{cell}</td>' for n, cell in zip(names, _cells(brief), strict=True))
        for brief in briefs[:_SHOWN]
    )
    heads = "".join(f"<th>{name}</th>" for name in names)
    more = f"<p class='soft'>and {len(briefs) - _SHOWN} more</p>" if len(briefs) > _SHOWN else ""
    return f'<div class="scroll"><table class="briefs"><tr>{heads}</tr>{rows}</table></div>{more}'


def _file_systems(entries: Sequence[Entry]) -> str:
    names = ("volume", "server", "seen (UTC)", "stands", "why", "unused bytes", "host")
    rows = "".join(
        "<tr>"
        + "".join(f'<td data-name="{n}">{cell}</td>' for n, cell in zip(names, _file_system(entry), strict=True))
        for entry in entries[:_SHOWN]
    )
    heads = "".join(f"<th>{name}</th>" for name in names)
    more = f"<p class='soft'>and {len(entries) - _SHOWN} more</p>" if len(entries) > _SHOWN else ""
    return f'<div class="scroll"><table class="briefs"><tr>{heads}</tr>{rows}</table></div>{more}'


def _file_system(entry: Entry) -> tuple[str, ...]:
    return (
        f"<code>{escape(entry.volume or '-')}</code>",
        f"<code>{escape(entry.server or '-')}</code>",
        trace.clock(entry.at)[:19],
        escape(entry.outcome or "-"),
        escape(trace.meaning(entry.reason) if entry.reason else "-"),
        escape(str(entry.data.get("unused", "-"))),
        escape(entry.host or "-"),
    )


def _cells(brief: Brief) -> tuple[str, ...]:
    return (
        f"<code>{escape(brief.volume or '-')}</code>",
        f"<code>{escape(brief.server or '-')}</code>",
        trace.clock(brief.began)[:19],
        escape(brief.result),
        escape(trace.meaning(brief.reason) if brief.reason else "-"),
        escape(brief.host or "-"),
    )


def _waterfall(brief: Brief, *, is_open: bool) -> str:
    attempts = "1 attempt" if brief.attempts == 1 else f"{brief.attempts} attempts"
    about = f"{plots.time_text(brief.seconds or 0)}, {brief.result}, {attempts}"
    where = (
        f"volume {brief.volume}, server {brief.server}, host {brief.host or '-'}, {brief.request or 'no request'}"
    )
    state = " open" if is_open else ""
    return (
        f"<details{state}><summary><b>{escape(about)}</b></summary>"
        f'<p class="soft"><code>{escape(where)}</code></p>{plots.waterfall(brief)}</details>'
    )
