"""Training an adapter: it learns, the base does not move, and an interruption leaves no trace in the result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from npllm.config import Config, SleepConfig
from npllm.models import examples
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.sleep import lora
from npllm.sleep import trainer as training
from npllm.sleep.batches import plan
from npllm.sleep.distillation import Distillation
from npllm.sleep.interruption import Interrupted
from npllm.sleep.learner import control_tokens
from npllm.sleep.lora import Layers, Shape
from npllm.sleep.mas import Importance, Penalty
from npllm.sleep.objectives import Nll, Sample, answer_nats
from npllm.sleep.plan import STATE
from npllm.sleep.preferences import Preference
from npllm.sleep.recipe import recipe_of
from npllm.sleep.trainer import Outcome, Recipe, Step, Trainer
from tests.fixtures_sleep import from_source

RECIPE = Recipe(Shape(8, 16, False), learning_rate=1e-2, mu=0.5, batch_tokens=512, micro_tokens=256, epochs=3, seed=5)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "PIECE_S", 60.0)  # pieces as large as they may be, however busy the machine is
        yield
    torch.set_num_threads(before)


Whole = tuple[dict[str, torch.Tensor], Outcome]


class Bench:
    """A base with a fresh adapter and some samples; the same every time."""

    def __init__(self, model: Path, folder: Path, recipe: Recipe = RECIPE, inner: int = 5) -> None:
        self.base = Base.load(str(model), device="cpu", threads=1)
        self.digest = self.base.digest()
        self.builder = PromptBuilder(self.base.tokenizer, choose(self.base.tokenizer), 128)
        made = [
            examples.encode(self.builder, item.prefix, item.suffix, item.place.path, item.final_text)
            for item in from_source(25)
        ]
        samples = [Sample(one.ids, one.loss_start) for one in made]
        self.inner, self.samples = samples[:inner], samples[5:]
        self.adapted = lora.attach(self.base.model, recipe.shape, seed=1)
        self.recipe = recipe
        self.folder = folder
        self.stop = threading.Event()
        self.rehearsed: list[Sample] = []
        self.preferred: list[Preference] = []
        self.penalty: Penalty | None = None

    def trainer(self, on_step: Any = lambda _: None, checkpoint_s: float = 1e9) -> Trainer:
        return Trainer(
            self.adapted,
            self.samples,
            self.inner,
            self.recipe,
            control=control_tokens(self.base, self.builder),
            pad=0,
            file=self.folder / STATE,
            stop=self.stop,
            checkpoint_s=checkpoint_s,
            on_step=on_step,
            rehearsed=self.rehearsed,
            preferred=self.preferred,
            penalty=self.penalty,
        )

    def nats(self) -> float:
        return sum(answer_nats(self.adapted, sample) for sample in self.samples)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in lora.weights(self.adapted).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], Outcome]:
    bench = Bench(tiny_model, tmp_path_factory.mktemp("whole"))
    outcome = bench.trainer().run(600.0)
    return bench.weights(), outcome


def test_it_learns_and_the_base_stays_as_it_is_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path)
    before = bench.nats()
    outcome = bench.trainer().run(600.0)
    assert bench.nats() < 0.98 * before
    assert outcome.position.best_inner < outcome.position.first_inner
    assert bench.base.digest() == bench.digest
    moving = {name for name, parameter in bench.adapted.named_parameters() if parameter.requires_grad}
    assert moving
    assert all("lora_" in name for name in moving)


@pytest.mark.parametrize("steps", [(1,), (4, 7), (2, 3, 4, 11)])
def test_interrupted_and_resumed_equals_uninterrupted(
    tiny_model: Path,
    tmp_path: Path,
    uninterrupted: Whole,
    steps: tuple[int, ...],
) -> None:
    heard: list[int] = []
    for stop_after in steps:
        bench = Bench(tiny_model, tmp_path)

        def on_step(step: Step, bench: Bench = bench, stop_after: int = stop_after) -> None:
            heard.append(step.step)
            if step.step == stop_after:
                bench.stop.set()

        with pytest.raises(Interrupted):
            bench.trainer(on_step).run(600.0)
    bench = Bench(tiny_model, tmp_path)
    outcome = bench.trainer(lambda step: heard.append(step.step)).run(600.0)
    assert heard == list(range(1, outcome.position.total + 1)), "each step is done once"
    assert same(bench.weights(), uninterrupted[0])
    assert outcome.position.step == uninterrupted[1].position.step
    assert outcome.position.best_inner == uninterrupted[1].position.best_inner
    assert outcome.position.seconds > outcome.seconds_now


def test_interruptions_at_every_ninth_look_leave_no_trace(
    tiny_model: Path, tmp_path: Path, uninterrupted: Whole
) -> None:
    interruptions = 0
    while True:
        bench = Bench(tiny_model, tmp_path)
        bench.stop = NinthLook()
        try:
            bench.trainer().run(600.0)
            break
        except Interrupted:
            interruptions += 1
    assert interruptions > 5
    assert same(bench.weights(), uninterrupted[0])


class NinthLook(threading.Event):
    """Set from the ninth look on: between micro-batches, or amid a validation."""

    looks = 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks > 9


def with_everything(model: Path, folder: Path, layers: Layers) -> Bench:
    """Rehearsal, preferences and a penalty beside the samples; on the output layer, in pieces shorter than a sample."""
    shape = Shape(8, 16, False, layers)
    recipe = replace(RECIPE, shape=shape, micro_tokens=64, mas_lambda=0.1, kl_weight=0.5)
    recipe = replace(recipe, dpo_weight=0.5, kto_weight=0.5)
    bench = Bench(model, folder, recipe, inner=3)
    bench.rehearsed, bench.samples = bench.samples[15:], bench.samples[:15]
    one, other, third = bench.samples[:3]
    bench.preferred = [
        Preference(one, Sample((*one.ids[: one.loss_start], *other.ids[other.loss_start :]), one.loss_start), 1.5),
        Preference(other, None, 0.5, third),
        Preference(None, third, 1.0, other),
    ]
    parameters = lora.trainable(bench.adapted)
    omega = {name: torch.linspace(0, 2, value.numel()).view_as(value) for name, value in parameters.items()}
    bench.penalty = Penalty(recipe.mas_lambda, Importance(omega), parameters, rate=recipe.learning_rate)
    return bench


@pytest.mark.parametrize("layers", ["output", "all"])
def test_with_rehearsal_preferences_penalty_and_pieces_interruptions_leave_no_trace_either(
    tiny_model: Path, tmp_path: Path, layers: Layers
) -> None:
    for name in ("whole", "parts", "plain"):
        (tmp_path / name).mkdir()
    whole = with_everything(tiny_model, tmp_path / "whole", layers)
    whole.trainer().run(600.0)
    interruptions, looks = 0, 20 if layers == "output" else 12
    while True:
        bench = with_everything(tiny_model, tmp_path / "parts", layers)
        bench.stop = NinthLook()
        bench.stop.looks = -looks - interruptions % 4  # another piece of a step each time
        try:
            outcome = bench.trainer().run(600.0)
            break
        except Interrupted:
            interruptions += 1
    assert interruptions > 5
    assert outcome.position.piece == 64
    assert same(bench.weights(), whole.weights())
    for leave_out in ("rehearsed", "preferred", "penalty"):
        plain = with_everything(tiny_model, tmp_path / "plain", layers)
        setattr(plain, leave_out, None if leave_out == "penalty" else [])
        plain.trainer().run(600.0)
        assert not same(plain.weights(), whole.weights()), f"{leave_out} does act"


def test_what_is_held_moves_less(tiny_model: Path, tmp_path: Path) -> None:
    def moved(weight: float) -> float:
        folder = tmp_path / str(weight)
        folder.mkdir()
        bench = Bench(tiny_model, folder)
        before = bench.weights()
        parameters = lora.trainable(bench.adapted)
        omega = {name: torch.ones_like(value) for name, value in parameters.items()}
        bench.penalty = Penalty(weight, Importance(omega), parameters, rate=RECIPE.learning_rate)
        bench.trainer().run(600.0)
        return sum(float((tensor - before[name]).square().sum()) for name, tensor in bench.weights().items())

    assert moved(1.0) < 0.5 * moved(0.0)


def test_in_pieces_the_objective_and_its_gradients_are_the_same(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path, replace(RECIPE, shape=Shape(8, 16, False, "output")))
    assert lora.after_the_cache(bench.adapted)
    assert not lora.after_the_cache(Bench(tiny_model, tmp_path).adapted)
    parameters = list(lora.trainable(bench.adapted).values())
    for parameter in parameters:  # B is zero at the start, and then A has no gradient
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
    control = control_tokens(bench.base, bench.builder)
    samples = sorted(bench.samples, key=lambda sample: len(sample.ids))[:4]
    for mu in (0.7, 0.0):
        objective = Nll(mu, control, 0)
        denominators, batch = objective.denominators(samples), objective.collate(samples, torch.device("cpu"))
        whole = objective.loss(bench.adapted, batch, denominators)
        wanted = torch.autograd.grad(whole, parameters)
        length = batch.ids.shape[1]
        for positions in (7, length - 2, length - 1, length, 1000):
            total, found = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
            for part in objective.parts(bench.adapted, batch, denominators, positions):
                for gradient, more in zip(found, torch.autograd.grad(part, parameters), strict=True):
                    gradient.add_(more)
                total += float(part.detach())
            assert total == pytest.approx(float(whole.detach()), rel=1e-4)
            for gradient, expected in zip(found, wanted, strict=True):
                assert torch.allclose(gradient, expected, atol=1e-5)


def test_pieces_are_as_short_as_the_machine_is_slow(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    rehearsals: list[int] = []
    parts = Nll.parts

    def noting(self: Nll, model: Any, batch: Any, denominators: Any, positions: int) -> Any:
        (rehearsals if isinstance(self, Distillation) else sizes).append(positions * batch.ids.shape[0])
        return parts(self, model, batch, denominators, positions)

    monkeypatch.setattr(Nll, "parts", noting)
    monkeypatch.setattr(training, "PIECE_S", 0.0)  # as if it took for ever
    monkeypatch.setattr(training, "SMALLEST_PIECE", 16)
    recipe = replace(RECIPE, shape=Shape(8, 16, False, "output"), epochs=1, kl_weight=1.0)
    bench = Bench(tiny_model, tmp_path, recipe, inner=0)
    bench.rehearsed = bench.samples[:5]
    outcome = bench.trainer().run(600.0)
    assert outcome.position.piece == 16
    assert len(sizes) > len(bench.samples)
    assert max(sizes) <= 16
    assert len(rehearsals) == 5, "each once"
    assert max(rehearsals) <= 8, "they have the logits twice"
    assert outcome.position.tokens == sum(len(sample.ids) for sample in (*bench.samples, *bench.rehearsed))


def test_learned_is_what_the_training_has_reached_and_nothing_else_moves_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_steps_in", lambda *_: 2)
    recipe = replace(RECIPE, epochs=1, batch_tokens=256, kto_weight=0.5)

    def short(folder: Path, stop_after: int = 0) -> tuple[Bench, Trainer]:
        folder.mkdir(exist_ok=True)
        bench = Bench(tiny_model, folder, recipe, inner=0)
        bench.preferred = [
            Preference(None, sample, 1.0, bench.samples[0], number) for number, sample in enumerate(bench.samples)
        ]
        return bench, bench.trainer(lambda step: bench.stop.set() if step.step == stop_after else None)

    bench, trainer = short(tmp_path / "whole")
    trainer.run(600.0)
    lengths = [len(sample.ids) for sample in bench.samples]
    steps, _ = plan(lengths, batch_tokens=256, epochs=1, seed=RECIPE.seed)
    assert len(steps) > 3
    assert trainer.learned == {*steps[0], *steps[1]}
    assert trainer.preferring == trainer.learned, "the others' suggestions are no lesson"

    _, first = short(tmp_path / "parts", stop_after=1)
    with pytest.raises(Interrupted):
        first.run(600.0)
    assert first.learned == set(steps[0])
    again, second = short(tmp_path / "parts")
    second.run(600.0)
    assert second.learned == trainer.learned
    assert same(again.weights(), bench.weights())


def test_where_it_ends_early_the_preferences_of_more_may_have_been_learned(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_steps_in", lambda *_: 3)
    bench = Bench(tiny_model, tmp_path, replace(RECIPE, epochs=1, batch_tokens=256, kto_weight=0.5), inner=0)
    bench.preferred = [
        Preference(None, sample, 1.0, bench.samples[0], number) for number, sample in enumerate(bench.samples)
    ]
    trainer = bench.trainer()
    trainer.run(1e-9)
    assert trainer.position.step == 1 and trainer.learned < trainer.preferring == trainer._until(3)


def test_when_the_time_is_short_the_optional_samples_go_first(tiny_model: Path, tmp_path: Path) -> None:
    class Slow(Trainer):
        """Finds that four steps fit."""

        def _steps_in(self, budget_s: float, speed: float) -> int:
            return 4

    def slow(folder: Path, optional: int) -> tuple[Bench, Slow]:
        folder.mkdir(exist_ok=True)
        bench = Bench(tiny_model, folder, replace(RECIPE, epochs=1, batch_tokens=256, kl_weight=0.1), inner=0)
        control = control_tokens(bench.base, bench.builder)
        trainer = Slow(
            bench.adapted,
            bench.samples,
            [],
            bench.recipe,
            control=control,
            pad=0,
            file=folder / STATE,
            stop=bench.stop,
            optional=optional,
            rehearsed=bench.samples[:10],
            on_step=lambda step: bench.stop.set() if interrupt and step.step == 2 else None,
        )
        return bench, trainer

    interrupt = False
    bench, trainer = slow(tmp_path / "whole", 15)
    outcome = trainer.run(600.0)
    lengths = [len(sample.ids) for sample in bench.samples]
    learned = outcome.position.samples
    assert 5 <= learned < 20, "the five that are wanted, and optional ones as far as there is room"
    assert len(trainer.rehearsed) == round(10 * learned / 20), "of general code the same part"
    rehearsed = sum(lengths[: len(trainer.rehearsed)])
    assert outcome.position.tokens == sum(lengths[:learned]) + rehearsed, "each of them once, none of the others"
    interrupt = True
    _, first = slow(tmp_path / "parts", 15)
    with pytest.raises(Interrupted):
        first.run(600.0)
    interrupt = False
    again, second = slow(tmp_path / "parts", 15)
    assert second.run(600.0).position.samples == learned
    assert same(again.weights(), bench.weights())


def test_a_kill_costs_only_what_came_after_the_last_checkpoint(
    tiny_model: Path, tmp_path: Path, uninterrupted: Whole
) -> None:
    class Killed(BaseException):
        pass

    def on_step(step: Step) -> None:
        if step.step == 6:
            raise Killed  # as if by SIGKILL: nothing is saved on the way out

    bench = Bench(tiny_model, tmp_path)
    with pytest.raises(Killed):
        bench.trainer(on_step, checkpoint_s=0.0).run(600.0)
    (tmp_path / (STATE + ".tmp")).write_bytes(b"half a checkpoint")
    heard: list[int] = []
    again = Bench(tiny_model, tmp_path)
    again.trainer(lambda step: heard.append(step.step)).run(600.0)
    assert heard[0] == 6
    assert same(again.weights(), uninterrupted[0])


def test_a_checkpoint_of_other_samples_or_another_recipe_is_not_taken_up(tiny_model: Path, tmp_path: Path) -> None:
    Bench(tiny_model, tmp_path).trainer().run(600.0)
    heard: list[int] = []
    bench = Bench(tiny_model, tmp_path)
    bench.samples = bench.samples[1:]
    bench.trainer(lambda step: heard.append(step.step)).run(600.0)
    assert heard[0] == 1


def test_a_torn_checkpoint_means_beginning_anew(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"\x10\x00\x00")
    heard: list[int] = []
    Bench(tiny_model, tmp_path).trainer(lambda step: heard.append(step.step)).run(600.0)
    assert heard[0] == 1


def test_the_checkpoint_is_safetensors_and_holds_all_that_moves(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path)
    bench.trainer().run(600.0)
    with safe_open(tmp_path / STATE, framework="pt") as stream:
        kinds = {name.split(".")[0] for name in stream.keys()}  # noqa: SIM118
        moments = {name.split(".")[1] for name in stream.keys() if name.startswith("optimizer.")}  # noqa: SIM118
    assert kinds == {"adapter", "best", "optimizer", "generator"}
    assert moments == {"step", "exp_avg", "exp_avg_sq"}
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_it_ends_when_validation_gets_no_better_and_keeps_the_best(tiny_model: Path, tmp_path: Path) -> None:
    wild = Recipe(shape=Shape(8, 16, False), learning_rate=50.0, batch_tokens=512, epochs=12, patience=2)
    bench = Bench(tiny_model, tmp_path, wild)
    outcome = bench.trainer().run(600.0)
    position = outcome.position
    assert outcome.stopped_by == "validation"
    assert position.best_step < position.step < position.total
    nats = sum(answer_nats(bench.adapted, sample) for sample in bench.inner)
    tokens = sum(len(sample.ids) - sample.loss_start for sample in bench.inner)
    assert nats / tokens == pytest.approx(position.best_inner, rel=1e-5)


def test_a_short_time_means_fewer_steps_and_the_rate_still_falls_to_its_end(tiny_model: Path, tmp_path: Path) -> None:
    heard: list[Step] = []
    outcome = Bench(tiny_model, tmp_path).trainer(heard.append).run(1e-6)
    assert outcome.stopped_by == "time"
    assert [step.step for step in heard] == [1]


def test_every_epoch_sees_every_sample_once_in_steps_of_the_right_size() -> None:
    lengths = [10 + 7 * (index % 5) for index in range(30)]
    steps, ends = plan(lengths, batch_tokens=100, epochs=4, seed=2)
    assert len(ends) == 4
    assert max(ends) == len(steps)
    assert all(sum(lengths[index] for index in step) <= 100 for step in steps)
    begin = 0
    orders = []
    for end in sorted(ends):
        seen = [index for step in steps[begin:end] for index in step]
        assert sorted(seen) == list(range(30))
        orders.append(seen)
        begin = end
    assert orders[0] != orders[1]
    assert plan(lengths, batch_tokens=100, epochs=4, seed=2) == (steps, ends)


def test_the_objective_is_the_weighted_mean_it_says(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path)
    one, other = bench.samples[0], bench.samples[1]
    samples = [Sample(one.ids, one.loss_start, 2.0), Sample(other.ids, other.loss_start, 0.5)]
    control = control_tokens(bench.base, bench.builder)
    answers = Nll(0.0, control, 0)
    expected = sum(s.weight * answer_nats(bench.adapted, s) for s in samples) / sum(
        s.weight * (len(s.ids) - s.loss_start) for s in samples
    )
    together = answers.loss(bench.adapted, answers.collate(samples, torch.device("cpu")), answers.denominators(samples))
    assert float(together.detach()) == pytest.approx(expected, rel=1e-5)
    # Padding and micro-batches change nothing.
    both = Nll(0.5, control, 0)
    denominators = both.denominators(samples)
    whole = both.loss(bench.adapted, both.collate(samples, torch.device("cpu")), denominators)
    pieces = [both.loss(bench.adapted, both.collate([s], torch.device("cpu")), denominators) for s in samples]
    assert float(whole.detach()) == pytest.approx(sum(float(piece.detach()) for piece in pieces), rel=1e-5)
    assert float(whole.detach()) > expected, "the prompt's own tokens count, too"


def test_control_tokens_of_the_prompt_are_no_targets(tiny_model: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_model, tmp_path)
    control = control_tokens(bench.base, bench.builder)
    sample = bench.samples[0]
    batch = Nll(1.0, control, 0).collate([sample], torch.device("cpu"))
    for target, weight in zip(sample.ids[1:], batch.prompt[0].tolist(), strict=True):
        assert weight == 0.0 or target not in control
    assert int((batch.prompt[0] > 0).sum()) > 20
    assert not bool(((batch.prompt > 0) & (batch.answer > 0)).any())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for an attribute by its old name
def test_the_saved_adapter_is_a_plain_peft_folder(tiny_model: Path, tmp_path: Path) -> None:
    import peft
    import transformers

    bench = Bench(tiny_model, tmp_path)
    bench.trainer().run(600.0)
    folder = tmp_path / "adapter"
    folder.mkdir()
    lora.save(bench.adapted, folder, "starter")
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    loaded = peft.PeftModel.from_pretrained(plain, str(folder)).eval()
    ids = torch.tensor([bench.samples[0].ids])
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, bench.adapted(ids).logits, atol=1e-5)
    assert lora.shape_of(folder, bench.base.model) == RECIPE.shape


@pytest.mark.parametrize(
    ("settings", "parameters", "shape"),
    [
        ({}, 6_000_000, Shape(64, 64, False, "output")),
        ({}, 1_500_000_000, Shape(16, 32, False, "all")),
        ({"layers": "output"}, 1_500_000_000, Shape(64, 64, False, "output")),
        ({"layers": "all", "rank": 8}, 6_000_000, Shape(8, 16, False, "all")),
        ({"rank": 8, "alpha": 4}, 6_000_000, Shape(8, 4, False, "output")),
    ],
)
def test_which_layers_learn_is_decided_by_the_settings_and_the_bases_size(
    settings: dict[str, Any], parameters: int, shape: Shape, tmp_path: Path
) -> None:
    config = Config(home=tmp_path, sleep=replace(SleepConfig(), **settings))
    assert recipe_of(config, parameters).shape == shape


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_on_the_output_layer_leaves_the_hidden_states_alone(tiny_model: Path, tmp_path: Path) -> None:
    import peft
    import transformers

    shape = Shape(8, 16, False, "output")
    bench = Bench(tiny_model, tmp_path, replace(RECIPE, shape=shape))
    ids = torch.tensor([bench.samples[0].ids])
    assert {name.partition(".lora_")[0].rpartition(".")[2] for name in lora.trainable(bench.adapted)} == {"lm_head"}
    with torch.no_grad():
        hidden = bench.adapted(ids, output_hidden_states=True).hidden_states[-1]
    before = bench.nats()
    bench.trainer().run(600.0)
    assert bench.nats() < 0.98 * before
    assert bench.base.digest() == bench.digest
    folder = tmp_path / "adapter"
    folder.mkdir()
    lora.save(bench.adapted, folder, "starter")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    assert lora.shape_of(folder, plain) == shape
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        loaded = peft.PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.no_grad():
        after = bench.adapted(ids, output_hidden_states=True)
        assert torch.equal(after.hidden_states[-1], hidden)
        assert torch.allclose(loaded(ids).logits, after.logits, atol=1e-5), "peft loads it as it is"


def test_training_goes_on_from_the_version_in_use(tiny_model: Path, tmp_path: Path) -> None:
    first = Bench(tiny_model, tmp_path)
    first.trainer().run(600.0)
    folder = tmp_path / "adapter"
    folder.mkdir()
    lora.save(first.adapted, folder, "starter")
    second = Bench(tiny_model, tmp_path)
    lora.load(second.adapted, folder)
    assert same(second.weights(), first.weights())
