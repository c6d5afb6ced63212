"""`npllm eval replay`: replay a project's history through the real server, and report what learning gained."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from npllm.evaluation import report, sources
from npllm.evaluation.day import Day, Setup, live
from npllm.evaluation.show import Show
from npllm.evaluation.sources import EvaluationError, Pair

T = TypeVar("T")


def main(argv: Sequence[str]) -> int:
    """Run `npllm eval replay` with these arguments; the exit status.

    Raises:
        NpllmError: the sources, the server or the sleep failed.
    """
    if "--ablate" in argv:
        from npllm.evaluation.ablation import command

        return command.main(argv)
    args = _parser().parse_args(argv)
    pair = _pair(args)
    days = run(_replay(args, pair))
    made = report.build(days)
    console = Console()
    report.print_to(console, made)
    write(made, args.json, args.markdown)
    for day in days:
        console.print(f"Seed {day.seed} is stored in {day.home}", markup=False, highlight=False)
    return 0


def run(day: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, in which SIGTERM cleans up as Ctrl-C does."""

    async def guarded() -> T:
        task = asyncio.ensure_future(day)
        with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers on its loop
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError as error:
        raise EvaluationError("Ended from outside; nothing is left running.") from error


def write(made: report.Report, json_file: Path | None, markdown_file: Path | None) -> None:
    """Write the report to files.

    Raises:
        EvaluationError: a file cannot be written.
    """
    try:
        if json_file is not None:
            text = json.dumps(report.as_json(made), indent=1, ensure_ascii=False)
            json_file.write_text(text + "\n", encoding="utf-8")
        if markdown_file is not None:
            markdown_file.write_text(report.as_markdown(made), encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"The report cannot be written: {error}.") from error


def run_home(root: Path, name: str) -> Path:
    """A folder of its own for one run: what an earlier run has learned must not be measured again."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    home = root / f"{stamp}-{name}"
    number = 2
    while home.exists():
        home = root / f"{stamp}-{name}-{number}"
        number += 1
    return home.absolute()


def make_root(folder: Path) -> Path:
    """The folder for all runs.

    Raises:
        EvaluationError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be made: {error}. Choose another with --home.") from error
    return folder.absolute()


async def _replay(args: argparse.Namespace, pair: Pair) -> list[Day]:
    root = make_root(args.home)
    days = []
    with Show() as show:
        for seed in args.seeds:
            home = run_home(root, f"{pair.project}-seed{seed}")
            if len(args.seeds) > 1:
                show.note(f"Seed {seed}")
            days.append(
                await live(
                    Setup(
                        pair=pair,
                        home=home,
                        seed=seed,
                        morning=args.morning,
                        held_out=args.heldout,
                        comments=args.comments,
                        max_minutes=args.sleep_minutes,
                        settings=base_settings(args.base) | ({"pacing": {"enabled": True}} if args.pacing else {}),
                    ),
                    show,
                )
            )
    return days


def base_settings(base: str | None) -> dict[str, dict[str, Any]]:
    """The setting for `--base`; a folder is made absolute, because the server runs elsewhere."""
    if base is None:
        return {}
    return {"base": {"model": str(Path(base).absolute()) if Path(base).is_dir() else base}}


def _pair(args: argparse.Namespace) -> Pair:
    endings = tuple(args.endings.split(","))
    if args.git is not None:
        if not (args.from_revision and args.to_revision):
            raise EvaluationError("--git needs --from and --to.")
        return sources.repository(args.git, args.from_revision, args.to_revision, endings=endings)
    if not (args.package and args.old and args.new):
        raise EvaluationError("Say what to replay: --package NAME --old A --new B, or --git DIR --from A --to B.")
    return sources.package(args.package, args.old, args.new, make_root(args.home) / "wheels", endings=endings)


def positive(text: str) -> int:
    """An argparse type: a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def seeds(text: str) -> list[int]:
    """An argparse type: whole numbers, with commas."""
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm eval replay", description=__doc__)
    parser.add_argument(
        "--ablate", action="store_true", help="what each mechanism gains; options: npllm eval replay --ablate --help"
    )
    source = parser.add_argument_group("what to replay")
    source.add_argument("--package", metavar="NAME", help="a package on the package index")
    source.add_argument("--old", metavar="VERSION", help="its older release")
    source.add_argument("--new", metavar="VERSION", help="its newer release")
    source.add_argument("--git", type=Path, metavar="DIR", help="instead: a git repository")
    source.add_argument("--from", dest="from_revision", metavar="REV", help="its older revision")
    source.add_argument("--to", dest="to_revision", metavar="REV", help="its newer revision")
    source.add_argument("--endings", default=".py", help="file name endings, with commas (default: .py)")
    source.add_argument("--comments", action="store_true", help="ask at comment and docstring lines, too")
    size = parser.add_argument_group("how much")
    size.add_argument("--morning", type=positive, default=100, metavar="N", help="lines to work on (100)")
    size.add_argument("--heldout", type=positive, default=60, metavar="N", help="lines to measure on (60)")
    size.add_argument("--sleep-minutes", type=float, default=3.0, metavar="M", help="sleep.max_minutes (3)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", dest="seeds", type=seeds, default=[0], metavar="N", help="split and developer (0)")
    which.add_argument("--seeds", type=seeds, metavar="N,N,...", help="several days, reported together")
    parser.add_argument("--base", metavar="MODEL", help="base model: folder or hub id (default: as configured)")
    parser.add_argument("--pacing", action="store_true", help="hold back what is unlikely to be taken, as in an editor")
    parser.add_argument("--home", type=Path, default=Path(".eval"), help="where runs are stored (default: .eval)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    return parser
