"""The cerebellum's learning: resumable to the bit, frequent patterns weigh more, confidence is judged with caution."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from npllm.models.base import Base
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.manifest import Manifest, write_manifest
from npllm.sleep.calibration import calibrate, lower_bound
from npllm.sleep.cerebellum_trainer import CerebellumTrainer, Recipe
from npllm.sleep.gate import Judgement
from npllm.sleep.interruption import Interrupted
from npllm.sleep.objectives import Sample
from npllm.sleep.patterns import count, frequent, key, weight_of
from npllm.sleep.project import Passage
from npllm.sleep.saying import share_in_use, unless_harmful
from npllm.sleep.trainer import Step
from npllm.sleep.verdict import MOST_WORSE, MOST_WORSE_ALONE, Verdict
from npllm.types import new_id
from tests.fixtures_sleep import experience

SAMPLES = [Sample(tuple((7 * k + 3 * i) % 500 + 20 for i in range(24)), 10) for k in range(24)]


def trainer(model: Path, file: Path, stop: threading.Event, **options: object) -> tuple[Base, CerebellumTrainer]:
    base = Base.load(str(model), device="cpu", threads=1, shared=False)
    recipe = Recipe(batch_tokens=96, micro_tokens=48, epochs=2, learning_rate=3e-3)
    made = CerebellumTrainer(
        base.model,
        SAMPLES,
        recipe,
        key="start",
        control=frozenset(),
        pad=0,
        file=file,
        stop=stop,
        **options,  # type: ignore[arg-type]
    )
    return base, made


def weights(base: Base) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in base.model.parameters()]


def test_interrupted_anywhere_it_ends_equal_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    base, whole = trainer(tiny_model, tmp_path / "whole", threading.Event())
    before = weights(base)
    position = whole.run(3600.0)
    assert position.step == position.total > 8
    wanted = weights(base)
    assert all(not torch.equal(a, b) for a, b in zip(before, wanted, strict=True)), "every parameter learns"
    assert not any(parameter.requires_grad for parameter in base.model.parameters())

    for stop_at in (3, 7):
        stop = threading.Event()

        def interrupt(step: Step, stop: threading.Event = stop, at: int = stop_at) -> None:
            if step.step == at:
                stop.set()

        _, part = trainer(tiny_model, tmp_path / "parts", stop, on_step=interrupt)
        with pytest.raises(Interrupted):
            part.run(3600.0)
        assert part.position.step == stop_at
    base, rest = trainer(tiny_model, tmp_path / "parts", threading.Event())
    assert rest.run(3600.0).step == position.total
    assert all(torch.equal(a, b) for a, b in zip(wanted, weights(base), strict=True))
    again, done = trainer(tiny_model, tmp_path / "parts", threading.Event())
    assert done.run(3600.0).step == position.total, "what is over is not learned twice"
    assert all(torch.equal(a, b) for a, b in zip(wanted, weights(again), strict=True))


def test_a_short_time_means_fewer_steps_and_the_rate_still_falls_to_its_end(tiny_model: Path, tmp_path: Path) -> None:
    rates = []
    base, short = trainer(tiny_model, tmp_path / "short", threading.Event())
    short._on_step = lambda _: rates.append(short._optimizer.param_groups[0]["lr"])
    position = short.run(1e-6)
    assert position.step == position.total == 1
    assert short.learned == set(short._plan[0]) and len(short.learned) < len(SAMPLES)
    assert base.model is short._model and len(rates) == 1


def test_a_pattern_is_counted_in_experiences_and_project_and_weighs_by_its_frequency() -> None:
    items = [experience(n, final="return  self.value\nmore", prefix=f"def f{n}():\n    ") for n in range(3)]
    rare = experience(9, final="raise KeyError(name)")
    passages = [
        Passage("/p", "b.py", "def g():\n    ", "return self.value", "\n", "python"),
        Passage("/p", "c.txt", "", "zz", ""),
    ]
    seen = count([*items, rare], passages)
    assert seen[key("python", "return self.value")].count == 4
    assert weight_of(items[0], seen) > 2 * weight_of(rare, seen)
    ((pattern, last),) = frequent(seen)
    assert (pattern.language, pattern.text, pattern.count) == ("python", "return self.value", 4)
    assert last.id == items[2].id and pattern.last_seen == items[2].created_at
    only_project = count([rare], [passages[0]] * 2)
    assert frequent(only_project) == [], "what the person never wrote is no pattern of theirs"


def test_calibrated_reflexes_are_for_projects_that_it_learned_of(tiny_model: Path) -> None:
    small = Cerebellum.load(tiny_model, context_tokens=128, version=False)
    assert small.calibration is None and not small.answers(0, "/p") and small.least(0) is None
    assert small.answers(0.5, "/p") and small.least(0.5) == 0.5, "by hand"
    small.calibration = Calibration(0.4, 9, 8, 7, alone=0.6, projects=("/p",))
    assert small.answers(0, "/p") and not small.answers(0, "/q") and small.answers(0.5, "/q")
    assert (small.least(0), small.least(0, alone=True), small.least(0.5)) == (0.4, 0.6, 0.5)
    small.calibration = replace(small.calibration, projects=None)
    assert small.answers(0, "/q"), "an older version, that names none"


def test_the_threshold_promises_no_more_than_the_lines_show() -> None:
    sure = [(0.9 - k / 1000, True) for k in range(40)]
    unsure = [(0.3 - k / 1000, k % 4 == 0) for k in range(40)]
    found = calibrate([*sure, *unsure], 0.8)
    assert found.threshold is not None
    assert 0.25 < found.threshold < 0.9, "as far down as the precision lasts"
    assert lower_bound(found.right, found.answered) >= 0.8
    assert found.lines == 80
    assert calibrate(unsure, 0.8).threshold is None
    assert calibrate(sure[:4], 0.5).threshold is None, "four right ones promise nothing"
    tied = calibrate([(0.5, True)] * 10 + [(0.5, False)] * 30, 0.7)
    assert tied.threshold is None, "lines of one confidence stand or fall together"
    assert calibrate([], 0.7).lines == 0


def test_it_is_published_where_one_of_its_two_ways_of_serving_is_better_and_none_is_worse() -> None:
    def word(passed: bool, gain: float) -> Judgement:
        return Judgement(passed, "yes" if passed else "no", 1.0, 1.0 - gain, gain, gain, gain)

    better, unclear, worse = word(True, 0.05), word(False, 0.01), word(False, -2 * MOST_WORSE)
    assert Verdict(better, False, {}).passed and not Verdict(unclear, False, {}).passed, "no say: it alone decides"
    assert Verdict(unclear, False, {}, better).passed, "a short sleep that pays beside the base is not lost"
    assert "Beside the base" in Verdict(unclear, False, {}, better).reason
    assert Verdict(better, False, {}, unclear).passed
    refused = Verdict(better, False, {}, worse)
    assert not refused.passed and "beside the base: no" in refused.reason
    assert not Verdict(unclear, False, {}, unclear).passed
    much_worse = word(False, -2 * MOST_WORSE_ALONE)
    assert not Verdict(much_worse, False, {}, better).passed, "it would give reflexes, too"
    forgets = replace(better, harm="forgets: older ones cost 3.0% more")
    lost = Verdict(better, False, {}, forgets)
    assert not lost.passed and lost.reason.startswith("Beside the base it forgets: older ones cost 3.0% more")
    lost = Verdict(replace(unclear, harm="forgets those of May"), False, {}, better)
    assert not lost.passed and lost.reason.startswith("By itself it forgets those of May")
    broken = replace(unclear, nll_after=math.nan)
    assert not Verdict(broken, False, {}, better).passed


def test_what_the_version_in_use_has_of_the_say_is_its_own_beside_the_base_it_was_found_for(tmp_path: Path) -> None:
    parent = new_id()
    calibration = Calibration(None, 9, 0, 0, share=0.3, base="this one")
    manifest = Manifest(
        *(parent, "cerebellum", "origin", None, new_id(), "00", datetime.now(UTC)),
        {"calibration": calibration.to_json()},
    )
    write_manifest(tmp_path, manifest)
    assert share_in_use(tmp_path, parent, "this one") == 0.3
    assert share_in_use(tmp_path, parent, "another") is None, "to be asked: it may be worth something there, too"
    assert share_in_use(tmp_path, None, "this one") == 0.0, "before the first sleep nothing is in use"
    assert share_in_use(tmp_path, new_id(), "this one") == 0.0, "the one in use was damaged"
    assert share_in_use(tmp_path / "nothing", parent, "this one") == 0.0


def test_mas_holds_what_mattered(tiny_model: Path, tmp_path: Path) -> None:
    from npllm.sleep import mas

    def moved(penalty_weight: float) -> float:
        base, made = trainer(tiny_model, tmp_path / f"mas{penalty_weight}", threading.Event())
        start = {name: parameter.detach().clone() for name, parameter in base.model.named_parameters()}
        held = mas.Importance({name: torch.ones_like(tensor) for name, tensor in start.items()})
        if penalty_weight:
            made._penalty = mas.Penalty(penalty_weight, held, start, rate=3e-3)
        made._recipe = replace(made._recipe, clip=1e9)
        made.run(3600.0)
        return sum(float((p.detach() - start[n]).square().sum()) for n, p in base.model.named_parameters())

    assert moved(100.0) < 0.5 * moved(0.0)


def test_a_say_that_nothing_chose_is_taken_back_where_the_base_alone_is_better() -> None:
    shares = [0.1, 0.2, 0.0]
    assert unless_harmful(shares, [[3.0, 2.0], [1.0, 1.0], [2.0, 2.0]], 2) == ([0.0], [[2.0, 2.0]])
    helps = [[1.0, 2.0], [9.0, 9.0], [2.0, 2.0]]
    assert unless_harmful(shares, helps, 2) == (shares, helps)
    older = [[1.0, 9.0], [1.0, 9.0], [2.0, 2.0]]
    assert unless_harmful(shares, older, 1) == (shares, older), "the lines behind those have no veto"
