"""`npllm team setup | add | remove | list | check | share | unshare | shares`: one PostgreSQL for several persons.

`setup`, `add` and `remove` are for the administrator of the database, with an URL of their own in NPLLM_DATABASE_URL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from npllm import config
from npllm.memory.store import Store
from npllm.types import NpllmError


def main(arguments: Sequence[str]) -> int:
    """Run `npllm team ...`; its exit status: 0 done, 1 not confirmed, or `check` found something.

    Raises:
        NpllmError: with cause and mend; nothing was changed.
    """
    return asyncio.run(_run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm team", description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("setup", help="make the database fit for a team; again after an upgrade (administrator)")
    add = commands.add_parser("add", help="let a database user keep a memory in it (administrator)")
    add.add_argument("name", metavar="USER")
    remove = commands.add_parser("remove", help="delete a person's memory in it, and keep them out (administrator)")
    remove.add_argument("name", metavar="USER")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    commands.add_parser("list", help="who keeps a memory in it")
    share = commands.add_parser("share", help="let a role's members use what you wrote in a project, and use theirs")
    share.add_argument("role", metavar="ROLE")
    share.add_argument("--project", metavar="P", default=".", help="the workspace folder (default: this one)")
    unshare = commands.add_parser("unshare", help="take that back; the copies are deleted")
    unshare.add_argument("role", metavar="ROLE", nargs="?", help="default: from all")
    unshare.add_argument("--project", metavar="P", default=".", help="the workspace folder (default: this one)")
    commands.add_parser("shares", help="what you share, and how much there is")
    commands.add_parser("check", help="whether others could see what is yours")
    return parser


async def _run(args: argparse.Namespace) -> int:
    settings = config.load()
    if not settings.database.url:
        raise NpllmError(
            "The embedded database is for one person. For a team, set NPLLM_DATABASE_URL to a server that all reach."
        )
    store = await Store.connect(settings)
    try:
        match args.command:
            case "setup":
                await store.team.setup()
                print(f"{store.url} is fit for a team. `npllm team add USER` lets a database user in.")
            case "add":
                await store.team.add(args.name)
                print(f"{args.name} may keep a memory in {store.url}.")
            case "remove":
                return await _remove(args, store)
            case "share":
                project = os.path.normpath(Path(args.project).expanduser().absolute())
                await store.shares.share(project, args.role)
                print(f"What you write in {project} may be used by members of {args.role}, and theirs by you there.")
            case "unshare":
                project = os.path.normpath(Path(args.project).expanduser().absolute())
                count = await store.shares.unshare(project, args.role)
                print(f"{project} is shared no more." if count else f"{project} was not shared.")
                return 0 if count else 1
            case "shares":
                for one in await store.shares.all():
                    print(f"{one.project} with {one.role}: {one.own} of yours, {one.others} of others")
            case "list":
                print("\n".join(await store.team.members()) or "Nobody yet: `npllm team add USER`.")
            case "check":
                weak = await store.team.weaknesses()
                print("\n".join(weak) or "Nothing here lets another person see what is yours, but for administrators.")
                return 1 if weak else 0
        return 0
    finally:
        await store.close()


async def _remove(args: argparse.Namespace, store: Store) -> int:
    if not args.yes:
        if not sys.stdin.isatty():
            raise NpllmError("Nobody is there to ask. Say --yes.")
        question = f"All that {args.name} has in {store.url} is deleted. This cannot be undone. Go on? [y/N] "
        if (await asyncio.to_thread(input, question)).strip().lower() not in ("y", "yes"):
            print("Nothing was changed.")
            return 1
    gone = await store.team.remove(args.name)
    print(f"deleted: {', '.join(f'{count} {table}' for table, count in gone.items()) or 'nothing'}.")
    print(f"Their files (adapters, journal) are on their own machine. To be done: DROP ROLE {args.name}.")
    return 0
