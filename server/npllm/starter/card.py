"""The model card: what the model is, what it read, what it reached, and what it cannot do."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from npllm.starter.corpus import Manifest
from npllm.starter.figures import Figures, table
from npllm.starter.presets import Preset


@dataclass(frozen=True)
class CurvePoint:
    """A validation during training: bits per byte on the start of the held-out packages."""

    tokens: int
    minutes: float
    bits: float


@dataclass(frozen=True)
class Curve:
    """What the loss curve says about a whole training."""

    points: tuple[CurvePoint, ...]
    tokens: int
    steps: int
    minutes: float


def read_curve(path: Path) -> Curve:
    """Read a run's curve.jsonl."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    points = tuple(CurvePoint(e["tokens"], e["seconds"] / 60, e["validation"]) for e in entries if "validation" in e)
    last = entries[-1]
    return Curve(points, last["tokens"], last["step"], last["seconds"] / 60)


def model_card(preset: Preset, manifest: Manifest, figures: Figures, curve: Curve) -> str:
    """The card as Markdown. Names no machine and no folder of the build."""
    shape = preset.shape
    licences = Counter(entry.licence for entry in manifest.packages if entry.split == "train")
    listed = ", ".join(f"{name} ({count})" for name, count in licences.most_common())
    lengths = ", ".join(str(phase.length) for phase in preset.phases)
    shares = ", ".join(f"{100 * phase.snippets:.0f} %" for phase in preset.phases)
    apart = [entry for entry in manifest.packages if entry.split == "held-out"]
    held = ", ".join(f"{entry.name} {entry.version} ({entry.licence})" for entry in apart)
    header = f"""# The npllm starter model

A small code model for completing Python in an editor. It ships so that nothing has to be downloaded; any
larger causal model can take its place. Llama architecture, {shape.layers} layers, hidden size {shape.hidden},
{shape.heads} heads ({shape.kv_heads} for keys and values), {shape.vocabulary} byte-level BPE tokens, tied embeddings,
{_parameters(preset) / 1e6:.1f}M parameters in bfloat16. Licence of the weights: Apache-2.0.

## Formats

`<|file|>path`, a line break, then text. Several such pieces may stand in a context; snippets come before the
file that is being written. `<|end|>` ends a file and an infilled middle, `<|pad|>` pads, there is no bos token.

- prefix-suffix-middle: `<|file|>path⏎<|prefix|>PREFIX<|suffix|>SUFFIX<|middle|>MIDDLE<|end|>`
- suffix-prefix-middle: `<|file|>path⏎<|prefix|><|suffix|>SUFFIX<|middle|>PREFIX MIDDLE<|end|>`, with PREFIX and
  MIDDLE tokenized separately and nothing between them. Typing then only appends.

Line ends are `\\n`. Trained on contexts of up to {max(phase.length for phase in preset.phases)} tokens.

## Data

{len(manifest.names("train"))} packages, {_languages(manifest)}, at most {preset.package_cap / 1e6:.2f} MB from
a Python package beside the standard library and {preset.npm_cap / 1e6:.2f} MB from an npm package; `manifest.json`
names every one with version, licence and language. Licences: {listed}.

Vendored, generated and test-data files, exact and near duplicates are out. Never read:
{", ".join(manifest.reserved)}, nor files that nearly equal one of theirs.
Held out whole, for the figures below: {held}.

## Training

Preset `{preset.name}`: {curve.tokens / 1e6:.1f}M tokens in {curve.steps} steps and {curve.minutes:.0f} minutes;
Muon and AdamW; contexts of {lengths} tokens in turn; half of the pieces infilling, half of these in each order,
cut at characters; before {shares} of the pieces (by phase) stand related snippets of sibling files.

## Figures

{table(figures)}

`python -m npllm.starter.evaluate` prints them again. During training, on the start of each held-out package:

| tokens | minutes | bits per byte |
|---|---|---|
"""
    rows = [f"| {p.tokens / 1e6:.1f}M | {p.minutes:.0f} | {p.bits:.3f} |" for p in curve.points]
    return header + "\n".join(rows) + "\n\n" + _LIMITS


_LIMITS = """## Limits

It is very small and saw little text: it knows the syntax of Python, and less well of JavaScript and TypeScript, common
idioms and what stands in its context, and little else. It invents names, knows no facts and follows no instructions.
It may repeat fragments of the packages it read, which remain under their own licences. Rebuild it with
`npllm starter build`.
"""


def _languages(manifest: Manifest) -> str:
    python = manifest.bytes("train", "python") / 1e6
    script = manifest.bytes("train", "javascript", "typescript") / 1e6
    return f"{python:.1f} MB of Python" + (f" and {script:.1f} MB of JavaScript and TypeScript" if script else "")


def _parameters(preset: Preset) -> int:
    shape = preset.shape
    width = shape.hidden // shape.heads
    attention = 2 * shape.hidden**2 + 2 * shape.hidden * width * shape.kv_heads
    layer = attention + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden
    return shape.vocabulary * shape.hidden + shape.layers * layer + shape.hidden
