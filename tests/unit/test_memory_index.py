"""Chunks, terms, the search by identifiers, fusion and excerpts: what needs neither a database nor a process."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npllm
from npllm.memory.index import chunks as cutting
from npllm.memory.index import grammars, terms
from npllm.memory.index.chunks import MOST_CHARACTERS, MOST_LINES, chunks
from npllm.memory.index.search import SHOWN_LINES, excerpt, fused
from npllm.memory.index.sparse import SparseIndex
from npllm.memory.index.terms import packed, weighted

CODE = {
    "python": (
        "def first_one(a):\n    return a + 1\n\n\n@wrapped\ndef second_one(b):\n    return b * 2\n",
        "second_one",
    ),
    "javascript": ("// says so\nexport const second = async (a) => {\n  return await a.thing()\n}\n", "second"),
    "typescript": ("interface Shape {\n  area(scale: number): number\n}\n", "Shape"),
    "typescriptreact": ("export function Panel(p: Props) {\n  return <div className='x'>{p.title}</div>\n}\n", "Panel"),
    "go": ("package a\n\nfunc (r *Reader) Read(p []byte) (int, error) {\n\treturn 0, nil\n}\n", "Read"),
    "rust": ("impl Shape for Square {\n    fn area(&self) -> f64 { self.side * self.side }\n}\n", "Square"),
    "java": ("class Shelf {\n  int count(int most) { return most + this.size; }\n}\n", "Shelf"),
    "c": ("int *main_loop(int argc, char **argv) {\n  return run(argc, argv);\n}\n", "main_loop"),
    "cpp": ("namespace box {\nclass Lid { int width; int height; };\n}\n", "box"),
}


@pytest.mark.parametrize("language", sorted(CODE))
def test_a_definition_is_a_chunk_and_has_its_name(language: str) -> None:
    text, name = CODE[language]
    assert grammars.parser(language) is not None, "the grammar is among what npllm installs"
    last = chunks(text, language)[-1]
    assert last.symbol == name
    assert text.rstrip("\n").endswith(last.text), "it ends where the definition does"


def test_what_stands_above_a_definition_belongs_to_it() -> None:
    text = "import os\nimport sys, json, re\n\n# Says hello.\n@decorated\ndef hello(name):\n    print('hello', name)\n"
    first, second = chunks(text, "python")
    assert first.text == "import os\nimport sys, json, re" and (first.symbol, first.line) == ("", 0)
    assert second.text.startswith("# Says hello.\n@decorated") and (second.symbol, second.line) == ("hello", 3)


def test_a_long_class_is_cut_along_its_methods() -> None:
    methods = "".join(f"    def method_{n}(self):\n        value = {n}\n        return value\n\n" for n in range(30))
    found = chunks(f'class Long:\n    """Has many."""\n\n{methods}', "python")
    assert [one.symbol for one in found] == ["Long", *(f"Long.method_{n}" for n in range(30))]


def test_definitions_in_definitions_without_end_are_cut_all_the_same() -> None:
    depth = 1500
    text = "".join(f"function f{n}() {{\n" for n in range(depth)) + "const innermost_value = 1;\n" + "}\n" * depth
    found = chunks(text, "javascript")
    assert any("innermost_value" in one.text for one in found)
    assert all(one.text.count("\n") < MOST_LINES for one in found)


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


@pytest.mark.parametrize("language", ["python", "lua"])
def test_every_line_of_real_files_lies_in_one_chunk_in_order(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "FEWEST_CHARACTERS", 0)
    for file in sorted((Path(npllm.__file__).parent / "memory").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        found = chunks(text, language)
        assert _lines("\n".join(one.text for one in found)) == _lines(text), file
        for one in found:
            assert text.split("\n")[one.line : one.line + len(one.text.split("\n"))] == one.text.split("\n")
            assert len(one.text.split("\n")) <= MOST_LINES + 10 and len(one.text) <= MOST_CHARACTERS + 1000


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["def f(", "):", "  ", "\n", "class", "{", "}", "'", '"""', "é", "\ud800", "x = 1", "\t"])
    ),
    st.sampled_from([*grammars.GRAMMARS, "lua", ""]),
)
def test_no_text_is_too_broken_to_be_cut(parts: list[str], language: str) -> None:
    text = "".join(parts)
    for one in chunks(text, language):
        assert one.text in text


def test_identifiers_are_found_by_their_parts() -> None:
    one, other = set(terms.terms("parseHTTPHeader(v2)")), set(terms.terms("parse_http_header"))
    assert len(one & other) == 3, "parse, http, header"
    assert set(terms.terms("Parse")) == set(terms.terms("parse"))
    assert np.frombuffer(packed("a_b aa aa aa aa aa aa aa"), dtype="<u4").size == 1 + 5, (
        "often is not more than five times"
    )


def test_the_last_line_counts_most() -> None:
    found = weighted(["alpha = 1", "beta = alpha"])
    [alpha], [beta] = terms.terms("alpha"), terms.terms("beta")
    assert found[alpha] == found[beta] == 1.0
    assert weighted(["alpha = 1", "beta = 2"])[alpha] < 1.0


def test_rare_identifiers_find_their_chunk_and_common_ones_do_not_drown_them() -> None:
    texts = [f"def helper_{n}(self, value):\n    return self.value_{n}" for n in range(200)]
    texts[120] = "def migrate_herd(self):\n    self.herd_register.sort(key=self.migration_order)"
    index = SparseIndex([packed(text) for text in texts])
    query = weighted(["def migrate_flock(self, value):", "    self.herd_register.append(value)"])
    assert index.search(query, 5)[0][0] == 120
    assert 120 not in [number for number, _ in index.search(query, 200, without=[120])]
    assert SparseIndex([]).search(query, 5) == []
    assert index.search({}, 5) == []


def test_bm25_is_the_formula() -> None:
    texts = ["zeta zeta alpha", "alpha beta gamma delta", "beta"]
    index = SparseIndex([packed(text) for text in texts])
    [zeta] = terms.terms("zeta")
    idf = np.log1p((3 - 1 + 0.5) / (1 + 0.5))
    mean = (3 + 4 + 1) / 3
    expected = idf * 2 * 2.2 / (2 + 1.2 * (1 - 0.75 + 0.75 * 3 / mean))
    assert index.search({zeta: 1.0}, 3) == [(0, pytest.approx(expected, rel=1e-5))]
    assert index.idf(zeta) == pytest.approx(idf)


def _made(count: int) -> tuple[list[bytes], list[dict[int, float]]]:
    """Chunks of words, some of which stand in almost each, and queries of ten words."""
    rng = random.Random(5)
    words = [f"word{n}" for n in range(400)]
    shares = [1 / (1 + n) for n in range(400)]
    texts = [" ".join(rng.choices(words, shares, k=rng.randrange(1, 60))) for _ in range(count)]
    return [packed(text) for text in texts], [weighted(rng.sample(words[:200], 10)) for _ in range(8)]


def _by_the_formula(documents: list[bytes], query: dict[int, float]) -> list[float]:
    counted = [Counter(np.frombuffer(one, dtype="<u4").tolist()) for one in documents]
    found_in = Counter(term for one in counted for term in one)
    mean = sum(one.total() for one in counted) / len(counted)
    idf = {t: math.log1p((len(counted) - found_in[t] + 0.5) / (found_in[t] + 0.5)) for t in query}
    scores = []
    for one in counted:
        norm = 1.2 * (0.25 + 0.75 * one.total() / mean)
        scores.append(sum(w * idf[t] * one[t] * 2.2 / (one[t] + norm) for t, w in query.items() if one[t]))
    return scores


def test_the_search_by_identifiers_is_exact_where_all_postings_are_looked_at() -> None:
    documents, queries = _made(2000)
    index = SparseIndex(documents)
    for query in queries:
        scores = np.array(_by_the_formula(documents, query))
        best = np.argsort(-scores, kind="stable")[:10]
        found = index.search(query, 10)
        assert [score for _, score in found] == pytest.approx(scores[best].tolist(), rel=1e-4)
        assert [scores[number] for number, _ in found] == pytest.approx([score for _, score in found], rel=1e-4)
        left = index.search(query, 10, without=[found[0][0]])
        assert [score for _, score in left[:9]] == pytest.approx(scores[best[1:]].tolist(), rel=1e-4)


def test_few_postings_still_find_most_and_say_the_whole_score() -> None:
    documents, queries = _made(2000)
    index = SparseIndex(documents)
    share = []
    for query in queries:
        scores = _by_the_formula(documents, query)
        found = index.search(query, 10, postings=1000, candidates=30)
        assert [score for _, score in found] == pytest.approx([scores[number] for number, _ in found], rel=1e-4)
        share.append(len({n for n, _ in found} & {n for n, _ in index.search(query, 10)}) / 10)
    assert np.mean(share) > 0.8


def test_as_many_are_found_as_are_wanted() -> None:
    documents, queries = _made(2000)
    found = SparseIndex(documents).search(queries[0], 700)
    assert len({number for number, _ in found}) == len(found) == 700
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_what_two_lists_hold_comes_before_what_one_holds() -> None:
    order = [one for one, _ in fused([["a", "b", "c"], ["d", "c", "b"]])]
    assert order[:2] == ["b", "c"] and set(order) == {"a", "b", "c", "d"}
    assert fused([[], ["x"]]) == [("x", pytest.approx(1 / 61))]


def test_an_excerpt_begins_where_it_resembles_the_place() -> None:
    lines = [f"    step_{n} = prepare({n})" for n in range(30)]
    lines[17] = "    herd_register.sort(key=migration_order)"
    shown = excerpt("def long():\n" + "\n".join(lines), weighted(["herd_register.append(1)", "migration_order = None"]))
    assert lines[17] in shown.split("\n")[:3] and len(shown.split("\n")) == SHOWN_LINES
    assert excerpt("short = 1\nother = 2", {}) == "short = 1\nother = 2"
