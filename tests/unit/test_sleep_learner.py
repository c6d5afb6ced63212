"""One context's training with what earlier sleeps hold and what the person preferred, end to end without a database."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import torch
from safetensors.torch import load_file

from npllm.config import Config
from npllm.models.fingerprints import fingerprint
from npllm.models.manifest import WEIGHTS, read_manifest, sha256_file
from npllm.sleep import mas, trainer
from npllm.sleep.interruption import Interrupted
from npllm.sleep.learner import SUMS, Learner, Task
from npllm.sleep.meter import Meter
from npllm.sleep.plan import Plan
from npllm.types import Experience, OutcomeKind, new_id
from tests.fixtures_sleep import MORNING, PYTHON, config_for, experience, from_source

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an attribute's old name


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "PIECE_S", 60.0)
        yield
    torch.set_num_threads(before)


class Looks(threading.Event):
    """Set after so many looks."""

    def __init__(self, looks: float) -> None:
        super().__init__()
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


class Night:
    """One context's sleep in a home of its own."""

    def __init__(self, home: Path, model: Path, parent: UUID | None = None, **sleep: object) -> None:
        self.config: Config = config_for(home, model, epochs=1, layers="output", **sleep)
        start = MORNING + timedelta(days=1 if parent else 0)
        made = from_source(24, start=start, offset=1 if parent else 0)
        kinds = (OutcomeKind.REJECTED, OutcomeKind.EDITED, OutcomeKind.UNSEEN)
        self.experiences: Sequence[Experience] = [
            replace(item, outcome=kinds[number % 3]) for number, item in enumerate(made)
        ]
        ids = [item.id for item in self.experiences]
        self.plan = Plan(
            PYTHON,
            new_id(),
            fingerprint(model, home / "cache"),
            parent,
            learn=tuple(ids[:18]),
            replay=(),
            inner=(),
            held_out=tuple(ids[18:]),
            until=start,
            budget_s=600.0,
        )
        self.checkpoint = home / "checkpoints" / str(self.plan.version_id)
        self.checkpoint.mkdir(parents=True)
        self.folder = self.config.adapters_dir / str(self.plan.version_id)
        self.parent = self.config.adapters_dir / str(parent) if parent else None

    def learner(self, stop: threading.Event) -> Learner:
        task = Task(self.plan, {item.id: item for item in self.experiences}, self.checkpoint, self.parent)
        return Learner(self.config, task, stop, Meter(lambda _: None, PYTHON, 0.0, 1.0))

    def sleep(self) -> Path:
        learner = self.learner(threading.Event())
        outcome = learner.train()
        learner.judge()
        learner.measure(outcome)
        learner.write(self.folder, new_id(), {})
        return self.folder


def test_what_is_held_out_this_night_is_no_target_in_what_is_replayed(tiny_model: Path, tmp_path: Path) -> None:
    """An earlier sleep had no time for it, but learned what was written below it later."""
    night = Night(tmp_path, tiny_model)
    head = "def total(values, weights):\n    summed = 0.0\n"
    line = "    for value, weight in zip(values, weights):"
    held = experience(0, prefix=head + "    ", final=line.strip())
    later = experience(9, prefix=f"{head}{line}\n        ", final="summed += value * weight")
    night.experiences = [*night.experiences, held, later]
    night.plan = replace(night.plan, held_out=(held.id,), replay=(later.id,))
    learner = night.learner(threading.Event())
    (sample,) = learner._samples([later], builder := learner._builder(192))
    assert line.strip() in builder.codec.decode([sample.ids[position] for position in sorted(sample.unlearned)])


def test_a_version_names_those_whose_preferences_it_may_have_learned(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(tmp_path, tiny_model, dpo_weight=0.5, batch_tokens=256)
    night.plan = replace(night.plan, budget_s=1e-9)
    monkeypatch.setattr(trainer.Trainer, "_steps_in", lambda *_: 3)
    data = read_manifest(night.sleep()).data
    untrained, preferred = set(data["untrained"]), set(data["preferred"])
    assert untrained & preferred, "else forgetting one of them would leave this version in use"


def test_what_mattered_is_kept_beside_the_version_and_holds_the_next_sleep(tiny_model: Path, tmp_path: Path) -> None:
    import peft
    import transformers

    first = Night(tmp_path, tiny_model, mas_lambda=1e-6)
    folder = first.sleep()
    kept = mas.load(folder / mas.IMPORTANCE)
    assert read_manifest(folder).data["importance_sha256"] == sha256_file(folder / mas.IMPORTANCE)
    assert kept.sleeps == 1
    assert all(float(tensor.mean()) == pytest.approx(1.0) for tensor in kept.omega.values()), "A's too: B is not zero"
    plain = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        peft.PeftModel.from_pretrained(plain, str(folder))

    def moved(weight: float) -> float:
        night = Night(tmp_path, tiny_model, first.plan.version_id, mas_lambda=weight)
        made = night.sleep()
        assert (made / mas.IMPORTANCE).exists() == (weight > 0)
        sleeps.append(mas.load(made / mas.IMPORTANCE).sleeps if weight else 0)
        return distance(folder, made)

    sleeps: list[int] = []
    free = moved(0.0)
    assert moved(1e6) < 0.5 * free
    (folder / mas.IMPORTANCE).write_bytes(b"torn")
    assert moved(1e6) == pytest.approx(free, rel=0.2), "a file that is not what the manifest says holds nothing"
    assert sleeps == [0, 2, 1]


def distance(one: Path, other: Path) -> float:
    before, after = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    return sum(float((after[name] - tensor).square().sum()) for name, tensor in before.items())


def test_interrupted_while_it_measures_it_ends_as_if_it_had_not_been(tiny_model: Path, tmp_path: Path) -> None:
    night = Night(tmp_path, tiny_model, mas_lambda=0.1, dpo_weight=0.3, kto_weight=0.3)
    whole = Night(tmp_path, tiny_model, mas_lambda=0.1, dpo_weight=0.3, kto_weight=0.3)
    whole.experiences = night.experiences
    whole.plan = replace(night.plan, version_id=whole.plan.version_id)
    whole.sleep()
    for _ in range(2):
        stop = Looks(1e9)
        learner = night.learner(stop)
        outcome = learner.train()
        stop.left = 4
        with pytest.raises(Interrupted):
            learner.measure(outcome)
        assert (night.checkpoint / SUMS).exists()
    stop = Looks(1e9)
    learner = night.learner(stop)
    outcome = learner.train()
    before = stop.left
    learner.measure(outcome)
    assert before - stop.left == 18 - 8, "the examples that were measured before are not measured again"
    learner.write(night.folder, new_id(), {})
    for name in (WEIGHTS, mas.IMPORTANCE):
        assert (night.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_preferences_are_learned_where_they_have_a_weight_and_only_of_what_was_seen(
    tiny_model: Path, tmp_path: Path
) -> None:
    def learned(**weights: float) -> int:
        night = Night(tmp_path, tiny_model, **weights)
        learner = night.learner(threading.Event())
        items = night.experiences[:18]
        return len(learner._preferences(items, learner._builder(192)))

    assert learned() == 0
    assert learned(kto_weight=0.5) == 0, "those that were seen are pairs"
    assert learned(dpo_weight=0.5) == 12, "a third was never seen"
    plain, preferred = Night(tmp_path, tiny_model), Night(tmp_path, tiny_model, dpo_weight=1.0)
    preferred.experiences, preferred.plan = plain.experiences, replace(plain.plan, version_id=preferred.plan.version_id)
    assert distance(plain.sleep(), preferred.sleep()) > 0
