"""Pack a corpus into rows of token ids: the contexts that the model is trained on.

A row holds pieces of one package only: parts of its files, half of them as fill-in-the-middle examples, and in front
of four in ten of them related snippets of sibling files. The files are dealt to the presets' phases, each with its own
row length, so that no phase repeats another's text. How rows lie on disk is `rows`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from npllm.starter.corpus import Corpus, SourceFile
from npllm.starter.echo import echo
from npllm.starter.fim import Order, assemble, cursors, cut
from npllm.starter.presets import Phase
from npllm.starter.progress import tqdm
from npllm.starter.rows import Rows, save_rows
from npllm.starter.snippets import SnippetIndex
from npllm.starter.tokens import Codec

#: Characters that one token stands for, a little low, so that a window usually fits the room it is cut for.
_CHARS_PER_TOKEN = 3.2
#: Less room than this at a row's end is filled with the start of the next window and nothing more.
_LEAST_ROOM = 96


@dataclass(frozen=True)
class Mix:
    """How often a piece is an infilling example, and how often snippets precede it."""

    fim: float = 0.5
    snippets: float = 0.4
    echo: float = 0.35  # of the pieces with snippets: one of them is an earlier version of what comes
    cursor_every: int = 120  # characters between places where text is encoded as if a cursor stood there
    snippet_share: float = 0.45  # of a row's room, at most


class Packer:
    """Makes rows of one length out of packages. Equal seeds and files make equal rows."""

    def __init__(self, codec: Codec, length: int, seed: int, mix: Mix = Mix()) -> None:
        self._codec, self._length, self._mix = codec, length, mix
        self._rng = random.Random(seed)

    def rows(self, files: Sequence[SourceFile], index: SnippetIndex) -> Iterator[list[int]]:
        """Rows of exactly `length` ids over the given files of one package; the last one may end in padding."""
        row: list[int] = []
        for file in files:
            position = 0
            while position < len(file.text):
                room = self._length - len(row)
                ids, taken = self._piece(file, position, room, index)
                row += ids
                position += max(1, taken)
                if len(row) >= self._length - 8:
                    yield row + [self._codec.pad] * (self._length - len(row))
                    row = []
        if len(row) > self._length // 3:
            yield row + [self._codec.pad] * (self._length - len(row))

    def _piece(self, file: SourceFile, position: int, room: int, index: SnippetIndex) -> tuple[list[int], int]:
        """One piece of at most `room` ids from `position` on, and how many characters of the file it consumed."""
        rng, codec = self._rng, self._codec
        wants_fim = room >= _LEAST_ROOM and rng.random() < self._mix.fim
        ids: list[int] = []
        window = file.text[position : position + int(room * _CHARS_PER_TOKEN)]
        wants_snippets = room >= 2 * _LEAST_ROOM and rng.random() < self._mix.snippets
        if wants_snippets:
            window = window[: max(200, int(len(window) * (0.6 if room > 300 else 0.5)))]
        if wants_fim:
            window = _to_line_end(window[: max(200, int(len(window) * rng.uniform(0.5, 1.0)))])
            parts = cut(window, rng)
            if wants_snippets:
                focus = parts.middle + parts.prefix.rsplit("\n", 1)[-1]
                middle = (len(parts.prefix), len(parts.prefix) + len(parts.middle))
                ids = self._snippets(file, focus, window, middle, position, room, index)
            order: Order = "psm" if rng.random() < 0.5 else "spm"
            edges = cursors(parts.prefix, self._mix.cursor_every, rng)
            return ids + assemble(file.path, parts, order, codec, room - len(ids), edges), len(window)
        if wants_snippets:
            anywhere = rng.randrange(len(window) // 2 + 1)
            ids = self._snippets(file, window, window, (anywhere, anywhere + 200), position, room, index)
        head = [codec.file, *codec.encode(file.path + "\n")]
        left = room - len(ids) - len(head)
        if left < 16:
            return (ids + head)[:room], 0
        text = file.text[position : position + int(left * 5)]
        body, ends = codec.encode_in_parts(text, cursors(text, self._mix.cursor_every, rng))
        if len(body) < left and position + len(text) >= len(file.text):
            return [*ids, *head, *body, codec.end], len(file.text) - position
        body = body[:left]
        return ids + head + body, ends[len(body) - 1]

    def _snippets(
        self,
        file: SourceFile,
        focus: str,
        query: str,
        coming: tuple[int, int],
        position: int,
        room: int,
        index: SnippetIndex,
    ) -> list[int]:
        """The ids of one to four snippets; `query` is the text at `position`, `coming` the part of it to echo."""
        rng = self._rng
        budget = int(room * self._mix.snippet_share)
        count = rng.choice((1, 1, 2, 3, 4) if room > 300 else (1, 1, 2))
        echoes = rng.random() < self._mix.echo
        span = (position, position + len(query))
        found = index.related(query, focus, file.path, span, count - echoes) if count > echoes else []
        pieces = [(snippet.path, snippet.text) for snippet in found]
        if echoes:
            path = rng.choice(pieces)[0] if pieces and rng.random() < 0.5 else file.path
            pieces.insert(rng.randint(0, len(pieces)), (path, echo(query, *coming, rng)))
        chosen: list[list[int]] = []
        for path, text in reversed(pieces):
            ids = [self._codec.file, *self._codec.encode(f"{path}\n{text}\n")]
            if len(ids) <= budget:
                budget -= len(ids)
                chosen.insert(0, ids)
        return [token for ids in chosen for token in ids]


def _to_line_end(window: str) -> str:
    """The window without its last, broken line, if it has others."""
    end = window.rfind("\n")
    return window[: end + 1] if end > len(window) // 2 else window


@dataclass(frozen=True)
class PackJob:
    """One package's work for a worker process."""

    corpus: Path
    tokenizer: Path
    package: str
    phases: tuple[Phase, ...]
    seed: int


def pack_package(job: PackJob) -> tuple[Rows, ...]:
    """The rows of one package, one array of shape (rows, length) for each length."""
    codec = Codec.load(job.tokenizer)
    files = list(Corpus(job.corpus).read_package(job.package))
    seed = zlib.crc32(f"{job.seed}:{job.package}".encode())
    index = SnippetIndex(files, seed)
    random.Random(seed).shuffle(files)
    total = sum(len(file.text) for file in files)
    arrays: list[Rows] = []
    begin, done, edge = 0, 0, 0.0
    for phase in job.phases:
        edge += phase.deal * total
        end = begin
        while end < len(files) and (done < edge or phase is job.phases[-1]):
            done += len(files[end].text)
            end += 1
        packer = Packer(codec, phase.length, seed + phase.length, Mix(snippets=phase.snippets))
        rows = list(packer.rows(files[begin:end], index))
        arrays.append(np.array(rows, dtype=np.uint16).reshape(-1, phase.length))
        begin = end
    return tuple(arrays)


def pack(
    corpus: Corpus,
    packages: Sequence[str],
    tokenizer: Path,
    folder: Path,
    phases: tuple[Phase, ...],
    seed: int = 0,
    workers: int = 2,
    most_tokens: int | None = None,
) -> None:
    """Write the rows' file of each phase, whose lengths differ: the shuffled rows of all packages, compressed. Beyond
    `most_tokens`, every phase loses the same share of its rows, drawn at random. Raises FileNotFoundError when there
    is too little text for a row in every phase."""
    jobs = [PackJob(corpus.folder, tokenizer, name, phases, seed) for name in packages]
    parts: list[list[Rows]] = [[] for _ in phases]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for arrays in tqdm(pool.map(pack_package, jobs, chunksize=4), total=len(jobs), desc="packing", unit="package"):
            for part, rows in zip(parts, arrays, strict=True):
                part.append(rows)
    total = sum(rows.size for part in parts for rows in part)
    share = 1.0 if most_tokens is None else min(1.0, most_tokens / max(1, total))
    for phase, part in zip(phases, parts, strict=True):
        rows = np.concatenate(part)
        if not len(rows):
            raise FileNotFoundError(f"too little text: no file was left for the rows of {phase.length} tokens")
        np.random.default_rng(seed + phase.length).shuffle(rows)
        save_rows(folder, rows[: max(1, int(share * len(rows)))])
