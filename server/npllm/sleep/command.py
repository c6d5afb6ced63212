"""`npllm sleep [now] [--report]`, `npllm sleep report [ID] [--html FILE]`: sleep in this terminal; what came of it."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from npllm import config
from npllm.sleep import archive
from npllm.sleep.page import page
from npllm.sleep.record import Record
from npllm.sleep.supervisor import SleepError
from npllm.sleep.terminal import run_in_terminal
from npllm.types import new_id


def main(arguments: Sequence[str]) -> int:
    """Run `npllm sleep` with these arguments; the exit status.

    Raises:
        SleepError: the child cannot be started, or there is no such report.
        ConfigError: a setting is wrong.
    """
    args = _parser().parse_args(arguments)
    if args.what == "report":
        return _report(config.default_home().absolute(), args)
    settings, run = config.load(), new_id()
    status = asyncio.run(run_in_terminal(settings, lambda line: print(line, flush=True), run_id=run))
    if getattr(args, "report", False):
        _print_of(settings.home, run)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm sleep", description=__doc__)
    commands = parser.add_subparsers(dest="what", metavar="WHAT")
    now = commands.add_parser(
        "now", help="consolidate now, here; Ctrl-C, or what you do in an editor, ends it (the default)"
    )
    now.add_argument("--report", action="store_true", help="print the report afterwards: files, lines before and after")
    report = commands.add_parser("report", help="the report of a sleep; the last one if no id is given")
    report.add_argument("id", nargs="?", help="the beginning or the end of its id; see --list")
    report.add_argument("--last", action="store_true", help="the last one (the default)")
    report.add_argument("--list", action="store_true", help="the sleeps that there are reports of, newest first")
    report.add_argument("--html", type=Path, metavar="FILE", help="write it there as a page with plots")
    report.add_argument("--json", action="store_true", help="as one JSON object")
    return parser


def _report(home: Path, args: argparse.Namespace) -> int:
    if args.list:
        for id in archive.ids(home):
            print(id)
        return 0
    record = archive.find(home, args.id) if args.id else archive.newest(home)
    if record is None:
        if args.id:
            raise SleepError(f"There is no report of one sleep {args.id}; `npllm sleep report --list` lists them.")
        raise SleepError("There is no report yet; a sleep that comes to its end writes one.")
    if args.html is not None:
        try:
            args.html.write_text(page(record), encoding="utf-8")
        except OSError as error:
            raise SleepError(f"{args.html} cannot be written: {error}.") from error
        print(args.html)
    elif args.json:
        print(json.dumps(record.to_json()))
    else:
        _print(home, record)
    return 0


def _print_of(home: Path, run: UUID) -> None:
    """The report of this very run; an earlier sleep's would mislead."""
    record = archive.of_run(home, run)
    if record is None:
        print("This sleep wrote no report; the line above says why.")
    else:
        _print(home, record)


def _print(home: Path, record: Record) -> None:
    print(record.text)
    print(f"With plots: {archive.page_of(home, record)}")
