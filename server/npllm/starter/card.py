"""The model card: what the model is, what it read, what it reached, and what it cannot do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from npllm.starter.corpus import Manifest
from npllm.starter.curve import Curve
from npllm.starter.figures import Figures, table
from npllm.starter.presets import PRESETS, Preset, Role
from npllm.starter.trials import Trial, parameters

_FIGURES_BEGIN = "## Figures\n\n"
_FIGURES_END = "\n\n`python -m npllm.starter.evaluate` prints them again."

_OPENINGS: dict[Role, str] = {
    "model": """# The npllm starter: the base model that ships

A small code model that completes Python, and JavaScript and TypeScript less well, in an editor. It is the *base*: what
npllm shows is decided by it. It ships so that nothing has to be downloaded; any larger causal model can take its place.
(The cerebellum's starter, an eighth of its size, is another model with a card of its own.)""",
    "cerebellum": """# The npllm cerebellum's starter: the draft model that ships

A very small code model that *drafts* for the npllm starter: it guesses the next tokens, the starter verifies them, and
only what the starter agrees with is shown. It is not the model that completes, and by itself it completes badly. It has
the starter's tokenizer and read the same rows.""",
}


def model_card(preset: Preset, manifest: Manifest, figures: Figures, curve: Curve, trials: Sequence[Trial] = ()) -> str:
    """The card as Markdown. `trials` are the builds it may be compared with, its own among them. Names no machine and
    no folder of the build."""
    shape = preset.shape
    licences = Counter(entry.licence for entry in manifest.packages if entry.split == "train")
    listed = ", ".join(f"{name} ({count})" for name, count in licences.most_common())
    lengths = ", ".join(str(phase.length) for phase in preset.phases)
    shares = ", ".join(f"{100 * phase.snippets:.0f} %" for phase in preset.phases)
    apart = [entry for entry in manifest.packages if entry.split == "held-out"]
    held = ", ".join(f"{entry.name} {entry.version} ({entry.licence})" for entry in apart)
    header = f"""{_OPENINGS[preset.role]}

Llama architecture, {shape.layers} layers, hidden size {shape.hidden}, {shape.heads} heads ({shape.kv_heads} for keys
and values), {shape.vocabulary} byte-level BPE tokens, tied embeddings, {parameters(shape) / 1e6:.1f}M parameters in
bfloat16. Licence of the weights: Apache-2.0.

{_choice(preset, trials)}
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

{_FIGURES_BEGIN}{table(figures)}{_FIGURES_END} They are one draw of
files: a difference of a hundredth, or of a few exact matches, says nothing. During training, on the start of each
held-out Python package:

| tokens | minutes | bits per byte |
|---|---|---|
"""
    rows = [f"| {p.tokens / 1e6:.1f}M | {p.minutes:.0f} | {p.bits:.3f} |" for p in curve.points]
    return header + "\n".join(rows) + "\n\n" + _LIMITS


def with_figures(card: str, figures: Figures) -> str:
    """A card with its figures replaced, for a model that was evaluated again. Raises ValueError when the card was not
    made by this recipe."""
    before, begin, rest = card.partition(_FIGURES_BEGIN)
    _, end, after = rest.partition(_FIGURES_END)
    if not begin or not end:
        raise ValueError("the card has no figures where this recipe puts them")
    return before + begin + table(figures) + end + after


def _choice(preset: Preset, trials: Sequence[Trial]) -> str:
    """Which preset this is, which others were tried, and what speaks for the one that is to ship."""
    rivals = sorted((trial for trial in trials if trial.role == preset.role), key=lambda trial: trial.prefix_only)
    if not rivals:
        return f"This is preset `{preset.name}`.\n"
    tried = {trial.preset for trial in rivals}
    missing = [f"`{p.name}`" for p in PRESETS.values() if p.role == preset.role and p.name not in tried]
    best = rivals[0]
    if len(rivals) == 1:
        verdict = "the only preset of its kind that was tried"
    elif best.preset == preset.name:
        verdict = "the one to ship, for it needs the fewest bits per byte of those tried"
    else:
        verdict = f"not the one to ship: `{best.preset}` needs fewer bits per byte"
    lines = [f"This is preset `{preset.name}`, {verdict}.", ""]
    lines += ["| preset | parameters | trained on | tokens | minutes | whole files | infilled (served) | exact rest |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| `{t.preset}` | {t.parameters / 1e6:.1f}M | {t.trained_on} | {t.tokens / 1e6:.1f}M | {t.minutes:.0f} | "
        f"{t.prefix_only:.3f} | {t.fim_spm:.3f} | {100 * t.rest_of_line:.1f} % |"
        for t in rivals
    ]
    if missing:
        lines += ["", f"Not tried: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


_LIMITS = """## Limits

It is very small: it knows the syntax of Python, and less well of JavaScript and TypeScript, common
idioms and what stands in its context, and little else. It knows no other language. It invents names, knows no facts and
follows no instructions; what it writes may not run, nor even parse (see the figures). It may repeat fragments of the
packages it read, which remain under their own licences. Rebuild it with `npllm starter build`.
"""


def _languages(manifest: Manifest) -> str:
    python = manifest.bytes("train", "python") / 1e6
    script = manifest.bytes("train", "javascript", "typescript") / 1e6
    return f"{python:.1f} MB of Python" + (f" and {script:.1f} MB of JavaScript and TypeScript" if script else "")
