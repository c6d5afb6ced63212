"""What decides about a cerebellum that has learned: how far it goes, its say, the gate. With real (tiny) models."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import torch

from npllm.config import CerebellumConfig, Config
from npllm.models import plastic
from npllm.models.base import Base
from npllm.models.blend import SHARES
from npllm.models.cerebellum import Calibration, Cerebellum
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep.cerebellum_exam import CerebellumExam
from npllm.sleep.confidence import Unseen
from npllm.sleep.dataset import Part
from npllm.sleep.gate import same_ones
from npllm.sleep.interruption import Interrupted
from npllm.sleep.judging import Exam
from npllm.sleep.knowledge import Knowledge
from npllm.sleep.meter import Meter
from npllm.sleep.plan import OldSlice, Plan
from npllm.sleep.project import Passage
from npllm.sleep.saying import FEWEST_LINES, UNCHOSEN, Saying
from npllm.sleep.ways import WAYS, ways
from npllm.types import Experience, new_id
from tests.fixtures_sleep import MORNING, config_for, experience
from tests.tiny import PRACTICE

NEVER = threading.Event()
OLDER = new_id()  # the version that the older texts were held out for

PLACES = [
    Unseen("/w", "python", "shapes.py", PRACTICE[:at], PRACTICE[at + len(line) :], line)
    for line in PRACTICE.splitlines()
    if line.strip()
    for at in [PRACTICE.index(line)]
]
ENOUGH = (PLACES * FEWEST_LINES)[:FEWEST_LINES]


def saying_of(model: Path) -> Saying:
    base = Base.load(str(model), shared=False)
    return Saying(base, PromptBuilder(base.tokenizer, choose(base.tokenizer), 512), None, NEVER)


def test_a_sleep_chooses_how_much_of_a_say_it_has(tiny_model: Path, practised_model: Path) -> None:
    def share(base: Path, small: Path, places: Sequence[Unseen] = ENOUGH) -> float:
        other = Cerebellum(Base.load(str(small), shared=False), context_tokens=256)
        way, found = saying_of(base).chosen(other, places)
        assert way == 1
        return found

    assert share(tiny_model, practised_model) == max(SHARES), "it knows, the base does not"
    assert share(practised_model, tiny_model) == 0.0, "the base knows, it does not"
    assert share(practised_model, tiny_model, PLACES[:3]) == UNCHOSEN, "too few lines to choose by"


@pytest.mark.parametrize("blind", [False, True], ids=["what it learned helps", "what it learned harms"])
def test_a_sleep_chooses_how_far_of_its_way_it_goes(tiny_model: Path, practised_model: Path, blind: bool) -> None:
    before, after = (practised_model, tiny_model) if blind else (tiny_model, practised_model)
    origin, small = Base.load(str(before), shared=False), Base.load(str(after), shared=False)
    learned = {name: tensor.clone() for name, tensor in small.model.named_parameters()}
    there = ways(small.model, origin.model)
    way, share = saying_of(tiny_model).chosen(Cerebellum(small, context_tokens=256), ENOUGH, ways=there)
    assert (way, share) == (0.25 if blind else 1.0, max(SHARES))

    def is_there(way: float) -> bool:
        began = dict(origin.model.named_parameters())
        now = small.model.named_parameters()
        return all(torch.allclose(one, began[name].lerp(learned[name], way), atol=1e-6) for name, one in now)

    assert is_there(way), "it is left there"
    few = saying_of(tiny_model).chosen(Cerebellum(small, context_tokens=256), PLACES[:3], ways=there)
    assert few == (0.5, UNCHOSEN) and is_there(0.5), "nothing chose"


def exam(
    config: Config,
    before: Path,
    after: Path,
    stop: threading.Event = NEVER,
    *,
    older: Sequence[Experience] = (),
    lineage: Sequence[Mapping[str, float]] = (),
    project: str = "/w",
    slice_of: UUID = OLDER,
    aside: Sequence[Unseen] = ENOUGH,
) -> tuple[CerebellumExam, Base]:
    """Of a model that was `before` and is `after` now, on the lines of `PRACTICE` and an older slice; and the model."""
    origin, base = Base.load(str(before), shared=False), Base.load(str(after), shared=False)
    held_out = [
        experience(number, path="shapes.py", prefix=one.prefix, suffix=one.suffix, final=one.text)
        for number, one in enumerate(PLACES * 4)
    ]
    held_out = [replace(item, place=replace(item.place, project=project)) for item in held_out]
    slices = (OldSlice(slice_of, MORNING, tuple(item.id for item in older)),) if older else ()
    plan = Plan.new(
        *("cerebellum", origin.info.fingerprint, None, Part((), (), (), tuple(held_out))),
        slices=slices,
        until=MORNING,
        budget_s=1.0,
        version_id=new_id(),
    )
    texts = {item.id: item for item in (*held_out, *older)}
    passed_over = [Passage("/w", one.path, one.prefix, one.text, one.suffix, "python") for one in aside]
    made = CerebellumExam(
        config,
        *(before, None, origin, base, PromptBuilder(base.tokenizer, choose(base.tokenizer), 192)),
        exam=Exam.of(plan, lambda ids: [texts[id] for id in ids]),
        lineage=lineage,
        passed_over=passed_over,
        off_limits=(),
        stop=stop,
        meter=Meter(lambda _: None, "cerebellum", 0.0, 1.0),
    )
    return made, base


@pytest.fixture
def config(home: Path, tiny_model: Path) -> Config:
    return replace(config_for(home, tiny_model), cerebellum=CerebellumConfig(context_tokens=192))


@pytest.mark.parametrize(("lines", "way"), [(FEWEST_LINES, 1.0), (FEWEST_LINES - 1, 0.5)])
def test_alone_too_it_goes_half_of_its_way_where_too_few_lines_can_choose(
    config: Config, tiny_model: Path, practised_model: Path, lines: int, way: float
) -> None:
    alone = replace(config, cerebellum=replace(config.cerebellum, blend=False))
    asked, base = exam(alone, tiny_model, practised_model, aside=ENOUGH[:lines])
    name, learned = next(iter((one, tensor.clone()) for one, tensor in base.model.named_parameters()))
    began = Base.load(str(tiny_model), shared=False).model.get_parameter(name)
    assert asked.judge(dict).way == way
    assert torch.allclose(base.model.get_parameter(name), began.lerp(learned, way), atol=1e-6)


def test_what_harms_goes_as_little_as_it_can_and_is_refused(
    config: Config, tiny_model: Path, practised_model: Path
) -> None:
    asked, base = exam(config, practised_model, tiny_model)
    learned = base.model.lm_head.weight.clone()
    verdict = asked.judge(dict)
    assert verdict.way == min(WAYS) and not verdict.passed and verdict.beside is not None
    assert not torch.equal(base.model.lm_head.weight, learned), "judged is where it then is"
    assert asked.calibrate(verdict).share == 0.0


def nonsense(count: int) -> list[Experience]:
    """Lines of which a model that has learned something else expects less than one that knows nothing."""
    chance = random.Random(0)
    texts = ["".join(chance.choices("zqxjkvw%#$~^", k=24)) for _ in range(count)]
    return [experience(number, path=f"{number}.py", prefix="", final=text) for number, text in enumerate(texts)]


@pytest.mark.parametrize("blend", [True, False], ids=["beside the base", "alone"])
def test_one_that_forgets_is_refused_however_much_it_gains(
    config: Config, tiny_model: Path, practised_model: Path, blend: bool
) -> None:
    settings = replace(config, cerebellum=replace(config.cerebellum, blend=blend))
    gains = exam(settings, tiny_model, practised_model)[0].judge(dict)
    assert gains.passed, gains.reason
    forgets = exam(settings, tiny_model, practised_model, older=nonsense(20))[0].judge(dict)
    assert not forgets.passed and "forgets: older ones cost" in forgets.reason
    assert forgets.alone.gain == pytest.approx(gains.alone.gain), "the new texts are the same"
    assert f"slice.{OLDER}.nll" in forgets.marks, "for the next sleeps"
    assert any(name.startswith("slice.beside.") for name in forgets.marks) is blend


def test_what_the_base_writes_is_compared_with_the_best_that_it_wrote(
    config: Config, tiny_model: Path, practised_model: Path
) -> None:
    """Several sleeps must not each lose the margin."""
    older = nonsense(20)
    strict = replace(config, sleep=replace(config.sleep, max_forgetting=10.0))
    once = exam(strict, tiny_model, practised_model, older=older)[0].judge(dict)
    assert once.passed
    best = {name: value / (20 if name.endswith("nll") else 1) for name, value in once.marks.items()}
    again = exam(strict, tiny_model, practised_model, older=older, lineage=[best])[0].judge(dict)
    assert not again.passed and "forgets" in again.reason
    others = {name: value + name.endswith("bytes") for name, value in best.items()}
    assert exam(strict, tiny_model, practised_model, older=older, lineage=[others])[0].judge(dict).passed, "other texts"


def test_what_a_sleep_held_out_is_not_forgotten_by_being_older(
    config: Config, tiny_model: Path, practised_model: Path, tmp_path: Path
) -> None:
    """Nothing changed since but that the texts are older now, and so are read without what the project says."""
    (tmp_path / "other.py").write_text(PRACTICE)
    asked, _ = exam(config, tiny_model, practised_model, project=str(tmp_path))
    once = asked.judge(dict)
    assert once.passed and once.share > 0, once.reason
    plan = asked._exam.plan
    same = set(same_ones(plan.held_out))
    older = [text for text in asked._exam.experiences if text.id in same]
    again, _ = exam(
        *(config, practised_model, practised_model),
        older=older,
        lineage=[once.marks],
        project=str(tmp_path),
        slice_of=plan.version_id,
    )
    found = again.judge(dict)
    assert found.beside is not None and not found.beside.harm and not found.alone.harm, found.reason


def test_what_cannot_be_asked_beside_the_base_loses_nothing(
    config: Config, tiny_model: Path, practised_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    asked, base = exam(replace(config, base=replace(config.base, model=str(broken))), tiny_model, practised_model)
    learned = base.model.lm_head.weight.clone()
    verdict = asked.judge(dict)
    assert verdict.passed and verdict.beside is None and (verdict.way, verdict.share) == (1.0, 0.0)
    assert torch.equal(base.model.lm_head.weight, learned)


@pytest.mark.parametrize("blend", [True, False])
def test_it_is_left_as_soon_as_the_person_is_back(
    config: Config, tiny_model: Path, practised_model: Path, blend: bool
) -> None:
    stop = threading.Event()
    stop.set()
    settings = replace(config, cerebellum=replace(config.cerebellum, blend=blend))
    with pytest.raises(Interrupted):
        exam(settings, tiny_model, practised_model, stop)[0].judge(dict)


def test_it_is_judged_where_it_has_its_say(tiny_model: Path, practised_model: Path) -> None:
    base = Base.load(str(practised_model), shared=False)
    calibration = Calibration(None, 0, 0, 0, projects=("/w",))
    here, elsewhere = (
        Cerebellum(base, context_tokens=256, calibration=replace(calibration, projects=(project,)))
        for project in ("/w", "/another")
    )
    own, there, alone = saying_of(tiny_model).costs([(here, 0.5), (elsewhere, 0.5), (here, 0.0)], PLACES[:2])
    assert there == alone and sum(own) < sum(alone)


def test_older_texts_are_judged_without_what_the_project_says(tiny_model: Path, tmp_path: Path) -> None:
    """Which changes with its files: a branch that is checked out would be taken for forgetting, night by night."""
    (tmp_path / "other.py").write_text(PRACTICE)
    base = Base.load(str(tiny_model), shared=False)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 512)
    knowledge = Knowledge(builder.codec, int(base.model.config.vocab_size), (), NEVER)
    places = [place._replace(project=str(tmp_path)) for place in PLACES[:4]]
    small = Cerebellum(base, context_tokens=256)
    (found,) = Saying(base, builder, knowledge, NEVER).costs([(small, 0.0)], places, looked_up=2)
    (without,) = Saying(base, builder, None, NEVER).costs([(small, 0.0)], places)
    assert found[2:] == without[2:] and sum(found[:2]) < sum(without[:2])


def test_a_layer_that_is_put_in_is_heard_beside_the_base(tiny_model: Path, practised_model: Path) -> None:
    small = Cerebellum(Base.load(str(practised_model), shared=False), context_tokens=256)
    saying = saying_of(tiny_model)
    before = saying.costs([(small, 0.5)], PLACES[:2])
    width = small.base.model.config.hidden_size
    layer = plastic.of({name: torch.randn(width, width) for name in ("w", "alpha", "hebb")})
    plastic.attach(small.base.model, layer)
    saying.anew(small)
    after = saying.costs([(small, 0.5)], PLACES[:2])
    assert after != before and after == saying_of(tiny_model).costs([(small, 0.5)], PLACES[:2])


@pytest.mark.parametrize("way", [1.0, min(WAYS)])
def test_a_layer_is_learned_and_judged_over_the_weights_that_will_serve(
    config: Config, tiny_model: Path, practised_model: Path, way: float
) -> None:
    config = replace(config, cerebellum=replace(config.cerebellum, blend=False))
    before, after = (tiny_model, practised_model) if way == 1 else (practised_model, tiny_model)
    asked, base = exam(config, before, after)
    width = base.model.config.hidden_size
    tensors = {name: torch.zeros(width, width) for name in ("w", "alpha", "hebb")}
    learned_over: list[torch.Tensor] = []

    def layers() -> dict[str, plastic.PlasticLayer]:
        learned_over.append(base.model.lm_head.weight.clone())
        return {"plastic": plastic.of(tensors), "zeroed": plastic.of(tensors, zeroed=True)}

    verdict = asked.judge(layers)
    assert verdict.way == way and not verdict.lives, "a layer that changes nothing is no better than none"
    assert set(verdict.nll) == {"plain", "plastic", "zeroed"}
    (then,) = learned_over
    assert torch.equal(base.model.lm_head.weight, then)
