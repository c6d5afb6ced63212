"""`npllm memory`: looking into what is remembered, and forgetting it with all that had learned from it.

Killed at any moment it has either done nothing yet or the part that counts, in one transaction; the same command again,
or the next sleep, removes what files still hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from npllm import config
from npllm.config import Config
from npllm.forgetting import looking
from npllm.forgetting.taint import Taint
from npllm.memory.forgetting import Forgotten, Version
from npllm.memory.lineage import quiet
from npllm.memory.places import Selector, names
from npllm.memory.scrubbing import finish, in_journals, redact_journals
from npllm.memory.store import Store
from npllm.types import NpllmError

_AGO = re.compile(r"(\d+)\s*([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def main(arguments: Sequence[str]) -> int:
    """Run `npllm memory ...`; its exit status: 0 done, 1 not confirmed or nothing found.

    Raises:
        NpllmError: with cause and mend.
    """
    args = _parser().parse_args(arguments)
    return asyncio.run(_run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm memory", description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    forget = commands.add_parser("forget", help="delete what is remembered, and what was learned from it")
    forget.add_argument("--path", metavar="P", help="a file, or a folder with all below it")
    forget.add_argument("--project", metavar="P", help="a workspace folder")
    forget.add_argument("--since", metavar="T", help="made then or later: 2026-03-02, 2026-03-02T09:30, 30m, 2h, 3d")
    forget.add_argument("--text", metavar="S", help="whatever holds this text")
    forget.add_argument("--dry-run", action="store_true", help="only say how much that is")
    forget.add_argument("--yes", action="store_true", help="do not ask")
    forget.add_argument(
        "--only-the-past", action="store_true", help="go on learning from this path; by default that ends"
    )
    redact = commands.add_parser("redact", help="look for secrets in what earlier versions stored, and replace them")
    redact.add_argument("--dry-run", action="store_true", help="only say what would be replaced")
    remember = commands.add_parser("remember", help="learn from a path again")
    remember.add_argument("path", metavar="P")
    commands.add_parser("drop-index", help="delete the index of your code, where memory.index is off")
    commands.add_parser("off-limits", help="the paths from which nothing is learned")
    looking.add_to(commands)
    return parser


async def _run(args: argparse.Namespace) -> int:
    selector = _selector(args) if args.command in ("forget", "export") else Selector()
    settings = config.load()
    store = await Store.connect(settings)
    try:
        match args.command:
            case "forget":
                return await _forget(args, selector, settings, store)
            case "redact":
                return await _redact(args, settings, store)
            case "remember":
                return await _remember(args.path, store)
            case "drop-index":
                return await _drop_index(settings, store)
            case "show":
                return await looking.show(args, settings, store)
            case "search":
                return await looking.search(args, settings, store)
            case "export":
                return await looking.export(args, selector, store)
            case "stats":
                return await looking.stats(args, settings, store)
        for path in await store.forgetting.off_limits():
            print(path)
        return 0
    finally:
        await store.close()


def _selector(args: argparse.Namespace) -> Selector:
    """What is meant.

    Raises:
        NpllmError: nothing, or something that cannot be read.
    """
    text = args.text if args.command == "forget" else None
    given = (args.path, args.project, args.since, text)
    if any(value == "" for value in given):
        raise NpllmError("An empty --path, --project, --since or --text means nothing.")
    if args.command == "forget" and not any(given):
        raise NpllmError("Forget what? Give at least one of --path, --project, --since, --text.")
    return Selector(
        path=_absolute(args.path),
        project=_absolute(args.project),
        since=_time(args.since) if args.since else None,
        text=text or "",
    )


def _absolute(path: str | None) -> str:
    if not path:
        return ""
    found = (
        path if len(names(path)) == 1 and path in names(path) else os.path.normpath(Path(path).expanduser().absolute())
    )
    if found == "/":
        raise NpllmError("That is everything there is. To forget all, delete the data folder.")
    return found


def _time(text: str) -> datetime:
    ago = _AGO.fullmatch(text.strip())
    if ago is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise NpllmError(f"--since {text!r} is no time: 2026-03-02, 2026-03-02T09:30, 30m, 2h or 3d.") from error


async def _forget(args: argparse.Namespace, selector: Selector, settings: Config, store: Store) -> int:
    keep_out = bool(selector.limits) and not args.only_the_past
    found = await _ask(selector, settings, store, dry_run=True, keep_out=keep_out)
    if found.nothing and not keep_out:
        async with quiet(store):
            await _finish(store, settings)  # of a forgetting that was cut short
        print("Nothing of that is remembered.")
        return 1
    _tell(found, "would be forgotten" if args.dry_run else "to forget")
    if keep_out:
        print(f"From then on nothing is learned from {' or '.join(sorted(selector.limits))}.")
    if args.dry_run:
        return 0
    if not args.yes and not await asyncio.to_thread(_confirmed):
        print("Nothing was changed.")
        return 1
    async with quiet(store):
        found = await _ask(selector, settings, store, dry_run=False, keep_out=keep_out)
        await _finish(store, settings)
    _tell(found, "forgotten")
    return 0


async def _ask(selector: Selector, settings: Config, store: Store, *, dry_run: bool, keep_out: bool) -> Forgotten:
    taint = Taint(settings.home, selector)
    written = await asyncio.to_thread(in_journals, settings.journal_dir, selector)
    return await store.forgetting.forget(
        selector, tainted=taint.of, usable=taint.usable, in_journals=written, keep_out=keep_out, dry_run=dry_run
    )


async def _redact(args: argparse.Namespace, settings: Config, store: Store) -> int:
    taint = Taint(settings.home, Selector(since=datetime.max.replace(tzinfo=UTC)))  # by experiences, not by files
    if args.dry_run:
        found = await store.redacting.run(tainted=taint.of, usable=taint.usable, dry_run=True)
        journaled = 0
    else:
        async with quiet(store):
            journaled = await redact_journals(settings.journal_dir, store.redacting.around)
            found = await store.redacting.run(tainted=taint.of, usable=taint.usable)
            await _finish(store, settings)
    counts = dict(found.rows) | ({"records in journals": journaled} if journaled else {})
    if not counts:
        print("No secret is in what is stored, as far as the patterns of this version know.")
        return 0
    done = "would be changed" if args.dry_run else "changed"
    print(f"{done}: {', '.join(f'{n} {name}' for name, n in counts.items())}.")
    print(f"  secrets: {', '.join(f'{n} {kind}' for kind, n in found.kinds.most_common()) or 'in derived rows'}.")
    _tell_versions(found.tainted, found.back)
    print("  Whatever was a secret there has lain on the disk: change it where it is used.")
    return 0


async def _drop_index(settings: Config, store: Store) -> int:
    if settings.memory.index != "off":
        raise NpllmError('memory.index is on, so it would be read again. Set memory.index = "off" first.')
    files = await store.index.drop_all()
    print(f"deleted: the index of {files} files." if files else "There is no index.")
    return 0


async def _finish(store: Store, settings: Config) -> None:
    for problem in await finish(store, settings):
        print(f"npllm: {problem}", file=sys.stderr)


def _tell(found: Forgotten, verb: str) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    waiting = f", and {found.waiting} suggestions that only a journal knows" if found.waiting else ""
    print(f"{verb}: {counts}{waiting}.")
    _tell_versions(found.tainted, found.back)


def _tell_versions(tainted: Sequence[Version], back: Sequence[Version]) -> None:
    for version in tainted:
        context = next((name.removeprefix("context=") for name in version.group if name.startswith("context=")), "")
        print(f"  {version.table.removesuffix('_versions')} {version.id} {context} had learned from it.")
    for version in back:
        print(f"  {version.id} comes back into use.")
    if tainted:
        print("  The next sleep learns again from what remains.")


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise NpllmError("Nobody is there to ask. Say --yes, or look first with --dry-run.")
    return input("This cannot be undone. Forget it? [y/N] ").strip().lower() in ("y", "yes")


async def _remember(path: str, store: Store) -> int:
    if await store.forgetting.remember(path):
        print(f"{path} may be learned from again. What was forgotten does not come back.")
        return 0
    print(f"{path} was not off limits; `npllm memory off-limits` shows what is.", file=sys.stderr)
    return 1
