"""The evaluation: the 5-gram baseline, what is asked, packages by name, figures and their table."""

from __future__ import annotations

import ast
import inspect
import json
import math
import random
import statistics
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from npllm.starter import evaluate as evaluation
from npllm.starter.corpus import Corpus, Manifest, PackageEntry, SourceFile
from npllm.starter.evaluate import (
    Extent,
    block_of,
    evaluate,
    exact_matches,
    load,
    parsing_share,
    prefix_bits,
    xz_bits,
)
from npllm.starter.figures import table
from npllm.starter.held import Held, held_out, read_in_training
from npllm.starter.ngram import NGram, sample_tokens
from npllm.starter.paths import SHIPPED
from npllm.starter.questions import Question, blocks, middles, rest_of_lines, whole_lines
from npllm.starter.scoring import Passage, Written
from npllm.starter.snippets import SnippetIndex
from npllm.starter.tokens import Codec, train_tokenizer

TEXT = Path(random.__file__).read_text(encoding="utf-8")
OTHER = Path(statistics.__file__).read_text(encoding="utf-8")


def held(name: str, text: str, language: str = "python") -> Held:
    suffix = "py" if language == "python" else "js"
    edges = [len(text) // 2]
    if language == "python":
        tops = [statement.lineno - 1 for statement in ast.parse(text).body]
        edges = [len("".join(text.splitlines(True)[:top])) for top in tops]
    half = min(edges, key=lambda edge: abs(edge - len(text) // 2))
    files = (SourceFile(f"{name}/one.{suffix}", text[:half]), SourceFile(f"{name}/two.{suffix}", text[half:]))
    return Held(name, files, SnippetIndex(files, seed=0), "python" if language == "python" else "javascript")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT, OTHER], 700)


@pytest.fixture(scope="module")
def codec(tokenizer: Tokenizer) -> Codec:
    return Codec(tokenizer)


@pytest.fixture(scope="module")
def ngram(codec: Codec) -> NGram:
    return NGram(np.array(codec.encode(TEXT)), codec)


class Oracle:
    """Writes what it was told to, and is indifferent among tokens."""

    def __init__(self, answers: Sequence[Written]) -> None:
        self._answers = list(answers)

    def nats(self, passages: Sequence[Passage]) -> list[float]:
        return [math.log(2) * (passage.stop - passage.start) for passage in passages]

    def write(self, prompt: Sequence[int], most: int, line: bool) -> Written:
        return self._answers.pop(0)


def test_the_ngram_model_gives_every_context_a_whole_distribution(codec: Codec, ngram: NGram) -> None:
    seen = codec.encode(TEXT)[200:204]
    for context in (seen, seen[:1], [codec.middle, *seen[:3]], [codec.pad, codec.prefix], [seen[3], *seen[:3]]):
        nats = ngram.nats([Passage((*context, token), len(context), len(context) + 1) for token in range(codec.size)])
        assert sum(math.exp(-x) for x in nats) == pytest.approx(1.0, abs=1e-5), context


def test_the_ngram_model_agrees_with_kneser_ney_by_hand() -> None:
    class Letters(Codec):
        def __init__(self) -> None:
            self.size = 4

    model = NGram(np.array([0, 1, 2, 0, 1, 3, 0, 1, 2]), Letters(), order=2)
    # Too little to estimate from: D = 0.75. Left neighbours: 0 has {2, 3}, 1 has {0}, 2 has {1}, 3 has {1}: 5 in all.
    off = 0.75
    lower = {w: (n - off) / 5 + 4 * off / 5 / 4 for w, n in {0: 2, 1: 1, 2: 1, 3: 1}.items()}
    # After 1: 2 twice, 3 once.
    expected = {2: (2 - off) / 3 + 2 * off / 3 * lower[2], 3: (1 - off) / 3 + 2 * off / 3 * lower[3]}
    expected |= {w: 2 * off / 3 * lower[w] for w in (0, 1)}
    for token, p in expected.items():
        assert math.exp(-model.nats([Passage((1, token), 1, 2)])[0]) == pytest.approx(p, rel=1e-5)


def test_the_ngram_model_knows_what_it_read_and_writes_it(codec: Codec, ngram: NGram) -> None:
    read, _ = prefix_bits(ngram, codec, [held("read", TEXT)], 10_000)
    unread, _ = prefix_bits(ngram, codec, [held("unread", OTHER)], 10_000)
    assert read < 0.6 < unread < 8.0
    function = "def wobble(gauge):\n    return quantise(gauge, tolerance=3)\n"
    often = NGram(np.array(codec.encode(TEXT) + 3 * codec.encode(function)), codec)
    prompt = codec.encode("def wobble(gauge):\n    return ")
    assert often.write(prompt, 40, line=True) == Written("quantise(gauge, tolerance=3)", True)
    assert often.write(prompt, 3, line=True).ended is False
    with pytest.raises(ValueError, match="at least 5"):
        NGram(np.array([1, 2, 3]), codec)


def test_the_ngram_model_counts_a_sample_of_the_training_text_alone(tmp_path: Path, codec: Codec) -> None:
    corpus = Corpus(tmp_path)
    corpus.write_package("p", [SourceFile(f"p/{n}.py", TEXT[n * 2000 : (n + 1) * 2000]) for n in range(10)])
    corpus.write_package("apart", [SourceFile("apart/a.py", OTHER[:8000])])
    assert evaluation.baseline(corpus, codec) is None, "no manifest, no training text"
    entries = [
        PackageEntry("p", "1", "MIT", "train", 10, 20_000),
        PackageEntry("apart", "1", "MIT", "held-out", 1, 8000),
    ]
    corpus.write_manifest(Manifest(tuple(entries), (), ()))
    everything = codec.decode(sample_tokens(corpus, codec, 1_000_000).tolist())
    assert everything.count("<|end|>") == 10 and TEXT[2000:4000] in everything and OTHER[200:260] not in everything
    assert len(sample_tokens(corpus, codec, 1000)) <= 1000
    assert evaluation.baseline(corpus, codec, 0) is None


def test_questions_are_drawn_alike_each_time_and_hide_what_they_say() -> None:
    packages = [held("a", TEXT), held("b", OTHER)]
    texts = {file.path: file.text for package in packages for file in package.files}
    for draw in (rest_of_lines, whole_lines, blocks, middles):
        asked = draw(packages, 30)
        assert len(asked) == 30 and asked == draw(packages, 30)
        for question in asked:
            whole = question.whole.prefix + question.whole.middle + question.whole.suffix
            assert whole in texts[question.path] and question.whole.middle.strip()
            assert len(question.window.prefix) <= 1400 and len(question.window.suffix) <= 500
    for question in rest_of_lines(packages, 30):
        assert "\n" not in question.whole.middle and question.whole.prefix.rpartition("\n")[2].strip()
    for question in whole_lines(packages, 30):
        assert "\n" not in question.whole.middle and not question.whole.prefix.rpartition("\n")[2].strip()
        assert question.whole.suffix.startswith("\n")
    for question in blocks(packages, 30):
        assert 2 <= question.whole.middle.count("\n") + 1 <= 13


def test_a_hidden_block_is_a_whole_one() -> None:
    text = "class A:\n    @once\n    def f(self):\n        a = 1\n\n        b = 2\n\n    x = [\n        1,\n    ]\n\n\n"
    text += (
        "if x: y = (\n    2)\nelif y:\n    try:\n        z = 1\n        z()\n    finally:\n        w = 3\n        w()\n"
    )
    package = Held("a", (SourceFile("a.py", text),), SnippetIndex([SourceFile("a.py", text)], seed=0))
    asked = blocks([package], 60)
    assert {question.whole.middle for question in asked} == {
        "@once\n    def f(self):\n        a = 1\n\n        b = 2\n\n    x = [\n        1,\n    ]",
        "a = 1\n\n        b = 2",
        "try:\n        z = 1\n        z()\n    finally:\n        w = 3\n        w()",
        "z = 1\n        z()",
        "w = 3\n        w()",
    }
    for question in asked:
        ast.parse(textwrap.dedent(question.whole.prefix.rpartition("\n")[2] + question.whole.middle))
        with pytest.raises(SyntaxError):
            ast.parse(question.whole.prefix + question.whole.suffix)


def test_what_was_written_is_cut_where_its_block_ends() -> None:
    assert block_of(Written("a = 1\n    b = 2\n\nc = 3\n", True), 4) == "a = 1\n    b = 2"
    assert block_of(Written("a = 1\nb = 2", True), 0) == "a = 1\nb = 2"
    assert block_of(Written("a = 1\n    b = (2,", False), 4) == "a = 1"
    assert block_of(Written("a = (2,", False), 4) == "a = (2,", "all there is, broken or not"


def test_exact_matches_and_parsing_files_are_counted(codec: Codec) -> None:
    package = held("a", inspect.cleandoc("x = 1\n") + "\ndef f(y):\n    z = y\n    return z\n" * 40)
    lines = whole_lines([package], 4)
    right = [Written(question.whole.middle + "  ", True) for question in lines]
    assert exact_matches(Oracle([*right[:3], Written("nonsense", True)]), codec, lines) == 0.75

    def question(prefix: str, middle: str, suffix: str) -> Question:
        from npllm.starter.fim import Cut

        return Question("a.py", Cut(prefix, middle, suffix))

    asked = [question("def f():\n    ", "a = 1\n    return a", "\n\n\nx = 2\n")] * 4
    answers = [
        Written("return 3", True),
        Written("return (3", True),
        Written("a = [1]\n    return foo(a, ", False),  # broken off: its last line goes
        Written("return [3]\nelse:\n    pass", True),  # what leaves the block does not belong to it
    ]
    assert parsing_share(Oracle(answers), codec, asked) == 0.75


def test_xz_judges_the_very_bytes_that_the_model_does(codec: Codec) -> None:
    package = held("a", TEXT)
    _, size = prefix_bits(Oracle([]), codec, [package], 5000)
    assert size == len(package.files[0].text[:5000].encode())
    assert xz_bits([package], 5000) > xz_bits([package], 24_000), "a longer file is squeezed better"


def wheel(folder: Path, name: str, path: str, text: str, licence: str = "MIT") -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as out:
        out.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\nLicense-Expression: {licence}\n")
        out.writestr(path, text)


def test_any_package_can_be_judged_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from npllm.starter import held as holding

    asked: list[list[str]] = []
    monkeypatch.setattr(holding, "fetch_wheels", lambda names, cache: asked.append(list(names)))
    monkeypatch.setattr(holding, "fetch_tarballs", lambda names, cache: asked.append(list(names)))
    wheel(tmp_path / "w", "click", "click/core.py", TEXT)  # reserved, and no reason not to be judged on
    wheel(tmp_path / "w", "copyleft", "copyleft/core.py", OTHER, "GPL-3.0-only")
    wheel(tmp_path / "w", "hollow", "hollow/data/x.py", OTHER)
    packages = held_out(tmp_path / "w", tmp_path / "n", ["click", "Copyleft"])
    assert [(package.name, len(package.files)) for package in packages] == [("click", 1), ("copyleft", 1)]
    assert asked == [["click", "Copyleft"], []]
    for name, words in (("absent", "no wheel"), ("npm:absent", "no tarball"), ("hollow", "no file")):
        with pytest.raises(FileNotFoundError, match=words):
            held_out(tmp_path / "w", tmp_path / "n", [name])
    trained = PackageEntry("copyleft", "1.0", "MIT", "train", 1, 1)
    assert read_in_training(Manifest((trained,), (), ()), packages) == ["copyleft"]


def test_the_command_judges_named_packages_and_warns_of_read_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel(tmp_path / "wheels", "aiohttp", "aiohttp/core.py", TEXT)  # in the shipped manifest
    wheel(tmp_path / "wheels", "strange", "strange/core.py", OTHER[:9000].rpartition("\ndef ")[0] + "\n")
    arguments = ["--packages", "aiohttp", "strange", "--work", str(tmp_path), "--scale", "0.01", "--json"]
    assert evaluation.main(arguments) == 0
    said = capsys.readouterr()
    assert "the model read aiohttp in training" in said.err and "strange" not in said.err
    (group,) = json.loads(said.out)["groups"]
    assert [name for name, _ in group["by_package"]] == ["aiohttp", "strange"]
    assert group["ngram"] is None and 0.2 < group["model"]["prefix_only"] < 4.0


def test_every_figure_is_filled_for_both_kinds_of_language_and_shown(ngram: NGram) -> None:
    network, codec = load(SHIPPED)
    script = "function add(left, right) {\n  return left + right\n}\n\nconst total = add(1, 2)\n" * 60
    packages = [held("a", TEXT), held("b", OTHER), held("s", script, "javascript")]
    counted = NGram(np.array(codec.encode(TEXT)), codec)
    extent = Extent(per_package=1500, middles=6, places=4, cursors=3, lines=2, blocks=1)
    figures = evaluate(network, codec, packages, extent, counted)
    python, scripts = figures.groups
    assert python.ngram and scripts.ngram and python.snippets and scripts.snippets is None
    for score in (python.model, python.ngram, scripts.model, scripts.ngram):
        for bits in (score.prefix_only, score.fim_psm, score.fim_spm):
            assert bits is not None and 0.05 < bits < 8.0
    assert (python.asked.middles, python.asked.cursors, python.asked.lines, python.asked.blocks) == (6, 3, 2, 1)
    assert python.model.parsed in (0.0, 1.0) and scripts.model.parsed is None and scripts.asked.blocks == 0
    shown = table(figures)
    for words in (
        "Python, bits",
        "JavaScript and TypeScript, bits",
        "- of these, b",
        "modified Kneser-Ney",
        "1 blocks",
    ):
        assert words in shown
    assert f"| {python.model.fim_psm:.3f} | {python.ngram.fim_psm:.3f} |" in shown
    assert "no 5-gram" in table(evaluate(network, codec, packages[2:], extent))
