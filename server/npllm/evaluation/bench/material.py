"""What a benchmark of memory is made of: real code, its real terms and embeddings, and many more perturbed ones.

A made embedding is the unit vector of e + s g, with e a real one and g Gaussian with unit expected length: at s = 0.5
its cosine to e is about 0.9. A made chunk is a real one with some of its terms exchanged for another's.
"""

from __future__ import annotations

import random
import sysconfig
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npllm.memory.index import chunks, terms
from npllm.memory.texts import embedding_text
from npllm.types import EMBEDDING_DIM, NpllmError

NOISE = 0.5
EXCHANGED = 0.3  # of a made chunk's terms
FILES = 400  # of Python's library
ABOVE = 12  # lines before a place

Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of real code and what stands above it."""

    prefix: str
    line: str

    @property
    def text(self) -> str:
        return embedding_text(self.prefix, self.line)


def sources(seed: int) -> tuple[list[str], list[str]]:
    """Files of Python's own library, and some that are apart: what is asked about never lies in what is searched.

    Raises:
        NpllmError: it has no source files here.
    """
    found = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) + sorted(
        Path(sysconfig.get_path("stdlib")).glob("[a-z]*/*.py")
    )
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in found if "test" not in str(path)]
    texts = [text for text in texts if len(text) > 2000]
    if len(texts) < 50:
        raise NpllmError("Python's library has no source files here, and this is measured on those.")
    random.Random(seed).shuffle(texts)
    texts = texts[:FILES]
    return texts[: -len(texts) // 5], texts[-len(texts) // 5 :]


def places(texts: Sequence[str], count: int, seed: int) -> list[Place]:
    """So many places in them."""
    rng, made = random.Random(seed), list[Place]()
    while len(made) < count:
        lines = rng.choice(texts).splitlines(keepends=True)
        at = rng.randrange(ABOVE, len(lines))
        if len(lines[at].strip()) > 8:
            made.append(Place("".join(lines[at - ABOVE : at]), lines[at].rstrip("\n")))
    return made


def perturbed(real: Numbers, count: int, seed: int) -> Numbers:
    """`count` unit vectors [count, 384] near those of `real` [n, 384], each as often as any other."""
    rng = np.random.default_rng(seed)
    chosen = real[rng.integers(0, len(real), count)]
    noise = rng.standard_normal((count, EMBEDDING_DIM), dtype=np.float32) * (NOISE / EMBEDDING_DIM**0.5)
    made = chosen + noise
    unit: Numbers = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def real_chunks(texts: Sequence[str]) -> list[bytes]:
    """The terms of all chunks of some files."""
    return [terms.packed(chunk.text) for text in texts for chunk in chunks.chunks(text, "python")]


def more_chunks(real: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` chunks: the real ones, then perturbed ones."""
    rng = random.Random(seed)
    yield from real[:count]
    for _ in range(count - len(real)):
        one, other = (array("I", rng.choice(real)) for _ in range(2))
        taken = [term for term in one if rng.random() > EXCHANGED]
        given = [other[rng.randrange(len(other))] for _ in range(len(one) - len(taken)) if len(other)]
        yield array("I", sorted([*taken, *given])).tobytes()
