"""Does a learned policy choose adapters better than the rules? Three real adapters compete on two projects' lines.

    python -m tests.benchmarks.modulator
    python -m tests.benchmarks.modulator --seed 1 --projects starlette:0.14.0:0.20.0 textual:0.40.0:0.60.0

Trains with the sleep's own trainer, on the starter: `generic` on a third project, `language:python` on the mornings of
both projects, and `project:...` for each of them, which begins at the language's. Then every held-out line is scored
under every action; so the reward of each is known, here nats per token below the bare base's, within [-1, 1]. On half
of the lines decisions are drawn as serving does (the rules with exploration), PPO learns and the gate judges for some
nights; on the other half the rules, the learned policy, the best fixed action and the best for each line are compared.
What it trained is kept in `--cache`, so that a second run is quick. Releases are downloaded once, into `.eval/wheels`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import torch

from npllm.config import ModulatorConfig
from npllm.evaluation import lines, sources
from npllm.evaluation import plan as days
from npllm.memory.policies import Decided
from npllm.models import decoding, examples
from npllm.models.adapters import AdapterSet
from npllm.models.base import Base
from npllm.models.fim import PromptBuilder, choose
from npllm.models.manifest import WEIGHTS, Manifest, sha256_file, write_manifest
from npllm.models.modulator import Modulator, Sight, choice_of
from npllm.models.policy import ACTIONS, Policy, available, rule, served, slots
from npllm.models.torch_engine import TorchEngine
from npllm.sleep import lora, policy_gate, ppo
from npllm.sleep.learner import control_tokens
from npllm.sleep.lora import Shape
from npllm.sleep.objectives import Sample
from npllm.sleep.plan import STATE
from npllm.sleep.policy_learning import halves
from npllm.sleep.trainer import Recipe, Trainer
from npllm.types import Modulation, new_id
from tests.benchmarks.adapter_layers import CONTEXT, asked, beside

NEVER = threading.Event()
SETTINGS = ModulatorConfig(policy="learned", sticky_s=0.0)
SHAPE = Shape(64, 64, False, "output")
NIGHTS = 6
DECISIONS = 2000  # of a night


@dataclass(frozen=True, slots=True)
class Line:
    """One held-out line: what the policy sees there, and the nats of its text under each action (NaN: not possible)."""

    project: str
    path: str
    families: tuple[str, ...]
    features: tuple[float, ...]
    nats: tuple[float, ...]
    tokens: int
    utf8_bytes: int

    def reward(self, action: int) -> float:
        return max(-1.0, min(1.0, (self.nats[0] - self.nats[action]) / self.tokens))


def train(base: Base, samples: Sequence[Sample], folder: Path, context: str, parent: Path | None, rate: float) -> None:
    """One adapter into a folder, unless it lies there already."""
    if (folder / "manifest.json").exists():
        return
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), CONTEXT)
    adapted = lora.attach(base.model, SHAPE, seed=0)
    if parent is not None:
        lora.load(adapted, parent)
    recipe = Recipe(SHAPE, rate, batch_tokens=4096, epochs=1)
    with tempfile.TemporaryDirectory() as checkpoint:
        file = Path(checkpoint) / STATE
        options = {"control": control_tokens(base, builder), "pad": builder.end_id or 0, "file": file, "stop": NEVER}
        Trainer(adapted, samples, [], recipe, **options).run(3600.0)  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    lora.save(adapted, folder, "starter")
    fingerprint, digest = base.info.fingerprint, sha256_file(folder / WEIGHTS)
    write_manifest(folder, Manifest(new_id(), context, fingerprint, None, new_id(), digest, datetime.now(UTC)))
    print(f"trained {context} on {len(samples)} samples", flush=True)


def look(base: Base, folders: dict[str, Path], plans: dict[str, days.Plan]) -> list[Line]:
    """Every held-out line under every action."""
    engine, adapters = TorchEngine(base), AdapterSet(base)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), CONTEXT)
    modulator = Modulator(base.model.config.hidden_size, base.info.fingerprint)
    for context, folder in folders.items():
        version = UUID(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["version_id"])
        adapters.load(version, folder, context)
    found = []
    for project, plan in plans.items():
        contexts = (f"project:{project}", "language:python", "generic")
        fitting = adapters.fitting(contexts)
        for visit in plan.held_out:
            for ask in visit.asks:
                above, below = visit.change.around(ask.number)
                line, truth = visit.change.new[ask.number], visit.truth(ask)
                prefix, suffix = above + line[: ask.column], line[len(lines.content(line)) :] + below
                sight = Sight(visit.path, "python", len(prefix), prefix[-6000:], suffix[:2000], contexts)
                decided = modulator.decide(fitting, sight, engine, SETTINGS)
                assert decided is not None
                example = examples.encode(builder, prefix[-6000:], suffix[:2000], visit.path, truth)
                prompt, target = example.ids[: example.loss_start], builder.encode_middle(truth)
                nats = [math.nan] * len(ACTIONS)
                for number in available(decided.families).nonzero()[:, 0].tolist():
                    action = tuple(
                        ACTIONS[number][slot] for slot, one in enumerate(slots(decided.families)) if one is not None
                    )
                    made = Modulation(decided.decision, None, decided.families, action, 1.0, ())
                    engine.use_adapters(choice_of(made, fitting, 1.0))
                    nats[number] = decoding.score(engine, prompt, target, truth, NEVER).nats
                size = len(truth.encode())
                found.append(
                    Line(project, visit.path, decided.families, decided.features, tuple(nats), len(target), size)
                )
    return found


def night(policy: Policy, known: Sequence[Line], exploration: float, seed: int) -> list[Decided]:
    """Decisions drawn as serving draws them."""
    chance = random.Random(seed)
    made = []
    with torch.no_grad():
        possible = torch.stack([available(line.families) for line in known])
        log_pi = policy(torch.tensor([line.features for line in known]), possible)
        mu = served(log_pi, possible, exploration)
    for _ in range(DECISIONS):
        at = chance.randrange(len(known))
        line = known[at]
        number = chance.choices(range(len(ACTIONS)), weights=mu[at].tolist())[0]
        action = tuple(ACTIONS[number][slot] for slot, one in enumerate(slots(line.families)) if one is not None)
        where = f"{line.project}/{line.path}"
        p = float(mu[at, number])
        made.append(Decided(new_id(), where, line.families, action, p, line.features, line.reward(number)))
    return made


def told(name: str, judged: Sequence[Line], weights: torch.Tensor) -> None:
    """One row: bits per byte, mean reward and regret of action probabilities [N, A]."""
    rewards = torch.tensor(
        [[one.reward(a) if one.nats[a] == one.nats[a] else 0.0 for a in range(len(ACTIONS))] for one in judged]
    )
    nats = torch.tensor([one.nats for one in judged]).nan_to_num(0.0)
    best = torch.tensor(
        [max(one.reward(a) for a in range(len(ACTIONS)) if one.nats[a] == one.nats[a]) for one in judged]
    )
    bits = float((weights * nats).sum()) / math.log(2) / sum(one.utf8_bytes for one in judged)
    earned = (weights * rewards).sum(-1)
    print(
        f"{name:34} {bits:.4f} bits/byte  reward {earned.mean():+.4f}  regret {(best - earned).mean():.4f}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", nargs=2, default=["textual:0.40.0:0.60.0", "starlette:0.14.0:0.37.0"])
    parser.add_argument("--generic", default="click:7.0:8.1.0")
    parser.add_argument("--lines", type=int, default=100, help="of each project's morning, and as many held out")
    parser.add_argument("--project-share", type=float, default=0.5)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--exploration", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(".eval/modulator"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    folders: dict[str, Path] = {}
    samples: dict[str, list[Sample]] = {}
    plans: dict[str, days.Plan] = {}
    builder = PromptBuilder(
        (base := Base.load("starter", device="cpu", threads=1)).tokenizer, choose(base.tokenizer), CONTEXT
    )
    for spec in (*args.projects, args.generic):
        name, old, new = spec.split(":")
        pair = sources.package(name, old, new, Path(".eval/wheels"))
        plan = days.make(lines.changes(pair), morning=args.lines, held_out=args.lines, seed=args.seed)
        learned = [sample for sample, _ in asked(builder, plan.morning)]
        count = round(len(learned) * args.project_share / (1 - args.project_share))
        samples[name] = learned + beside(builder, pair, plan.morning, count)
        plans[name] = plan
    (one, two), other = (list(samples)[:2]), list(samples)[2]
    del plans[other]
    root = (
        args.cache
        / f"{base.info.fingerprint[:8]}-{one}-{two}-{other}-{args.lines}-{args.project_share}-{args.rate}-{args.seed}"
    )
    folders = {
        name: root / name.replace(":", "-")
        for name in ("generic", "language:python", f"project:{one}", f"project:{two}")
    }
    language = folders["language:python"]
    mixed = [*samples[one], *samples[two]]
    random.Random(args.seed).shuffle(mixed)
    todo = [("generic", samples[other], None), ("language:python", mixed, None)]
    todo += [(f"project:{name}", samples[name], language) for name in (one, two)]  # type: ignore[misc]
    for context, learned, parent in todo:
        train(Base.load("starter", device="cpu", threads=1), learned, folders[context], context, parent, args.rate)
    file = root / "lines.json"
    if file.exists():
        found = [Line(**item) for item in json.loads(file.read_text(encoding="utf-8"))]
    else:
        found = look(Base.load("starter", device="cpu", threads=1), folders, plans)
        file.write_text(
            json.dumps([{name: getattr(x, name) for name in Line.__slots__} for x in found]), encoding="utf-8"
        )
    found = [replace(x, families=tuple(x.families), features=tuple(x.features), nats=tuple(x.nats)) for x in found]
    for project in plans:
        print(f"{project}: every action as the only one, all held-out lines")
        here = [line for line in found if line.project == project]
        for number in available(here[0].families).nonzero()[:, 0].tolist():
            told(
                "  " + " ".join(f"{x:g}" for x in ACTIONS[number]), here, torch.eye(len(ACTIONS))[[number] * len(here)]
            )
    paths = sorted({(line.project, line.path) for line in found})
    random.Random(args.seed).shuffle(paths)
    first = set(paths[: len(paths) // 2])
    known = [line for line in found if (line.project, line.path) in first]
    judged = [line for line in found if (line.project, line.path) not in first]
    policy = Policy(base.model.config.hidden_size)
    for number in range(NIGHTS):
        decisions = night(policy, known, args.exploration, args.seed * 100 + number)
        learned_from, judged_by = halves(decisions)
        options = {"exploration": args.exploration, "seed": number}
        made = ppo.improve(policy, ppo.batch(learned_from), stop=NEVER, **options)
        judgement = policy_gate.judge(made, policy, ppo.batch(judged_by), **options)
        span = f"{judgement.gain:+.4f} [{judgement.gain_low:+.4f}, {judgement.gain_high:+.4f}]"
        print(f"night {number}: {span} effective {judgement.effective:.0f}: {judgement.reason}", flush=True)
        policy = made if judgement.passed else policy
    possible = torch.stack([available(line.families) for line in judged])
    with torch.no_grad():
        log_pi = policy(torch.tensor([line.features for line in judged]), possible)
    eye = torch.eye(len(ACTIONS))
    allowed = available(known[0].families).nonzero()[:, 0].tolist()
    fixed = max(allowed, key=lambda a: sum(line.reward(a) for line in known))
    best = [max((a for a in allowed), key=lambda a: line.reward(a)) for line in judged]
    print(f"{len(known)} lines to learn from, {len(judged)} lines of other files to judge by")
    told("bare base", judged, eye[[0] * len(judged)])
    told("rules", judged, eye[rule(possible)])
    told(
        "rules, served with exploration",
        judged,
        served(
            Policy(base.model.config.hidden_size)(torch.tensor([x.features for x in judged]), possible).detach(),
            possible,
            args.exploration,
        ),
    )
    told("learned", judged, eye[log_pi.argmax(-1)])
    told("learned, served with exploration", judged, served(log_pi, possible, args.exploration))
    told(f"best fixed ({' '.join(f'{x:g}' for x in ACTIONS[fixed])})", judged, eye[[fixed] * len(judged)])
    told("best for each line", judged, eye[best])


if __name__ == "__main__":
    main()
