"""Evaluate a starter model on packages it has never seen: `python -m npllm.starter.evaluate [MODEL]`.

Figures are bits per UTF-8 byte of the judged text (lower is better), exact matches, and completions that parse; each
beside a 5-gram model of the same tokens and `xz -9` of each file by itself. Everything is drawn with a fixed seed, so
two models are asked the same things. Packages are fetched by name if need be. The 5-gram model is counted from the
training text in the work folder, and left out where there is none (`npllm starter build --prepare` collects it).
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from npllm.starter.card import with_figures
from npllm.starter.corpus import Corpus, SourceFile, read_manifest
from npllm.starter.figures import Asked, Figures, Group, LineBits, Score, table
from npllm.starter.filters import parses
from npllm.starter.fim import Cut, Order
from npllm.starter.held import Held, held_out, read_in_training
from npllm.starter.ngram import NGram, sample_tokens
from npllm.starter.paths import SHIPPED, WorkFolder, default_work
from npllm.starter.presets import PRESETS
from npllm.starter.progress import tqdm
from npllm.starter.questions import Place, Question, blocks, middles, places, rest_of_lines, whole_lines
from npllm.starter.scoring import Judge, Network, Passage, Written
from npllm.starter.tokens import Codec

_LINE_TOKENS, _BLOCK_TOKENS = 40, 128
#: What the 5-gram model counts unless told otherwise: half a minute, and 1.3 GB of memory meanwhile.
NGRAM_TOKENS = 10_000_000


@dataclass(frozen=True)
class Extent:
    """How much each group of packages is asked: some minutes' work on two free cores."""

    per_package: int = 60_000  # characters read from their files' starts
    middles: int = 160
    places: int = 150
    cursors: int = 120
    lines: int = 120
    blocks: int = 60

    def scaled(self, factor: float) -> Extent:
        """So many times as much, and at least one of everything."""
        return Extent(**{name: max(1, round(factor * count)) for name, count in asdict(self).items()})


def load(folder: Path) -> tuple[LlamaForCausalLM, Codec]:
    """A model folder in fp32, on a GPU where there is one, ready to be asked. Raises OSError when it is not a model."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a model folder: it has no config.json")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    return network.eval(), Codec.load(folder / "tokenizer.json")


def judged_files(package: Held, per_package: int) -> list[SourceFile]:
    """A package's first so many characters, as files; the last one may be cut."""
    result, left = [], per_package
    for file in package.files:
        if left <= 0:
            break
        result.append(SourceFile(file.path, file.text[:left]))
        left -= len(file.text)
    return result


def prefix_bits(
    judge: Judge, codec: Codec, packages: Sequence[Held], per_package: int, window: int = 1024
) -> tuple[float, int]:
    """Bits per byte of whole files read from their start in windows of `window` tokens, and the bytes judged."""
    passages, size = [], 0
    for file in (file for package in packages for file in judged_files(package, per_package)):
        size += len(file.text.encode())
        head = (codec.file, *codec.encode(file.path + "\n"))
        body = codec.encode(file.text)
        step = window - len(head)
        for begin in range(0, len(body), step):
            ids = (*head, *body[begin : begin + step])
            passages.append(Passage(ids, len(head), len(ids)))
    return _bits(sum(judge.nats(passages)), size), size


def infilling_passage(codec: Codec, path: str, parts: Cut, order: Order, before: Sequence[int] = ()) -> Passage:
    """An infilling prompt with its true middle; the middle, without `<|end|>`, is judged."""
    head = [*before, codec.file, *codec.encode(path + "\n"), codec.prefix]
    prefix, suffix, middle = codec.encode(parts.prefix), codec.encode(parts.suffix), codec.encode(parts.middle)
    if order == "psm":
        given = [*head, *prefix, codec.suffix, *suffix, codec.middle]
    else:
        given = [*head, codec.suffix, *suffix, codec.middle, *prefix]
    return Passage((*given, *middle), len(given), len(given) + len(middle))


def infilling_bits(judge: Judge, codec: Codec, asked: Sequence[Question], order: Order) -> float:
    """Bits per byte of the middles."""
    size = sum(len(question.whole.middle.encode()) for question in asked)
    return _bits(sum(judge.nats([infilling_passage(codec, q.path, q.window, order) for q in asked])), size)


def line_bits(judge: Judge, codec: Codec, chosen: Sequence[Place], snippet: str | None) -> float:
    """Bits per byte of the places' lines, infilled in SPM order behind the snippet of the named kind, or none."""
    passages = []
    for place in chosen:
        before: list[int] = []
        if snippet is not None:
            path, text = getattr(place, snippet)
            before = [codec.file, *codec.encode(f"{path}\n{text}\n")]
        passages.append(infilling_passage(codec, place.path, place.parts, "spm", before))
    size = sum(len(place.parts.middle.encode()) for place in chosen)
    return _bits(sum(judge.nats(passages)), size)


def exact_matches(judge: Judge, codec: Codec, asked: Sequence[Question]) -> float:
    """The share of questions whose middle greedy decoding writes up to the line's end, trailing spaces aside."""
    right = 0
    for question in tqdm(asked, desc="lines", leave=False):
        written = judge.write(_prompt(codec, question), _LINE_TOKENS, line=True).text
        right += written.rstrip() == question.whole.middle.rstrip()
    return right / max(1, len(asked))


def parsing_share(judge: Judge, codec: Codec, asked: Sequence[Question]) -> float:
    """The share of Python files that parse once what was written stands in place of the hidden statements."""
    sound = 0
    for question in tqdm(asked, desc="blocks", leave=False):
        indent = len(question.whole.prefix.rpartition("\n")[2])
        text = block_of(judge.write(_prompt(codec, question), _BLOCK_TOKENS, line=False), indent)
        sound += parses(question.whole.prefix + text + question.whole.suffix)
    return sound / max(1, len(asked))


def block_of(written: Written, indent: int) -> str:
    """The part of a text that belongs to a block indented so far, which begins behind its first line's indentation:
    up to a line that is indented less, and without a last line that was broken off."""
    lines = written.text.split("\n")
    if not written.ended and len(lines) > 1:
        lines.pop()
    for number, line in enumerate(lines):
        if number and line.strip() and len(line) - len(line.lstrip()) < indent:
            lines = lines[:number]
            break
    return "\n".join(lines).rstrip()


def _prompt(codec: Codec, question: Question) -> tuple[int, ...]:
    passage = infilling_passage(codec, question.path, question.window, "spm")
    return passage.ids[: passage.start]


def xz_bits(packages: Sequence[Held], per_package: int) -> float:
    """Bits per byte of `xz -9` on each judged file by itself: a baseline that knows no other text."""
    texts = [file.text.encode() for package in packages for file in judged_files(package, per_package)]
    packed = sum(len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) for text in texts)
    return 8 * packed / sum(map(len, texts))


def evaluate(
    network: LlamaForCausalLM,
    codec: Codec,
    packages: Sequence[Held],
    extent: Extent = Extent(),
    ngram: NGram | None = None,
) -> Figures:
    """Every figure of one model, for Python and for JavaScript and TypeScript apart."""
    kinds = {
        "Python": [package for package in packages if package.language == "python"],
        "JavaScript and TypeScript": [package for package in packages if package.language != "python"],
    }
    model = Network(network, codec)
    groups = [_group(title, model, codec, chosen, extent, ngram) for title, chosen in kinds.items() if chosen]
    return Figures(tuple(groups), ngram.tokens if ngram else 0)


def _group(
    title: str, model: Judge, codec: Codec, packages: Sequence[Held], extent: Extent, ngram: NGram | None
) -> Group:
    python = packages[0].language == "python"
    hidden = blocks(packages, extent.blocks) if python else []
    questions = (
        middles(packages, extent.middles),
        rest_of_lines(packages, extent.cursors),
        whole_lines(packages, extent.lines),
        hidden,
    )
    chosen = places(packages, extent.places)
    each = [prefix_bits(model, codec, [package], extent.per_package) for package in packages]
    size = sum(part for _, part in each)
    found = [parses(question.whole.prefix + question.whole.suffix) for question in hidden]
    prefix_only = sum(bits * part for bits, part in each) / size
    return Group(
        title,
        Asked(size, *map(len, questions)),
        _score(model, codec, prefix_only, questions),
        None if ngram is None else _score(ngram, codec, _prefix_bits(ngram, codec, packages, extent), questions),
        xz_bits(packages, extent.per_package),
        sum(found) / len(found) if found else None,
        _line_bits(model, codec, chosen) if chosen else None,
        tuple((package.name, bits) for package, (bits, _) in zip(packages, each, strict=True)),
    )


def _prefix_bits(judge: Judge, codec: Codec, packages: Sequence[Held], extent: Extent) -> float:
    return prefix_bits(judge, codec, packages, extent.per_package)[0]


def _line_bits(judge: Judge, codec: Codec, chosen: Sequence[Place]) -> LineBits:
    kinds = (None, "related", "found", "unrelated")
    alone, related, found, unrelated = (line_bits(judge, codec, chosen, kind) for kind in kinds)
    return LineBits(alone, related, found, unrelated, len(chosen))


def _score(judge: Judge, codec: Codec, prefix_only: float, questions: tuple[list[Question], ...]) -> Score:
    asked, cursors, lines, hidden = questions
    return Score(
        prefix_only,
        # A 5-gram model sees four tokens back, so the middle has to follow the prefix whatever the order.
        infilling_bits(judge, codec, asked, "spm" if isinstance(judge, NGram) else "psm"),
        infilling_bits(judge, codec, asked, "spm"),
        exact_matches(judge, codec, cursors),
        exact_matches(judge, codec, lines),
        parsing_share(judge, codec, hidden) if hidden else None,
    )


def _bits(nats: float, size: int) -> float:
    return nats / math.log(2) / max(1, size)


def baseline(corpus: Corpus, codec: Codec, tokens: int = NGRAM_TOKENS) -> NGram | None:
    """The 5-gram model of about so many tokens of the corpus; None for no tokens, or where nothing was collected."""
    if tokens <= 0 or not corpus.manifest_path.exists():
        return None
    return NGram(sample_tokens(corpus, codec, tokens), codec)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of a model folder; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="npllm.starter.evaluate", description=__doc__)
    parser.add_argument(
        "model", nargs="?", type=Path, default=SHIPPED, help="a model folder (default: the shipped one)"
    )
    parser.add_argument("--packages", nargs="+", default=[], metavar="NAME", help="judge on these; npm:NAME for npm's")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="starter-cpu", help="whose training text to count")
    parser.add_argument("--work", type=Path, default=default_work(), help="where packages and training text are kept")
    parser.add_argument("--ngram-tokens", type=int, default=NGRAM_TOKENS, help="to count for the baseline; 0: none")
    parser.add_argument("--scale", type=float, default=1.0, help="ask so many times as much: 0.2 for a quick look")
    parser.add_argument("--card", action="store_true", help="write the figures into the model's card as well")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(argv)
    work = WorkFolder(given.work, given.preset, PRESETS[given.preset].data)
    try:
        network, codec = load(given.model)
        packages = held_out(work.wheels, work.npm, given.packages)
        manifest = given.model / "manifest.json"
        for name in read_in_training(read_manifest(manifest), packages) if manifest.exists() else ():
            print(f"evaluate: warning: the model read {name} in training; figures on it say nothing", file=sys.stderr)
        ngram = baseline(Corpus(work.corpus), codec, given.ngram_tokens)
        figures = evaluate(network, codec, packages, Extent().scaled(given.scale), ngram)
        if given.card:
            card = given.model / "MODEL_CARD.md"
            card.write_text(with_figures(card.read_text(encoding="utf-8"), figures), encoding="utf-8")
    except (OSError, ValueError) as problem:
        print(f"evaluate: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(figures), indent=1) if given.json else table(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
