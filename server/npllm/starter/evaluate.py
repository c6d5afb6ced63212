"""Evaluate a starter model on packages it has never seen: `python -m npllm.starter.evaluate [MODEL]`.

Figures are bits per UTF-8 byte of the judged text (lower is better) and exact matches. Everything is drawn with a
fixed seed, so two models are asked the same things; the same held-out packages are fetched by name if need be.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from npllm.starter.collect import fetch_wheels, keep_files, read_wheel
from npllm.starter.corpus import SourceFile
from npllm.starter.dedup import DuplicateFilter
from npllm.starter.fim import Cut, Order, cut
from npllm.starter.paths import SHIPPED, default_work
from npllm.starter.scoring import Passage, complete_line, negative_log_likelihoods
from npllm.starter.snippets import SnippetIndex
from npllm.starter.sources import HELD_OUT, normalise
from npllm.starter.tokens import Codec

_BEFORE, _AFTER = 1400, 500  # characters of prefix and suffix around a judged place


@dataclass(frozen=True)
class Held:
    """A held-out package's files and the snippets they offer one another."""

    name: str
    files: tuple[SourceFile, ...]
    index: SnippetIndex


@dataclass(frozen=True)
class Extent:
    """How much is asked: about a minute's work on two free cores."""

    per_package: int = 60_000  # characters read from their files' starts
    middles: int = 160
    lines: int = 150
    cursors: int = 120


@dataclass(frozen=True)
class Figures:
    """What an evaluation found. All but the counts and `exact_match` are bits per UTF-8 byte."""

    prefix_only: float
    fim_psm: float
    fim_spm: float
    line_alone: float
    line_with_related: float
    line_with_found: float
    line_with_unrelated: float
    exact_match: float
    xz_per_file: float
    by_package: tuple[tuple[str, float], ...]  # `prefix_only` of each package by itself
    prefix_bytes: int
    lines: int
    cursors: int


def held_out(cache: Path, names: Sequence[str] = HELD_OUT) -> list[Held]:
    """The held-out packages, fetched by name into `cache` when they are not there. Raises FileNotFoundError."""
    fetch_wheels(names, cache)
    packages = []
    for name in names:
        wheels = [path for path in cache.glob("*.whl") if normalise(path.name.split("-")[0]) == normalise(name)]
        if not wheels:
            raise FileNotFoundError(f"no wheel of the held-out package {name} could be fetched")
        files = tuple(keep_files(read_wheel(wheels[0]), DuplicateFilter(), cap=450_000))
        packages.append(Held(name, files, SnippetIndex(files, seed=0)))
    return packages


def load(folder: Path) -> tuple[LlamaForCausalLM, Codec]:
    """A model folder in fp32, ready to be asked. Raises OSError when it is not a model."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no config.json")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return network.eval(), Codec.load(folder / "tokenizer.json")


def prefix_bits(
    network: LlamaForCausalLM, codec: Codec, packages: Sequence[Held], per_package: int, window: int = 1024
) -> tuple[float, int]:
    """Bits per byte of whole files read from their start in windows of `window` tokens, and the bytes judged."""
    passages, size = [], 0
    for package in packages:
        left = per_package
        for file in package.files:
            if left <= 0:
                break
            text = file.text[:left]
            left -= len(text)
            size += len(text.encode())
            head = (codec.file, *codec.encode(file.path + "\n"))
            body = codec.encode(text)
            step = window - len(head)
            for begin in range(0, len(body), step):
                ids = (*head, *body[begin : begin + step])
                passages.append(Passage(ids, len(head), len(ids)))
    return _bits(sum(negative_log_likelihoods(network, passages, batch=4)), size), size


def infilling_passage(codec: Codec, path: str, parts: Cut, order: Order, before: Sequence[int] = ()) -> Passage:
    """An infilling prompt with its true middle; the middle, without `<|end|>`, is judged."""
    head = [*before, codec.file, *codec.encode(path + "\n"), codec.prefix]
    prefix, suffix, middle = codec.encode(parts.prefix), codec.encode(parts.suffix), codec.encode(parts.middle)
    if order == "psm":
        given = [*head, *prefix, codec.suffix, *suffix, codec.middle]
    else:
        given = [*head, codec.suffix, *suffix, codec.middle, *prefix]
    return Passage((*given, *middle), len(given), len(given) + len(middle))


def infilling_bits(
    network: LlamaForCausalLM, codec: Codec, packages: Sequence[Held], order: Order, count: int
) -> float:
    """Bits per byte of the middles of random editor-like cuts."""
    rng = random.Random(11)
    passages: list[Passage] = []
    size = 0
    while len(passages) < count:
        file = rng.choice(rng.choice(packages).files)
        begin = rng.randrange(max(1, len(file.text) - _BEFORE - _AFTER))
        parts = cut(file.text[begin : begin + _BEFORE + _AFTER], rng)
        if parts.middle:
            passages.append(infilling_passage(codec, file.path, parts, order))
            size += len(parts.middle.encode())
    return _bits(sum(negative_log_likelihoods(network, passages)), size)


@dataclass(frozen=True)
class Place:
    """A line of a held-out file with its surroundings, and three snippets: related to the line, found from the text
    before it alone, and from another package."""

    path: str
    parts: Cut
    related: tuple[str, str]
    found: tuple[str, str]
    unrelated: tuple[str, str]


def places(packages: Sequence[Held], count: int) -> list[Place]:
    """Lines for which a sibling file offers a snippet that shares a rare identifier with them."""
    rng = random.Random(5)
    result: list[Place] = []
    for _ in range(count * 40):
        package = rng.choice(packages)
        file = rng.choice(package.files)
        starts = [k + 1 for k, c in enumerate(file.text) if c == "\n" and k > 300]
        if len(starts) < 5:
            continue
        start = rng.choice(starts)
        end = file.text.find("\n", start)
        line = file.text[start:end]
        if end < 0 or len(line.strip()) < 12:
            continue
        begin = start + len(line) - len(line.lstrip())
        before = file.text[max(0, start - _BEFORE) : begin]
        span = (start, end)
        related = package.index.related(line, line, file.path, span, 1, same_file=False)
        found = package.index.related(before[-600:], before[-150:], file.path, span, 1, same_file=False)
        other = rng.choice(rng.choice([p for p in packages if p is not package]).index.snippets)
        if related and found:
            parts = Cut(before, file.text[begin:end], file.text[end : end + _AFTER])
            triple = [(s.path, s.text) for s in (related[0], found[0], other)]
            result.append(Place(file.path, parts, triple[0], triple[1], triple[2]))
        if len(result) == count:
            break
    return result


def line_bits(network: LlamaForCausalLM, codec: Codec, chosen: Sequence[Place], snippet: str | None) -> float:
    """Bits per byte of the places' lines, infilled in SPM order behind the snippet of the named kind, or none."""
    passages = []
    for place in chosen:
        before: list[int] = []
        if snippet is not None:
            path, text = getattr(place, snippet)
            before = [codec.file, *codec.encode(f"{path}\n{text}\n")]
        passages.append(infilling_passage(codec, place.path, place.parts, "spm", before))
    size = sum(len(place.parts.middle.encode()) for place in chosen)
    return _bits(sum(negative_log_likelihoods(network, passages)), size)


def exact_matches(network: LlamaForCausalLM, codec: Codec, packages: Sequence[Held], count: int) -> float:
    """The share of random cursor positions inside lines at which greedy decoding writes the rest of the line."""
    rng = random.Random(7)
    right = asked = 0
    while asked < count:
        file = rng.choice(rng.choice(packages).files)
        position = rng.randrange(len(file.text))
        end = file.text.find("\n", position)
        rest = file.text[position:end]
        start = file.text.rfind("\n", 0, position) + 1
        if end < 0 or not rest.strip() or not file.text[start:position].strip():
            continue
        parts = Cut(file.text[max(0, position - _BEFORE) : position], "", file.text[end : end + _AFTER])
        prompt = infilling_passage(codec, file.path, parts, "spm").ids
        right += complete_line(network, codec, prompt).rstrip() == rest.rstrip()
        asked += 1
    return right / asked


def xz_bits(packages: Sequence[Held]) -> float:
    """Bits per byte of `xz -9` on each held-out file by itself: a baseline that knows no other text."""
    texts = [file.text.encode() for package in packages for file in package.files]
    packed = sum(len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) for text in texts)
    return 8 * packed / sum(map(len, texts))


def evaluate(network: LlamaForCausalLM, codec: Codec, packages: Sequence[Held], extent: Extent = Extent()) -> Figures:
    """Every figure of one model."""
    each = [prefix_bits(network, codec, [package], extent.per_package) for package in packages]
    size = sum(part for _, part in each)
    chosen = places(packages, extent.lines)
    return Figures(
        prefix_only=sum(bits * part for bits, part in each) / size,
        fim_psm=infilling_bits(network, codec, packages, "psm", extent.middles),
        fim_spm=infilling_bits(network, codec, packages, "spm", extent.middles),
        line_alone=line_bits(network, codec, chosen, None),
        line_with_related=line_bits(network, codec, chosen, "related"),
        line_with_found=line_bits(network, codec, chosen, "found"),
        line_with_unrelated=line_bits(network, codec, chosen, "unrelated"),
        exact_match=exact_matches(network, codec, packages, extent.cursors),
        xz_per_file=xz_bits(packages),
        by_package=tuple((package.name, bits) for package, (bits, _) in zip(packages, each, strict=True)),
        prefix_bytes=size,
        lines=len(chosen),
        cursors=extent.cursors,
    )


def table(figures: Figures) -> str:
    """The figures as a Markdown table."""
    rows = [
        ("whole files, prefix only", f"{figures.prefix_only:.3f}"),
        *((f"- of these, {name}", f"{bits:.3f}") for name, bits in figures.by_package),
        ("infilled middle, prefix-suffix-middle", f"{figures.fim_psm:.3f}"),
        ("infilled middle, suffix-prefix-middle (the one served)", f"{figures.fim_spm:.3f}"),
        (f"one line ({figures.lines} lines), no snippet before it", f"{figures.line_alone:.3f}"),
        ("the same lines, a related snippet of a sibling file", f"{figures.line_with_related:.3f}"),
        ("the same lines, a snippet found from the text before the cursor", f"{figures.line_with_found:.3f}"),
        ("the same lines, a snippet of another package (placebo)", f"{figures.line_with_unrelated:.3f}"),
        ("`xz -9` of each file by itself (baseline)", f"{figures.xz_per_file:.3f}"),
    ]
    lines = ["| held-out text | bits per UTF-8 byte |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    share = f"{100 * figures.exact_match:.1f} % of {figures.cursors} random cursors"
    return "\n".join([*lines, "", f"Exact match of the rest of the line, greedy: {share}."])


def _bits(nats: float, size: int) -> float:
    return nats / math.log(2) / size


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of a model folder; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="npllm.starter.evaluate", description=__doc__)
    parser.add_argument(
        "model", nargs="?", type=Path, default=SHIPPED, help="a model folder (default: the shipped one)"
    )
    parser.add_argument("--work", type=Path, default=default_work(), help="where fetched wheels are kept")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    try:
        network, codec = load(arguments.model)
        figures = evaluate(network, codec, held_out(arguments.work / "wheels"))
    except OSError as problem:
        print(f"evaluate: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(figures), indent=1) if arguments.json else table(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
