"""From text to rows: the tokenizer, infilling cuts in both orders, related snippets, packing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from npllm.starter.corpus import Corpus, SourceFile
from npllm.starter.fim import Cut, assemble, cursors, cut
from npllm.starter.pack import Mix, Packer, pack
from npllm.starter.presets import Phase
from npllm.starter.rows import load_rows, rows_path, save_rows
from npllm.starter.snippets import SnippetIndex, split_snippets
from npllm.starter.tokens import SPECIAL_TOKENS, Codec, train_tokenizer

TEXT = Path(random.__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT], 700)


@pytest.fixture(scope="module")
def codec(tokenizer: Tokenizer) -> Codec:
    return Codec(tokenizer)


def test_any_text_survives_the_tokenizer(codec: Codec) -> None:
    for text in (TEXT, "", "naïve = '🦊'\n\t\tif x:\r\n   y  =  12345\n\n\n    __init__(self)", " \n  \n", "\x00\x7f"):
        assert codec.decode(codec.encode(text)) == text


def test_special_tokens_come_first_and_never_out_of_a_text(codec: Codec) -> None:
    text = "".join(SPECIAL_TOKENS)
    assert not set(codec.encode(text)) & set(range(len(SPECIAL_TOKENS)))
    assert codec.decode(codec.encode(text)) == text
    assert (codec.pad, codec.end) == (0, 1)


def test_a_line_break_takes_its_indentation_along(codec: Codec) -> None:
    """So the ids before a cursor at the start of an indented line are a prefix of the ids of the whole text."""
    before, after = "def f(self):\n        ", "return self.x"
    assert codec.encode(before) + codec.encode(after) == codec.encode(before + after)


def test_text_can_be_encoded_as_if_cursors_stood_in_it(codec: Codec) -> None:
    edges = cursors(TEXT[:3000], 120, random.Random(1))
    assert 15 < len(edges) <= 25 and edges == sorted(edges)
    assert cursors(TEXT, 0, random.Random(1)) == [] == cursors("", 120, random.Random(1))
    ids, ends = codec.encode_in_parts(TEXT[:3000], edges)
    assert codec.decode(ids) == TEXT[:3000]
    assert set(edges) <= set(ends) and ends[-1] == 3000 and ends == sorted(ends)
    assert codec.encode_in_parts(TEXT, [])[0] == codec.encode(TEXT)


def test_cuts_reassemble_have_all_shapes_and_cut_words(codec: Codec) -> None:
    rng = random.Random(3)
    cuts = [cut(TEXT[2000:4000], rng) for _ in range(400)]
    assert all(part.prefix + part.middle + part.suffix == TEXT[2000:4000] for part in cuts)
    to_line_end = [part for part in cuts if part.suffix[:1] in ("\n", "")]
    assert 0.6 < len(to_line_end) / len(cuts) < 0.95
    assert sum("\n" in part.middle for part in cuts) > 60
    inside_word = [part for part in cuts if part.prefix[-1:].isalpha() and part.middle[:1].isalpha()]
    assert len(inside_word) > 40


@pytest.mark.parametrize("text", ["", "x", "one line", "\n\n\n", "a\n b\n"])
def test_tiny_texts_can_be_cut(text: str) -> None:
    rng = random.Random(0)
    for _ in range(50):
        parts = cut(text, rng)
        assert parts.prefix + parts.middle + parts.suffix == text


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_an_infilling_example_holds_the_whole_text(codec: Codec, order: str) -> None:
    parts = Cut("def area(self):\n    retu", "rn self.width", " * 2\n")
    ids = assemble("a/b.py", parts, "psm" if order == "psm" else "spm", codec, room=500)
    text = codec.decode(ids)
    if order == "psm":
        assert text == (
            f"<|file|>a/b.py\n<|prefix|>{parts.prefix}<|suffix|>{parts.suffix}<|middle|>{parts.middle}<|end|>"
        )
    else:
        assert text == (
            f"<|file|>a/b.py\n<|prefix|><|suffix|>{parts.suffix}<|middle|>{parts.prefix}{parts.middle}<|end|>"
        )
        prompt = codec.encode(parts.prefix)
        middle = codec.encode(parts.middle)
        assert ids[-len(prompt) - len(middle) - 1 : -1] == prompt + middle


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_what_does_not_fit_goes_far_from_the_cursor_first(codec: Codec, order: str) -> None:
    parts = Cut(TEXT[:3000], "MIDDLE = 1", TEXT[3000:5000])
    ids = assemble("a.py", parts, "psm" if order == "psm" else "spm", codec, room=120)
    assert len(ids) == 120
    text = codec.decode(ids)
    assert text.endswith("MIDDLE = 1<|end|>")
    assert parts.prefix[-40:] in text
    assert "<|suffix|>" + parts.suffix[:20] in text


def test_snippets_are_short_and_the_related_one_is_found() -> None:
    files = [
        SourceFile("p/filler.py", TEXT),
        SourceFile("p/target.py", "import os\n\n\ndef use_gadget(gadget):\n    return frobnicate_gadget(gadget, 3)\n"),
        SourceFile(
            "p/source.py",
            "import sys\n\n\ndef frobnicate_gadget(gadget, times):\n    for _ in range(times):\n        gadget()\n",
        ),
    ]
    assert all(1 <= piece.text.count("\n") + 1 <= 20 for piece in split_snippets(files[0], random.Random(0)))
    assert "".join(TEXT[s.start : s.end] for s in split_snippets(files[0], random.Random(0))).strip() in TEXT
    index = SnippetIndex(files, seed=0)
    target = files[1].text
    found = index.related(target, "frobnicate_gadget(gadget, 3)", "p/target.py", (0, len(target)), 2)
    assert found[-1].path == "p/source.py"
    assert "def frobnicate_gadget" in found[-1].text
    assert all(snippet.path != "p/target.py" for snippet in found)


def test_rows_have_their_length_and_hold_all_kinds_of_pieces(codec: Codec) -> None:
    files = [SourceFile(f"p/{n}.py", TEXT[n * 9000 : (n + 1) * 9000]) for n in range(3)]
    rows = list(Packer(codec, 512, seed=1).rows(files, SnippetIndex(files, 0)))
    assert {len(row) for row in rows} == {512}
    text = "".join(codec.decode(row) for row in rows)
    assert text.count("<|middle|>") > 5 and "<|prefix|><|suffix|>" in text
    assert text.count("<|prefix|>") > text.count("<|prefix|><|suffix|>")
    again = list(Packer(codec, 512, seed=1).rows(files, SnippetIndex(files, 0)))
    assert rows == again


def test_plain_rows_read_a_file_from_its_start_to_its_end(codec: Codec) -> None:
    files = [SourceFile("p/a.py", TEXT[:6000])]
    rows = list(Packer(codec, 256, 0, Mix(fim=0.0, snippets=0.0)).rows(files, SnippetIndex(files, 0)))
    text = codec.decode([token for row in rows for token in row])
    for special in ("<|pad|>", "<|end|>", "<|file|>p/a.py\n"):
        text = text.replace(special, "")
    assert text == TEXT[:6000]


def test_packed_rows_lie_compressed_and_phases_share_no_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    corpus = Corpus(tmp_path / "corpus")
    corpus.write_package("p", [SourceFile(f"p/m{n}.py", TEXT[n * 3000 : (n + 1) * 3000]) for n in range(8)])
    phases = (Phase(128, 4, 0.5, 0.5), Phase(256, 2, 1.0, 0.5))
    pack(corpus, ["p"], tmp_path / "tokenizer.json", tmp_path / "packed", phases, workers=1)
    codec = Codec.load(tmp_path / "tokenizer.json")
    texts = []
    for length in (128, 256):
        rows = load_rows(tmp_path / "packed", length)
        assert rows.dtype == np.uint16 and rows.shape[1] == length and len(rows) > 5
        texts.append(codec.decode([int(token) for token in rows.ravel()]))
    starts = [{n for n in range(8) if f"p/m{n}.py\n" + TEXT[n * 3000 : n * 3000 + 12] in text} for text in texts]
    assert not starts[0] & starts[1]


def test_rows_beyond_the_bound_are_left_out_of_every_phase(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    corpus = Corpus(tmp_path / "corpus")
    corpus.write_package("p", [SourceFile(f"p/m{n}.py", TEXT[n * 3000 : (n + 1) * 3000]) for n in range(8)])
    phases = (Phase(128, 4, 0.5, 0.5), Phase(256, 2, 1.0, 0.5))
    sizes = {}
    for most in (None, 4096, 10**9):
        pack(corpus, ["p"], tmp_path / "tokenizer.json", tmp_path / "packed", phases, workers=1, most_tokens=most)
        sizes[most] = [load_rows(tmp_path / "packed", length).size for length in (128, 256)]
    assert sizes[None] == sizes[10**9] and sum(sizes[4096]) <= 4096 and min(sizes[4096]) > 1000


def test_rows_travel_small_and_are_mapped_once_unpacked(tmp_path: Path, codec: Codec) -> None:
    rows = np.array(codec.encode(TEXT)[:8192], dtype=np.uint16).reshape(-1, 128)
    save_rows(tmp_path, rows)
    assert rows_path(tmp_path, 128).stat().st_size < 0.7 * rows.nbytes
    assert [file.name for file in tmp_path.iterdir()] == ["rows-128.npy.xz"]
    loaded = load_rows(tmp_path, 128)
    assert isinstance(loaded, np.memmap) and not loaded.flags.writeable and np.array_equal(loaded, rows)
    save_rows(tmp_path, rows[::-1])
    assert np.array_equal(load_rows(tmp_path, 128), rows[::-1]), "an unpacked copy of older rows is not read"
    with pytest.raises(FileNotFoundError):
        load_rows(tmp_path, 64)


def test_javascript_is_cut_into_snippets_at_its_definitions() -> None:
    functions = [f"function step{n}(value) {{\n  const next = value + {n}\n  return next\n}}\n" for n in range(12)]
    snippets = split_snippets(SourceFile("a.js", "\n".join(functions)), random.Random(0))
    assert len(snippets) > 5 and all(snippet.text.startswith("function step") for snippet in snippets)
