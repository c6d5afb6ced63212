"""Lines before and after: completed by the version in use and by the new one, and nothing is left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from npllm.models import examples, plastic
from npllm.models.base import Base
from npllm.models.decoding import complete
from npllm.models.fim import PromptBuilder, choose
from npllm.models.stops import StopRules
from npllm.models.torch_engine import TorchEngine
from npllm.sleep import lora
from npllm.sleep import quotes as module
from npllm.sleep.interruption import Interrupted
from npllm.sleep.lora import Layers, Shape
from npllm.sleep.quotes import quotes, quotes_of_two
from tests.fixtures_sleep import experience

PLACE = "def area(width, height):\n    return "


def made(model: Path, layers: Layers, loud: float):  # type: ignore[no-untyped-def]
    """A base with an adapter around it that says something else, the louder the more."""
    base = Base.load(str(model), device="cpu", threads=1)
    adapted = lora.attach(base.model, Shape(4, 4, False, layers), seed=0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for name, parameter in lora.trainable(adapted).items():
            if "lora_B" in name:
                parameter.copy_(loud * torch.randn(parameter.shape, generator=generator))
    return base, adapted, PromptBuilder(base.tokenizer, choose(base.tokenizer), 256)


HELD_OUT = [experience(n, path=f"{n}.py", prefix=PLACE, final="width * height") for n in range(8)]


@pytest.mark.parametrize("layers", ["output", "all"])
def test_both_versions_complete_the_same_places(practised_model: Path, tmp_path: Path, layers: Layers) -> None:
    stop = threading.Event()
    base, adapted, builder = made(practised_model, layers, 3.0)
    found = quotes(base, adapted, None, HELD_OUT, builder, stop, seed="1")
    assert len({quote.id for quote in found}) == module.MOST
    plain = TorchEngine(Base.load(str(practised_model), device="cpu", threads=1))
    for quote in found:
        prompt = examples.encode(builder, PLACE, "\n", quote.path, "width * height")
        rules = StopRules(PLACE, "\n", end_ids=builder.end_ids, multiline=False)
        ids = prompt.ids[: prompt.loss_start]
        said = complete(plain, ids, stop=rules, max_new_tokens=module.TOKENS, cancel=stop)
        assert quote.before == said.text != "", "as the bare base serves"
    assert all(quote.after != quote.before for quote in found)
    assert {(quote.wrote, quote.above) for quote in found} == {("width * height", PLACE)}
    assert found == quotes(base, adapted, None, HELD_OUT, builder, stop, seed="1")

    # With a version in use before: that one is what was before, and the new one acts again afterwards.
    parent = tmp_path / "parent"
    lora.save(made(practised_model, layers, 0.0)[1], parent, "base")
    digest = base.digest()
    later = quotes(base, adapted, parent, HELD_OUT, builder, stop, seed="1")
    assert [(quote.before, quote.after) for quote in later] == [(quote.before, quote.after) for quote in found]
    assert adapted.active_adapter == "default" and list(adapted.peft_config) == ["default"]
    assert base.digest() == digest


def test_two_models_complete_the_same_places_each_as_it_is(practised_model: Path, tiny_model: Path) -> None:
    """As the cerebellum before and after a sleep: with what stands before the output layer of each."""
    old, new = (Base.load(str(model), device="cpu", threads=1, shared=False) for model in (tiny_model, practised_model))
    builder = PromptBuilder(new.tokenizer, choose(new.tokenizer), 256)
    stop = threading.Event()
    found = quotes_of_two(old, new, HELD_OUT, builder, stop, seed="1")
    base, adapted, _ = made(practised_model, "output", 3.0)
    wanted = quotes(base, adapted, None, HELD_OUT, builder, stop, seed="1")
    assert [(quote.id, quote.after) for quote in found] == [(quote.id, quote.before) for quote in wanted]
    assert all(quote.before != quote.after for quote in found)
    swapped = quotes_of_two(new, old, HELD_OUT, builder, stop, seed="1")
    assert [(quote.before, quote.after) for quote in swapped] == [(quote.after, quote.before) for quote in found]
    width = new.model.config.hidden_size
    plastic.attach(new.model, plastic.PlasticLayer(-10 * torch.eye(width)))
    changed = quotes_of_two(old, new, HELD_OUT, builder, stop, seed="1")
    assert all(one.after != other.after for one, other in zip(found, changed, strict=True))


def test_the_time_is_bounded_and_the_person_comes_first(practised_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapted, builder = made(practised_model, "output", 0.0)
    monkeypatch.setattr(module, "WITHIN_S", 0.0)
    assert quotes(base, adapted, None, HELD_OUT, builder, threading.Event(), seed="1") == ()
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        quotes(base, adapted, None, HELD_OUT, builder, stop, seed="1")
