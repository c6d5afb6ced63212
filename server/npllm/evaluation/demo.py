"""`npllm demo`: one working morning, a sleep that the server begins by itself, and the next morning, in one go.

A real server, a real PostgreSQL, and two real releases of a project that the starter model never saw. Each run
has a data folder of its own below `--home`; downloads are kept there for the next run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from npllm.evaluation import report, sources
from npllm.evaluation.day import Day, Setup, live
from npllm.evaluation.replay import base_settings, make_root, positive, run, run_home, write
from npllm.evaluation.show import Show

PROJECT, OLD, NEW = "textual", "0.40.0", "0.60.0"


def main(argv: Sequence[str]) -> int:
    """Run `npllm demo` with these arguments; the exit status: 1 if the base changed or the sleep made nothing.

    Raises:
        NpllmError: the download, the server or the sleep failed.
    """
    args = _parser().parse_args(argv)
    began = time.monotonic()
    root = make_root(args.home)
    console = Console()
    show = Show(console)
    show.note(f"npllm demo: {args.package} {args.old} -> {args.new}, seed {args.seed}. Everything stays in {root}.")
    with show:
        with show.bar("fetch two releases", 1) as bar:
            pair = sources.package(args.package, args.old, args.new, root / "wheels")
            bar.step()
        home = run_home(root, f"seed{args.seed}")
        day = run(
            live(
                Setup(
                    pair=pair,
                    home=home,
                    seed=args.seed,
                    morning=args.lines,
                    held_out=args.heldout,
                    max_minutes=args.sleep_minutes,
                    settings=base_settings(args.base),
                ),
                show,
            )
        )
    made = report.build([day])
    console.print()
    report.print_to(console, made)
    write(made, home / "report.json", home / "report.md")
    for line in closing(day, home, time.monotonic() - began):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return verdict(console, day)


def closing(day: Day, home: Path, seconds: float) -> list[str]:
    """The lines under the table."""
    equal = "equal" if _unchanged(day) else "DIFFERENT"
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in day.counts.items())
    return [
        "",
        f"The base ({day.base}) before and after: {equal}",
        f"  fingerprint in the server   {day.fingerprints[0]} / {day.fingerprints[1]}",
        f"  sha256 of the files on disk {day.weights[0]} / {day.weights[1]}",
        f"  sha256 of what is in memory {day.parameters[0]} / {day.parameters[1]}",
        f"In use, swapped in without a restart: {', '.join(_in_use(day)) or 'nothing'}",
        f"In PostgreSQL: {counts}",
        f"Stored in {home}",
        f"  adapters {home / 'adapters'}   journal {home / 'journal'}   log {home / 'logs' / 'server.log'}",
        f"  every measured line: {home / 'report.json'}   settings: {home / 'config.toml'}",
        f"  look with: NPLLM_HOME={home} npllm status",
        "Time: "
        + ", ".join(f"{part} {took:.0f} s" for part, took in day.seconds.items())
        + f"; in all {seconds:.0f} s",
    ]


def _in_use(day: Day) -> list[str]:
    """What the sleep published."""
    small = day.sleep.cerebellum
    return [*(f"adapter {id}" for id in day.sleep.published), *(["the cerebellum"] if small and small[0] else [])]


def _unchanged(day: Day) -> bool:
    return all(before == after for before, after in (day.fingerprints, day.weights, day.parameters))


def verdict(console: Console, day: Day) -> int:
    """The exit status; what went wrong is printed, and that nothing was published."""
    if not _unchanged(day):
        console.print("FAILED: the base has changed.", style="bold red")
        return 1
    if not day.sleep.versions:
        console.print("FAILED: the sleep made no adapter.", style="bold red")
        return 1
    if not _in_use(day):
        reasons = "; ".join(f"{context}: {reason}" for context, _, reason, _ in day.sleep.versions)
        console.print(f"The gate let nothing through, so the third column is the second: {reasons}", style="yellow")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="varies the split and the developer (0)")
    parser.add_argument("--lines", type=positive, default=200, metavar="N", help="lines of the morning (200)")
    parser.add_argument("--heldout", type=positive, default=100, metavar="N", help="lines of the next morning (100)")
    parser.add_argument("--home", type=Path, default=Path(".demo"), help="where runs are stored (default: .demo)")
    parser.add_argument("--package", default=PROJECT, help=f"the project ({PROJECT})")
    parser.add_argument("--old", default=OLD, help=f"its older release ({OLD})")
    parser.add_argument("--new", default=NEW, help=f"its newer release ({NEW})")
    parser.add_argument("--base", metavar="MODEL", help="base model: folder or hub id (default: as configured)")
    parser.add_argument("--sleep-minutes", type=float, default=3.5, metavar="M", help="sleep.max_minutes (3.5)")
    return parser
