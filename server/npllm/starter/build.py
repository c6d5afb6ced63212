"""`npllm starter build`: from nothing to a model folder, in stages that a later call finds done and skips.

Stages: collect the text, train the tokenizer, pack the rows, train, export, evaluate. A call that is stopped
(Ctrl-C, SIGTERM, kill) is resumed by calling again; remove a stage's result from the work folder to do it again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Before torch is loaded: OpenMP threads that wait by spinning cost a busy machine more than they gain.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from transformers import LlamaForCausalLM

from npllm.starter.card import model_card
from npllm.starter.collect import Selection, collect, collect_folder
from npllm.starter.corpus import Corpus
from npllm.starter.curve import read_curve
from npllm.starter.evaluate import baseline, evaluate, load, prefix_bits
from npllm.starter.export import export
from npllm.starter.figures import table
from npllm.starter.held import Held, held_out
from npllm.starter.pack import pack
from npllm.starter.paths import SHIPPED, SHIPPED_CEREBELLUM, WorkFolder, default_work
from npllm.starter.presets import PRESETS, Preset
from npllm.starter.rows import rows_path
from npllm.starter.schedule import Budget
from npllm.starter.scoring import Network
from npllm.starter.team import Team, team_of
from npllm.starter.tokens import Codec, train_tokenizer
from npllm.starter.train import RunFiles, Trainer, Validate, stopped_by_signals
from npllm.starter.trials import read_trials, trial_of, write_trial

#: The tokenizer learns from this share of the training files, drawn by package name.
_TOKENIZER_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class Plan:
    """One call: what to build, where, and for how long. `sources` is a folder of packages to use instead of the
    list of names; `leg_minutes` ends this call, not the training, early."""

    preset: Preset
    work: WorkFolder
    out: Path
    budget: Budget
    sources: Path | None = None
    leg_minutes: float | None = None
    helpers: int = 0  # processes that train beside this one
    workers: int = 2
    prepare_only: bool = False


def build(plan: Plan) -> bool:
    """Run every stage that is not done and was asked for; False when a later call must go on."""
    prepare(plan)
    if plan.prepare_only:
        return True
    packages = [] if plan.sources else held_out(plan.work.wheels, plan.work.npm)
    if not train(plan, packages):
        return False
    finish(plan, packages)
    return True


def prepare(plan: Plan) -> None:
    """Corpus, tokenizer and packed rows, where they are missing."""
    work, preset = plan.work, plan.preset
    corpus = Corpus(work.corpus)
    if not corpus.manifest_path.exists():
        selection = Selection(package_cap=preset.package_cap, npm_cap=preset.npm_cap)
        if plan.sources:
            collect_folder(corpus, plan.sources, selection)
        else:
            collect(corpus, work.wheels, selection, work.npm)
    names = corpus.manifest().names("train")
    if not names:
        raise FileNotFoundError(f"nothing to learn from was found ({corpus.manifest_path} says why)")
    if not work.tokenizer.exists():
        share = 1.0 if plan.sources else _TOKENIZER_SHARE
        temporary = work.tokenizer.with_suffix(".tmp")
        train_tokenizer(_sample(corpus, names, share), preset.shape.vocabulary).save(str(temporary))
        temporary.replace(work.tokenizer)
    if not all(rows_path(work.packed, phase.length).exists() for phase in preset.phases):
        phases, most = preset.phases, preset.most_tokens
        pack(corpus, names, work.tokenizer, work.packed, phases, preset.seed, plan.workers, most)


def train(plan: Plan, packages: Sequence[Held]) -> bool:
    """Train until the budget is used (True) or the leg, a signal or a person ends it (False)."""
    with team_of(plan.helpers + 1, functools.partial(_help, plan)) as team:
        trainer = _trainer(plan, team)
        leg_seconds = None if plan.leg_minutes is None else plan.leg_minutes * 60
        with stopped_by_signals(trainer):
            return trainer.run(validate=_validator(plan.work, packages), leg_seconds=leg_seconds)


def _trainer(plan: Plan, team: Team) -> Trainer:
    return Trainer(plan.preset, plan.work.packed, RunFiles(plan.work.run), plan.budget, team)


def _help(plan: Plan, team: Team) -> None:
    trainer = _trainer(plan, team)
    with stopped_by_signals(trainer):  # Ctrl-C reaches helpers too; the leader decides when all stop
        trainer.run()


def finish(plan: Plan, packages: Sequence[Held]) -> None:
    """Export the last checkpoint, evaluate what was exported, and write its card."""
    work = plan.work
    manifest = Corpus(work.corpus).manifest()
    files = RunFiles(work.run)
    export(files.checkpoint, plan.preset.shape, work.tokenizer, manifest, plan.out)
    if packages:
        network, codec = load(plan.out)
        figures = evaluate(network, codec, packages, ngram=baseline(Corpus(work.corpus), codec))
        curve = read_curve(files.curve)
        write_trial(work, trial_of(plan.preset, curve, figures))
        card = model_card(plan.preset, manifest, figures, curve, read_trials(work.root))
        (plan.out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        print(table(figures))
    print(f"the model is in {plan.out}")


def _sample(corpus: Corpus, names: Sequence[str], share: float) -> Iterator[str]:
    for name in names:
        rng = random.Random(name)
        for file in corpus.read_package(name):
            if rng.random() < share:
                yield file.text


def _validator(work: WorkFolder, packages: Sequence[Held]) -> Validate | None:
    if not packages:
        return None
    codec = Codec.load(work.tokenizer)
    python = [package for package in packages if package.language == "python"]

    def bits(network: LlamaForCausalLM) -> float:
        return prefix_bits(Network(network, codec), codec, python, per_package=12_000)[0]

    return bits


def parse(argv: Sequence[str] | None) -> Plan:
    """The plan that the command line asks for; argparse exits with status 2 on a wrong one."""
    parser = argparse.ArgumentParser(prog="npllm starter build", description="Build a starter model.")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="starter-cpu")
    parser.add_argument("--work", type=Path, default=default_work(), help="keeps what is fetched and half done")
    parser.add_argument("--out", type=Path, default=Path("starter-model"), help="the model folder to write")
    parser.add_argument("--minutes", type=float, help="training time of all calls together")
    parser.add_argument("--steps", type=int, help="a budget of steps in place of minutes: exactly repeatable")
    parser.add_argument("--leg-minutes", type=float, help="end this call after so long, resume later")
    parser.add_argument("--sources", type=Path, help="learn from this folder, a package per subfolder")
    parser.add_argument("--processes", type=int, default=_processes(), help="that train together, of a thread each")
    parser.add_argument("--most-tokens", type=int, help="of all packed rows together, so that they can travel")
    parser.add_argument("--prepare", action="store_true", help="only collect, train the tokenizer and pack the rows")
    parser.add_argument("--ship", action="store_true", help="write over the model inside the package")
    given = parser.parse_args(argv)
    preset = PRESETS[given.preset]
    if given.most_tokens:
        preset = dataclasses.replace(preset, most_tokens=given.most_tokens)
    minutes = preset.minutes if given.minutes is None else given.minutes
    budget = Budget(steps=given.steps) if given.steps else Budget(seconds=60 * minutes)
    shipped = SHIPPED_CEREBELLUM if preset.role == "cerebellum" else SHIPPED
    return Plan(
        preset,
        WorkFolder(given.work, preset.name, preset.data),
        shipped if given.ship else given.out,
        budget,
        given.sources,
        given.leg_minutes,
        given.processes - 1,
        prepare_only=given.prepare,
    )


def _processes() -> int:
    """One on a GPU; else one for each core, at most two (the presets' batches are split among them)."""
    return 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: finished; 1: something is wrong, said on stderr; 3: stopped, the same call goes on."""
    plan = parse(argv)
    try:
        done = build(plan)
    except OSError as problem:
        print(f"npllm starter build: {problem}", file=sys.stderr)
        return 1
    if not done:
        print("stopped; the same command goes on from the checkpoint", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
