"""A sleep's report as one HTML page: self-contained, without a script, readable offline, light or dark.

Everything that came from outside is escaped, since code is full of tags; a content security policy forbids the rest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from html import escape

from npllm.sleep import plots
from npllm.sleep.record import Details, Quote, Record, Source, what_of
from npllm.sleep.report import LEVEL, CerebellumReport, ContextReport, SliceKind, SliceReport, Verdict

_CEREBELLUM = "cerebellum"  # what its details are kept under
_MODULATOR = "modulator"  # what the sentence about its policy begins with

_STYLE = """
:root { --ink: #1f2328; --soft: #59636e; --paper: #ffffff; --line: #d1d9e0; --panel: #f6f8fa;
  --good: #1a7f37; --bad: #cf222e; --open: #9a6700; --curve: #0969da; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --line: #3d444d;
  --panel: #151b23; --good: #3fb950; --bad: #f85149; --open: #d29922; --curve: #4493f8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-top: 1px solid var(--line);
  padding-top: 1rem; } h3 { font-size: 1rem; }
p.soft, figcaption, summary { color: var(--soft); }
.badge { font-size: .8rem; padding: .1rem .5rem; border-radius: 1rem; border: 1px solid currentColor; }
.published { color: var(--good); } .rejected { color: var(--bad); } .waiting { color: var(--open); }
.problem { border-left: 4px solid var(--bad); padding-left: .8rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .9rem .15rem 0; text-align: left; vertical-align: top; }
th { font-weight: normal; color: var(--soft); }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem .7rem;
  margin: .3rem 0; overflow-x: auto; font: 13px/1.45 ui-monospace, monospace; }
pre .above { color: var(--soft); } figure { margin: .8rem 0; } svg { width: 100%; max-width: 640px; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); } .grid { stroke: var(--line); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-dasharray: 3 3; } .line { fill: none; stroke: var(--curve); stroke-width: 2; }
line.good, circle.good { stroke: var(--good); fill: var(--good); stroke-width: 2; }
line.bad, circle.bad { stroke: var(--bad); fill: var(--bad); stroke-width: 2; }
line.open, circle.open { stroke: var(--open); fill: var(--open); stroke-width: 2; }
"""


def page(record: Record) -> str:
    """The whole page."""
    report = record.report
    title = f"npllm: the sleep of {record.started_at:%Y-%m-%d %H:%M} UTC"
    body = [
        f"<h1>{title}</h1>",
        f'<p class="soft">Base {escape(report.base)}; {_duration(report.seconds)}'
        f"{f', in {report.parts} parts' if report.parts > 1 else ''}; {escape(str(record.id))}</p>",
    ]
    if report.problem:
        body.append(f'<p class="problem">{escape(report.problem)}</p>')
    if report.empty:
        body.append("<p>Nothing was consolidated.</p>")
    for part in report.contexts:
        body += _context(part, record.details_of(part.context))
    if report.cerebellum:
        body += _cerebellum(report.cerebellum, record.details_of(_CEREBELLUM))
    if report.policy:
        body += [f"<h2>{_MODULATOR}</h2>", f"<p>{escape(report.policy.removeprefix(f'{_MODULATOR}: '))}</p>"]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>{chr(10).join(body)}</body></html>\n"
    )


def _context(part: ContextReport, details: Details) -> Iterable[str]:
    yield from _headed(part.context, part.verdict, part.reason)
    for note in part.notes:
        yield f'<p class="soft">{escape(note)}</p>'
    if part.verdict is Verdict.WAITING:
        return
    yield _table(
        {
            "learned from": f"{part.new} new and {part.old} old experiences in {part.files} files"
            + (f", {part.passages} passages of {part.project_files} project files" if part.passages else "")
            + (f", {part.rehearsed} passages of general code rehearsed" if part.rehearsed else ""),
            "judged on": f"{part.held_out} held-out texts in {part.held_out_files} files",
            "bits per byte": f"{_bits(part.nll_before)} before, {_bits(part.nll_after)} now"
            + ("" if part.nll_zeroed is None else f", {_bits(part.nll_zeroed)} with the trace zeroed"),
            "training": f"{part.steps} steps, {part.tokens} tokens, {part.tokens_per_s:.0f} tokens/s, "
            f"{part.epochs:.2g} passes",
            "time": _duration(part.seconds),
            "version": part.version or "none",
        }
    )
    yield from _gains([_gain(one) for one in part.slices] or [_whole(part)])
    yield from _details(details)


def _cerebellum(part: CerebellumReport, details: Details) -> Iterable[str]:
    yield from _headed(_CEREBELLUM, part.verdict, part.reason)
    if part.verdict is Verdict.WAITING:
        return
    layer = {"without": part.nll_plain, "with": part.nll_plastic, "with its trace zeroed": part.nll_zeroed}
    layers = ", ".join(f"{_bits(nll)} {name}" for name, nll in layer.items() if nll is not None)
    yield _table(
        {
            "learned from": f"{part.new} new and {part.old} old experiences, {part.passages} passages",
            "judged on": f"{part.held_out} held-out texts",
            "bits per byte, alone": f"{_bits(part.nll_before)} before, {_bits(part.nll_after)} now",
            "beside the base": part.say,
            "plastic layer": f"{'serves' if part.plastic else 'does not serve'} ({layers})",
            "way": f"{part.way:.0%} of what it learned",
            "reflexes": part.reflexes,
            "patterns": f"{part.patterns} frequent ones are known",
            "training": f"{part.steps} steps, {part.tokens} tokens, {part.tokens_per_s:.0f} tokens/s",
            "time": _duration(part.seconds),
            "version": part.version,
        }
    )
    rows = [plots.Gain(f"alone ({part.held_out})", part.gain, part.gain_low, part.gain_high)]
    if part.beside_before and part.beside_after is not None:
        gain = 1 - part.beside_after / part.beside_before
        rows.append(plots.Gain("beside the base", gain, part.beside_low or 0.0, part.beside_high or 0.0))
    yield from _gains([*rows, *map(_gain, part.slices)])
    yield from _details(details)


def _headed(name: str, verdict: Verdict, reason: str) -> Iterable[str]:
    yield f'<h2>{escape(name)} <span class="badge {verdict.value}">{verdict.value}</span></h2>'
    yield f"<p>{escape(reason)}</p>"


def _gains(rows: list[plots.Gain]) -> Iterable[str]:
    yield "<h3>Gain and retention</h3>"
    yield f'<p class="soft">Fewer nats a byte than before, {LEVEL:.0%} intervals; right is better.</p>'
    yield plots.gains(rows)


def _details(details: Details) -> Iterable[str]:
    """The training's curves, lines before and after, the files."""
    loss = plots.curve([(one.step, one.loss) for one in details.curve], x="step", y="Loss, nats a token")
    speed = plots.curve([(one.step, one.tokens_per_s) for one in details.curve], x="step", y="Speed, tokens/s")
    if loss:
        yield f"<h3>Training</h3>{loss}{speed}"
    if details.quotes:
        yield "<h3>Before and after</h3>"
        yield '<p class="soft">Held-out places, drawn by chance; none of these texts was learned.</p>'
        yield from map(_quote, details.quotes)
    if details.sources:
        yield from _sources(details.sources)


def _quote(quote: Quote) -> str:
    above, _, line = quote.above.rpartition("\n")
    lead = f'<span class="above">{escape(above)}{chr(10) if above else ""}{escape(line)}</span>'
    rows = (("you wrote", quote.wrote), ("before", quote.before), ("now", quote.after))
    return (
        f"<p>{escape(quote.path)}</p><table>"
        + "".join(
            f"<tr><th>{name}</th><td><pre>{lead}{escape(text) or '<i>nothing</i>'}</pre></td></tr>"
            for name, text in rows
        )
        + "</table>"
    )


def _sources(sources: Iterable[Source]) -> Iterable[str]:
    by_project: dict[str, list[Source]] = defaultdict(list)
    for one in sources:
        by_project[one.project].append(one)
    for project, found in by_project.items():
        rows = "".join(f"<tr><td>{escape(one.path)}</td><td>{what_of(one)}</td></tr>" for one in found)
        yield (
            f"<details><summary>Learned from {len(found)} files of {escape(project or 'no project')}</summary>"
            f"<table>{rows}</table></details>"
        )


def _gain(one: SliceReport) -> plots.Gain:
    names = {SliceKind.NEW: "new texts", SliceKind.GENERAL: "general code"}
    name = names.get(one.kind) or f"texts of {one.date or one.name}"
    return plots.Gain(f"{name} ({one.texts})", one.gain, one.gain_low, one.gain_high)


def _whole(part: ContextReport) -> plots.Gain:
    return plots.Gain(f"new texts ({part.held_out})", part.gain, part.gain_low, part.gain_high)


def _table(rows: dict[str, str]) -> str:
    cells = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


def _bits(nats: float) -> str:
    return f"{nats / math.log(2):.3f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
