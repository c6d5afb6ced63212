"""`npllm eval replay --ablate`: what does each mechanism gain, over days of real projects' history?

Days of one arm follow one another; what has ended is on disk and is not done again. Ctrl-C, or a kill, loses the day
under way: the same command goes on with it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from npllm.evaluation import replay
from npllm.evaluation.ablation import arms, days, exam, history, options, table
from npllm.evaluation.ablation.arms import Arm
from npllm.evaluation.ablation.cells import Cells, Chain, failing
from npllm.evaluation.ablation.history import History
from npllm.evaluation.plan import Visit
from npllm.evaluation.show import Bar, Show
from npllm.evaluation.sources import EvaluationError

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run `npllm eval replay --ablate` with these arguments; the exit status: 1 if an arm failed.

    Raises:
        NpllmError: a source, a setting or the database.
    """
    args = options.parse(argv)
    root = replay.make_root(args.home) / "ablation"
    root.mkdir(exist_ok=True)
    common = options.common(args)
    run = Run(args, root, common, "npllm eval replay " + shlex.join(argv))
    try:
        if not args.report:
            replay.run(run.work())
    finally:  # also when it was ended: what there is is told
        run.tell()
    return 1 if any(run.failures.values()) else 0


class Run:
    """One call of the command."""

    def __init__(self, args: argparse.Namespace, root: Path, common: Mapping[str, Any], command: str) -> None:
        self.args = args
        self.command = command
        self.failures: dict[str, dict[str, str]] = {}  # by project, then by arm
        self._root = root
        self._common = common
        self._arms = arms_of(args)
        general = exam.general(args.general)
        self._cells = Cells(root, common, general)
        self._histories = list(_histories(args, root))
        if args.quick and not (args.package or args.git):
            self._histories = self._histories[:1]
        self._key = shared_key(common, [args.morning, args.heldout, args.days, args.endings], general)
        self._chains = list(self._planned())

    def _planned(self) -> Iterator[tuple[History, Chain]]:
        """Every chain, in the order in which they are lived: one seed after the other."""
        args = self.args
        for seed in args.seeds:
            for one in self._histories:
                made = days.make(one, days=args.days, morning=args.morning, held_out=args.heldout, seed=seed)
                for arm in self._arms:
                    if arm.runs:
                        swap = str(args.swap_base or "") if arm.name == arms.LEARNS else ""
                        yield one, Chain(f"{one.project}-{one.key}-{self._key}", arm, seed, tuple(made), swap)

    async def work(self) -> None:
        """Live what is missing."""
        deadline = time.monotonic() + self.args.minutes * 60 if self.args.minutes else float("inf")
        total = sum(self._cells.wanted(chain) for _, chain in self._chains)
        done = sum(self._cells.done(chain) for _, chain in self._chains)
        with Show() as show:
            async with self._cells:
                with show.bar("days", total) as bar:
                    bar.set(done, "done before" if done else "")
                    for one, chain in self._chains:
                        failed = self.failures.setdefault(one.project, {})
                        with failing(failed, chain):
                            await self._live(chain, bar, show, deadline)
            if time.monotonic() < deadline and any(chain.arm.sleeps for _, chain in self._chains):
                show.note("Last: how fast is the sleep beside a bare training loop?")
                await asyncio.to_thread(_speed, self._root, self._common, measure=True)

    async def _live(self, chain: Chain, bar: Bar, show: Show, deadline: float) -> None:
        def note(text: str) -> None:
            bar.set(0, f"{chain.arm.name}, seed {chain.seed}: {text}")

        async for number in self._cells.run(chain, note, deadline):
            bar.step()
            lived = self._cells.read(chain, number)
            assert lived is not None
            seconds = ", ".join(f"{name} {took:.0f} s" for name, took in lived.facts.get("seconds", {}).items())
            show.note(f"{chain.project} {chain.arm.name}, seed {chain.seed}, day {number}: {seconds}")

    def tell(self) -> None:
        """Print the table and write it where it is wanted.

        Raises:
            EvaluationError: a file cannot be written.
        """
        args = self.args
        projects = [self._project(one) for one in self._histories]
        speed = _speed(self._root, self._common, measure=False)
        text = table.as_markdown(projects, self.command, speed, self._facts())
        Console().print(text, markup=False, highlight=False, soft_wrap=True)
        try:
            if args.json is not None:
                made = table.as_json(projects, self.command, speed)
                args.json.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if args.markdown is not None:
                args.markdown.write_text(text, encoding="utf-8")
        except OSError as error:
            raise EvaluationError(f"The table cannot be written: {error}.") from error
        if args.write is not None:
            table.write_between(args.write, text)

    def _project(self, one: History) -> table.Project:
        found: dict[str, dict[tuple[int, int], Any]] = {}
        swapped: dict[int, Any] = {}
        told = ""
        count = 0
        for owner, chain in self._chains:
            if owner is not one:
                continue
            count = len(chain.days)
            told = told or _about(one, chain)
            for number in range(1, self._cells.wanted(chain) + 1):
                lived = self._cells.read(chain, number)
                if lived is None:
                    break
                if number > count:
                    swapped[chain.seed] = lived
                else:
                    found.setdefault(chain.arm.name, {})[chain.seed, number] = lived
        failed = {
            chain.arm.name: why
            for owner, chain in self._chains
            if owner is one and (why := self.failures.get(one.project, {}).get(chain.name))
        }
        return table.Project(one.project, self._arms, count, self.args.seeds, found, swapped, failed, told)

    def _facts(self) -> list[str]:
        args = self.args
        return [
            f"{args.morning} lines a morning, {args.heldout} asked after each sleep, {args.general} of general code, "
            f"seeds {', '.join(map(str, args.seeds))}; base {args.base or 'as configured'}.",
            "Square brackets: 95 % bootstrap intervals that draw whole commits (files, where releases are replayed).",
            "Gain: how many fewer nats than the frozen base's the person's next lines cost, over all days. Forgetting: "
            "best minus final gain on older slices, as a share of the best; less is better, as for general code. What "
            "an arm that never sleeps loses there is no forgetting: its project went on, and says less about them.",
        ]


def shared_key(common: Mapping[str, Any], sizes: Sequence[Any], general: Sequence[Visit]) -> str:
    """Eight hexadecimal digits of what all arms share; only cells of one key are compared.

    Args:
        general: lines of Python's standard library, which is another one with another Python.
    """
    lines = [(visit.path, visit.change.new, [(ask.number, ask.column) for ask in visit.asks]) for visit in general]
    told = json.dumps([dict(common), *sizes, lines], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _about(one: History, chain: Chain) -> str:
    revisions = ", ".join(tree.revision for tree in one.states[: len(chain.days) + 1])
    asked = sum(len(visit.asks) for day in chain.days for visit in (*day.going_on, *day.apart))
    kind = "releases" if one.blame is None else "commits"
    return f"{kind.capitalize()} {revisions}: {len(chain.days)} days, {asked} lines asked (seed {chain.seed})."


def arms_of(args: argparse.Namespace) -> list[Arm]:
    """The arms that were asked for, in the table's order, the base among them; with `--quick` the others as left out.

    Raises:
        EvaluationError: there is no such arm, or another base is wanted for an arm that is not run.
    """
    names: Sequence[str] | None = args.arms
    everything = arms.arms()
    if names is None:
        return everything
    wanted = {name.removeprefix("+").strip().lower() for name in names} | {arms.BASE}
    known = {arm.name.removeprefix("+").strip().lower(): arm for arm in everything}
    if unknown := wanted - known.keys():
        raise EvaluationError(f"No arm is named {', '.join(sorted(unknown))}. There are: {', '.join(known)}.")
    if args.swap_base and arms.LEARNS not in {known[name].name for name in wanted}:
        raise EvaluationError(
            f'--swap-base carries the arm "{arms.LEARNS}" over to another base: name it in --arms, too.'
        )
    chosen = [arm if name in wanted else replace(arm, left_out=True) for name, arm in known.items()]
    tell_others = names == options.QUICK["arms"]
    return [arm for arm in chosen if tell_others or not arm.left_out]


def _histories(args: argparse.Namespace, root: Path) -> Iterator[History]:
    endings = tuple(args.endings.split(","))
    packages = args.package or ([] if args.git else options.PROJECTS)
    for text in packages:
        name, _, versions = text.partition("=")
        yield history.releases(name, versions.split(",")[: args.days + 1], root.parent / "wheels", endings)
    for where in args.git or ():
        wanted = 4 * (args.morning + args.heldout)
        yield history.repository(
            where,
            root.parent / "git",
            endings,
            days=args.days,
            wanted=wanted,
            start=args.from_revision,
            end=args.to_revision or "HEAD",
        )


def _speed(root: Path, common: Mapping[str, Any], *, measure: bool) -> float | None:
    """The sleep's tokens per second as a share of a bare loop's; measured once, in a process of its own."""
    settings = {key: value for key, value in common.items() if key.partition(".")[0] in ("base", "sleep")}
    told = json.dumps(settings, sort_keys=True)
    file = root / f"speed-{hashlib.sha256(told.encode()).hexdigest()[:8]}.json"
    if measure and not file.exists():
        command = [sys.executable, "-P", "-m", "npllm.evaluation.ablation.speed", told]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            log.warning("the speed of sleep could not be measured: %s", done.stderr.strip().splitlines()[-1:])
            return None
        file.write_text(done.stdout.splitlines()[-1], encoding="utf-8")
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["ratio"])
    except (FileNotFoundError, ValueError, KeyError):
        return None
