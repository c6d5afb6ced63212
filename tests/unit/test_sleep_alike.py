"""What adapters learn is read with what would be remembered there, and that is no target."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from npllm.models.fim import PromptBuilder, choose
from npllm.sleep.alike import Alike
from npllm.sleep.apart import Apart
from npllm.sleep.objectives import Nll
from npllm.sleep.project import Passage
from npllm.sleep.samples import Samples
from npllm.types import Experience
from tests.fixtures_sleep import experience

AREA = experience(1, path="area.py", prefix="def rectangle_area(width, height):\n    ", final="return width * height")
OPEN = experience(2, path="files.py", prefix="def read_config(path):\n    ", final="return path.read_text()")
PLACE = 'class Box:\n    def volume(self, width, height):\n        """Its base times its depth."""\n        '


def alike(*experiences: Experience, share: float = 1.0, most: int = 1) -> Alike:
    return Alike(experiences, most=most, budget=64, share=share)


@pytest.fixture(scope="module")
def builder(tiny_model: Path) -> PromptBuilder:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return PromptBuilder(tokenizer, choose(tokenizer), 256)


def test_what_shares_most_identifiers_with_the_lines_before_the_cursor_is_remembered() -> None:
    [piece] = alike(OPEN, AREA).pieces(PLACE, "")
    assert piece.experience_id == AREA.id and piece.text.endswith("return width * height")
    assert alike(OPEN, AREA).pieces("import os\n", "") == (), "nothing shares one"


def test_neither_itself_nor_what_is_on_the_screen_is_remembered() -> None:
    assert alike(AREA).pieces(AREA.prefix, "", AREA.id) == ()
    assert alike(AREA).pieces(f"{AREA.prefix}{AREA.final_text}\n\n{PLACE}", "") == ()
    twice = experience(9, path="b.py", prefix=AREA.prefix, final=AREA.final_text)
    assert len(alike(AREA, twice, most=3).pieces(PLACE, "")) == 1, "the same text counts once"


def test_so_many_places_remember_something_and_always_the_same() -> None:
    places = [f"{PLACE}# {number}\n" for number in range(200)]
    half = [bool(alike(AREA, share=0.5).pieces(place, "")) for place in places]
    assert 70 < sum(half) < 130 and half == [bool(alike(AREA, share=0.5).pieces(place, "")) for place in places]
    assert not any(alike(AREA, share=0.0).pieces(place, "") for place in places)


def test_a_piece_is_read_and_is_no_target(builder: PromptBuilder) -> None:
    item = experience(5, path="box.py", prefix=PLACE, final="return width * height * self.depth")
    makes = Samples(builder, Apart(()), threading.Event(), alike(AREA, OPEN))
    [sample] = makes.of([item], {})
    assert makes.remembered == [(AREA.id,)], "so that forgetting that one finds this version"
    shown = builder.codec.decode([sample.ids[at] for at in sorted(sample.unlearned)])
    assert "return width * height" in shown and "Its base" not in shown
    assert max(sample.unlearned) < sample.loss_start
    nll = Nll(1.0, frozenset(), 0)
    targets = nll.collate([sample], torch.device("cpu")).prompt[0].nonzero().flatten() + 1
    assert not set(targets.tolist()) & sample.unlearned
    passage = makes.passage(Passage("/w", "box.py", PLACE, "return 1", "\n", "python"))
    assert passage.unlearned and makes.remembered[1] == (AREA.id,)

    plain = Samples(builder, Apart(()), threading.Event())
    [alone] = plain.of([item], {})
    assert not alone.unlearned and plain.remembered == [()] and len(alone.ids) < len(sample.ids)
