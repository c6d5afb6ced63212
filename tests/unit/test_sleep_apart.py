"""What is kept apart is read as context and never a target."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from npllm.models import examples
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep.apart import Apart
from npllm.sleep.objectives import Nll, Sample
from npllm.sleep.project import passages
from npllm.types import Experience
from tests.fixtures_sleep import experience

HEAD = "def total(values, weights):\n    summed = 0.0\n"
LINE = "    for value, weight in zip(values, weights):"


@pytest.fixture(scope="module")
def builder(tiny_model: Path) -> PromptBuilder:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return PromptBuilder(tokenizer, choose(tokenizer), 256)


def held(path: str = "a.py") -> Experience:
    return experience(path=path, prefix=HEAD + "    ", final=LINE.strip())


def later(newline: str = "\n", comment: str = "") -> Experience:
    prefix = f"{comment}{HEAD}{LINE}\n        ".replace("\n", newline)
    return experience(9, prefix=prefix, suffix=f"{newline}    return summed{newline}", final="summed += value * weight")


@pytest.mark.parametrize(("newline", "comment"), [("\n", ""), ("\r\n", ""), ("\n", "# Größe in µm: 中文\n")])
def test_an_earlier_held_out_line_above_the_cursor_is_no_target(
    builder: PromptBuilder, newline: str, comment: str
) -> None:
    item = later(newline, comment)
    made = examples.encode(builder, item.prefix, item.suffix, "a.py", item.final_text)
    prompt = made.ids[: made.loss_start]
    found = Apart([held()]).positions(item, prompt, builder.codec)
    hidden = "".join(builder.codec.decode([prompt[at]]) for at in sorted(found))
    assert LINE.strip() in hidden
    assert len(hidden) < len(LINE) + 8, "and little else"

    sample = Sample(made.ids, made.loss_start, 1.0, found)
    nll = Nll(1.0, frozenset(), 0)
    batch = nll.collate([sample], torch.device("cpu"))
    targets = {at + 1 for at in batch.prompt[0].nonzero().flatten().tolist()}
    assert targets == set(range(1, made.loss_start)) - found
    assert nll.denominators([sample]).prompt == len(targets)


def test_elsewhere_nothing_is_left_out(builder: PromptBuilder) -> None:
    item = later()
    made = examples.encode(builder, item.prefix, item.suffix, "a.py", item.final_text)
    prompt = made.ids[: made.loss_start]
    assert not Apart([held("b.py")]).positions(item, prompt, builder.codec)
    assert not Apart([]).positions(item, prompt, builder.codec)
    assert not Apart([experience(prefix=HEAD + "    ", final="another = weights")]).positions(
        item, prompt, builder.codec
    )


def test_passages_of_the_project_leave_out_the_pieces_around_it(tmp_path: Path) -> None:
    import threading
    from dataclasses import replace

    filler = "".join(f"def helper_{n}(first, second):\n    return first * {n} + second\n\n" for n in range(60))
    (tmp_path / "a.py").write_text(filler + HEAD + LINE + "\n        summed += value * weight\n" + filler)
    other = experience(path="z.py")
    other = replace(other, place=replace(other.place, project=str(tmp_path), uri=f"file://{tmp_path}/z.py"))

    def read(apart: list[Experience]) -> list[str]:
        made = passages("python", [other], apart=apart, count=99, characters=600, seed="s", stop=threading.Event())
        return [one.prefix + one.line + one.suffix for one in made]

    assert any(LINE in text for text in read([]))
    left = read([held()])
    assert left
    assert not any(LINE in text for text in left)
