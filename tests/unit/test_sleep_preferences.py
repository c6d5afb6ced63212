"""What the person preferred: the labels, the two losses and their gradients, and that the model moves as they say."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from npllm.models import examples
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import lora
from npllm.sleep.interruption import Interrupted
from npllm.sleep.lora import Shape
from npllm.sleep.objectives import Sample
from npllm.sleep.preferences import Objective, Preference, gather, log_p, reference_of, signal, spread
from npllm.types import Decision, Experience, OutcomeKind
from tests.fixtures_sleep import experience

QUIET = threading.Event()


def said(outcome: OutcomeKind, suggested: str, final: str, decision: Decision = Decision.LOW) -> Any:
    found = signal(replace(experience(suggested=suggested, final=final, decision=decision), outcome=outcome))
    return found and (found.better, found.worse, found.strength)


def test_what_was_typed_instead_or_made_of_it_is_a_pair() -> None:
    assert said(OutcomeKind.REJECTED, "return 2", "yield 3") == ("yield 3", "return 2", 0.5)
    assert said(OutcomeKind.EDITED, "return 2", "return 3") == ("return 3", "return 2", 1.0)
    assert said(OutcomeKind.EDITED, "return f(2)", "return") == ("return", "return f(2)", 1.0), "its end was taken away"
    assert said(OutcomeKind.DELETED, "return 2", "pass") == ("pass", "return 2", 1.0)


def test_what_is_no_pair_is_an_accept_or_a_refusal() -> None:
    assert said(OutcomeKind.ACCEPTED, "return 2", "return 2") == ("return 2", "", 1.0)
    assert said(OutcomeKind.EDITED, "return", "return  2") == ("return", "", 1.0), "the person only went on"
    assert said(OutcomeKind.DELETED, "return 2", "") == ("", "return 2", 1.0)
    assert said(OutcomeKind.DISMISSED, "return 2", " \n") == ("", "return 2", 0.4)
    assert said(OutcomeKind.IGNORED, "return 2", "") == ("", "return 2", 0.2)
    strengths = [said(kind, "a", "")[2] for kind in (OutcomeKind.IGNORED, OutcomeKind.REJECTED, OutcomeKind.DELETED)]
    assert strengths == sorted(strengths)


def test_an_avoided_suggestion_is_a_negative_whatever_became_of_it() -> None:
    for kind in (OutcomeKind.ACCEPTED, OutcomeKind.UNSEEN, OutcomeKind.DISMISSED):
        assert said(kind, "return 2", "return 2", Decision.AVOID) == ("", "return 2", 1.0)
    assert said(OutcomeKind.DISMISSED, "return 2", "yield", Decision.AVOID) == ("yield", "return 2", 1.0)


def test_without_pairs_only_what_is_to_be_avoided_is_still_a_negative() -> None:
    kept = replace(experience(1, suggested="return 2", final="yield 3"), outcome=OutcomeKind.REJECTED)
    avoided = replace(
        experience(2, suggested="return 4", final="yield 5", decision=Decision.AVOID), outcome=kept.outcome
    )

    def encode(item: Experience, text: str) -> Sample:
        return Sample((1, 2, *text.encode()), 2)

    def found(*, pairs: bool) -> list[tuple[bool, bytes]]:
        made = gather([kept, avoided], encode, pairs=pairs, singles=True, stop=QUIET)
        return [(one.winner is not None, bytes(one.loser.ids[2:]) if one.loser else b"") for one in made]

    assert found(pairs=False) == [(False, b"return 4")]
    assert found(pairs=True) == [(True, b"return 2"), (True, b"return 4")]


def test_without_a_label_there_is_no_preference() -> None:
    assert said(OutcomeKind.UNSEEN, "return 2", "yield 3") is None
    assert said(OutcomeKind.SUPERSEDED, "return 2", "yield 3") is None
    assert said(OutcomeKind.REJECTED, "return 2", "return 2 + 3") is None, "written by hand: it was right"
    assert said(OutcomeKind.PARTIALLY_ACCEPTED, "return 2", "return") is None
    assert said(OutcomeKind.REJECTED, " ", "return") is None


class Bench:
    def __init__(self, model: Path) -> None:
        self.base = Base.load(str(model), device="cpu", threads=1)
        self.builder = PromptBuilder(self.base.tokenizer, choose(self.base.tokenizer), 128)
        self.adapted = lora.attach(self.base.model, Shape(8, 16, False), seed=1).eval()

    def sample(self, item: Experience, text: str) -> Sample:
        made = examples.encode(self.builder, item.prefix, item.suffix, item.place.path, text)
        return Sample(made.ids, made.loss_start)

    def preferences(self) -> list[Preference]:
        def one(number: int, kind: OutcomeKind, suggested: str, final: str) -> Experience:
            item = experience(number, prefix=f"def f{number}():\n    ", suggested=suggested, final=final)
            return replace(item, outcome=kind)

        items = [
            one(0, OutcomeKind.REJECTED, "return None", "return self.value"),
            one(1, OutcomeKind.EDITED, "for x in y:", "for name in names:"),
            one(2, OutcomeKind.ACCEPTED, "import torch", "import torch"),
            one(3, OutcomeKind.DELETED, "raise ValueError", ""),
            one(4, OutcomeKind.DISMISSED, "print(x)", ""),
        ]
        return gather(items, self.sample, pairs=True, singles=True, stop=QUIET)

    def shaken(self) -> None:
        """The adapter is not the reference any more."""
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in lora.trainable(self.adapted).values():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def by_the_papers(bench: Bench, items: list[Preference], reference: torch.Tensor, beta: float) -> torch.Tensor:
    """0.7 L_DPO + 0.3 L_KTO in one graph."""
    ratios = [
        [log_p(bench.adapted, row) - float(ref) for row, ref in zip(item.rows, refs, strict=False)]
        for item, refs in zip(items, reference, strict=True)
    ]
    pairs = [i for i, item in enumerate(items) if item.winner and item.loser]
    singles = [i for i in range(len(items)) if i not in pairs]
    z = max(0.0, float(torch.stack([ratios[i][1] for i in singles]).mean().detach()))
    dpo = [-items[i].weight * torch.log(torch.sigmoid(beta * (ratios[i][0] - ratios[i][1]))) for i in pairs]
    kto = [
        items[i].weight
        * (1 - torch.sigmoid(beta * (ratios[i][0] - z) if items[i].winner else beta * (z - ratios[i][0])))
        for i in singles
    ]
    return 0.7 * torch.stack(dpo).mean() + 0.3 * torch.stack(kto).mean()


def test_loss_and_gradients_are_those_of_the_papers(tiny_model: Path) -> None:
    bench = Bench(tiny_model)
    items = bench.preferences()
    assert [len(item.rows) for item in items] == [2, 2, 2, 2, 2]
    reference = reference_of(bench.adapted, items, QUIET, [])
    bench.shaken()
    parameters = list(lora.trainable(bench.adapted).values())
    expected = by_the_papers(bench, items, reference, 0.5)
    wanted = torch.autograd.grad(expected, parameters)
    objective = Objective(items, reference, dpo_weight=0.7, kto_weight=0.3, beta=0.5)
    loss = objective.add_gradients(bench.adapted, range(5), QUIET)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)


def test_at_the_reference_a_pair_costs_log_two_and_a_single_a_half(tiny_model: Path) -> None:
    bench = Bench(tiny_model)
    items = bench.preferences()
    reference = reference_of(bench.adapted, items, QUIET, [])
    assert Objective(items, reference, dpo_weight=1.0, kto_weight=0.0, beta=0.1).add_gradients(
        bench.adapted, [0, 1], QUIET
    ) == pytest.approx(0.6931, abs=1e-3)
    assert Objective(items, reference, dpo_weight=0.0, kto_weight=1.0, beta=0.1).add_gradients(
        bench.adapted, [2, 3, 4], QUIET
    ) == pytest.approx(0.5, abs=1e-3)


def test_the_model_moves_towards_what_was_wanted_and_away_from_what_was_not(tiny_model: Path) -> None:
    bench = Bench(tiny_model)
    items = bench.preferences()
    reference = reference_of(bench.adapted, items, QUIET, [])
    optimizer = torch.optim.AdamW(lora.trainable(bench.adapted).values(), lr=5e-3)
    objective = Objective(items, reference, dpo_weight=1.0, kto_weight=1.0, beta=0.5)
    for _ in range(12):
        optimizer.zero_grad()
        objective.add_gradients(bench.adapted, range(5), QUIET)
        optimizer.step()
    after = reference_of(bench.adapted, items, QUIET, [])
    moved = after - reference
    assert all(moved[i][0] > moved[i][1] for i in (0, 1)), "each pair's winner gains on its loser"
    assert moved[2][0] > max(moved[3][0], moved[4][0])
    assert moved[3][0] < 0


def test_longer_texts_weigh_more_and_the_rarer_kind_is_not_drowned(tiny_model: Path) -> None:
    bench = Bench(tiny_model)

    def accepted(text: str, kind: OutcomeKind = OutcomeKind.ACCEPTED, final: str | None = None) -> Experience:
        return replace(experience(suggested=text, final=text if final is None else final), outcome=kind)

    short, long = gather([accepted("x"), accepted("y" * 50)], bench.sample, pairs=False, singles=True, stop=QUIET)
    assert long.weight == pytest.approx(50 * short.weight)
    assert short.weight + long.weight == pytest.approx(2.0)
    many = [accepted("x" * 20)] * 3 + [accepted("x" * 20, OutcomeKind.DELETED, "")]
    found = gather(many, bench.sample, pairs=False, singles=True, stop=QUIET)
    assert found[3].weight == pytest.approx(3 * found[0].weight)
    assert gather(many, bench.sample, pairs=True, singles=False, stop=QUIET) == []


def test_an_interrupted_reference_goes_on_where_it_was(tiny_model: Path) -> None:
    class FourthLook(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks == 4

    bench = Bench(tiny_model)
    items = bench.preferences()
    found: list[list[float]] = []
    with pytest.raises(Interrupted):
        reference_of(bench.adapted, items, FourthLook(), found)
    assert len(found) == 1
    resumed = reference_of(bench.adapted, items, QUIET, found)
    assert torch.equal(resumed, reference_of(bench.adapted, items, QUIET, []))


@pytest.mark.parametrize(("count", "total"), [(5, 17), (40, 6), (1, 3)])
def test_over_all_steps_each_preference_comes_once_a_pass(count: int, total: int) -> None:
    steps = [spread(count, epochs=2, step=step, total=total, seed=4) for step in range(total)]
    assert Counter(index for step in steps for index in step) == dict.fromkeys(range(count), 2)
    sizes = [len(step) for step in steps]
    assert max(sizes) - min(sizes) <= 1


def test_foreign_answers_are_no_longer_than_any_prompt_and_answer(tiny_model: Path) -> None:
    items = [item for item in Bench(tiny_model).preferences() if item.foreign is not None]
    most = max(len(row.ids) for item in items for row in (item.winner, item.loser) if row is not None)
    assert len(items) == 3
    assert all(item.foreign is not None and len(item.foreign.ids) <= most for item in items)
