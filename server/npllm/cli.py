"""The command line: `npllm serve | status | stats | doctor | sleep | base | adapters | memory | team | eval | ...`.

Heavy rooms are imported by the command that needs them. Errors that the person can mend are one sentence on
stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from npllm import __version__, config
from npllm.types import NpllmError

LOG_BYTES = 2_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit status."""
    home, arguments = _home_first(list(sys.argv[1:] if argv is None else argv))
    if home is not None:
        os.environ["NPLLM_HOME"] = str(Path(home).absolute())
    own = {
        ("demo",): _demo,
        ("eval", "replay"): _replay,
        ("starter", "build"): _build,
        ("starter", "evaluate"): _evaluate_starter,
        ("bench", "memory"): _bench_memory,
        ("base",): _base,
        ("adapters",): _adapters,
        ("memory",): _memory,
        ("team",): _team,
        ("sleep",): _sleep,
        ("stats",): _stats,
    }
    for words, bringing in own.items():
        if tuple(arguments[: len(words)]) == words:  # these bring their own options
            return _guarded(partial(bringing, arguments[len(words) :]))
    args = _parser().parse_args(arguments)
    commands = {"serve": _serve, "status": _status, "doctor": _doctor}
    return _guarded(lambda: commands[args.command](args))


def _home_first(arguments: list[str]) -> tuple[str | None, list[str]]:
    """`--home FOLDER` before the command, and the rest: the commands with their own parsers must not see it."""
    match arguments:
        case ["--home", home, *rest]:
            return home, rest
        case [first, *rest] if first.startswith("--home="):
            return first.removeprefix("--home="), rest
    return None, arguments


def _demo(arguments: list[str]) -> int:
    from npllm.evaluation import demo

    return demo.main(arguments)


def _replay(arguments: list[str]) -> int:
    from npllm.evaluation import replay

    return replay.main(arguments)


def _bench_memory(arguments: list[str]) -> int:
    from npllm.evaluation.bench import memory

    return memory.main(arguments)


def _build(arguments: list[str]) -> int:
    from npllm.starter import build

    return build.main(arguments)


def _evaluate_starter(arguments: list[str]) -> int:
    from npllm.starter import evaluate

    return evaluate.main(arguments)


def _base(arguments: list[str]) -> int:
    from npllm.bases import command

    return command.main(arguments)


def _adapters(arguments: list[str]) -> int:
    from npllm.lineage import command

    return command.main(arguments)


def _memory(arguments: list[str]) -> int:
    from npllm.forgetting import command

    return command.main(arguments)


def _team(arguments: list[str]) -> int:
    from npllm.team import command

    return command.main(arguments)


def _sleep(arguments: list[str]) -> int:
    from npllm.sleep import command

    return command.main(arguments)


def _stats(arguments: list[str]) -> int:
    from npllm import stats

    return stats.main(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--version", action="version", version=f"npllm {__version__}")
    parser.add_argument("--home", help="data folder (default: $NPLLM_HOME or the platform's)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="the language server, on stdin and stdout")
    serve.add_argument("--tcp", metavar="[HOST:]PORT", help="listen there instead, for debugging")
    serve.add_argument("--evaluation", action="store_true", help="offer the commands that `npllm eval` measures with")
    serve.add_argument("--stdio", action="store_true", help=argparse.SUPPRESS)  # editors like to say it

    status = commands.add_parser("status", help="what is stored, and what is going on")
    status.add_argument("--json", action="store_true", help="as one JSON object")

    commands.add_parser("stats", help="what became of the suggestions, in figures; see `npllm stats --help`")

    doctor = commands.add_parser("doctor", help="what is installed, what is wrong, how to mend it")
    doctor.add_argument("--json", action="store_true", help="as one JSON object")
    doctor.add_argument(
        "--prune", action="store_true", help="only remove the embedded databases whose data folders are gone"
    )

    commands.add_parser("sleep", help="consolidate now, in this terminal; read the report; see `npllm sleep --help`")
    commands.add_parser("base", help="switch to another base, list them; see `npllm base --help`")

    commands.add_parser(
        "adapters", help="what was learned, version by version: list, show, diff, pin, rollback, export ..."
    )
    commands.add_parser("memory", help="look into what is remembered, forget it; see `npllm memory --help`")
    commands.add_parser("team", help="a database that several persons share; see `npllm team --help`")

    evaluate = commands.add_parser("eval", help="replay a project's history: what does learning gain?")
    evaluate.add_argument("what", choices=["replay"], help="see `npllm eval replay --help`")
    commands.add_parser("demo", help="a morning, a sleep, the next morning; see `npllm demo --help`")
    bench = commands.add_parser("bench", help="how long memory takes at several sizes, and what it misses")
    bench.add_argument("what", choices=["memory"], help="see `npllm bench memory --help`")
    starter = commands.add_parser("starter", help="build the starter model, or evaluate one")
    starter.add_argument("what", choices=["build", "evaluate"], help="see `npllm starter build --help`")
    return parser


def _guarded(command: Callable[[], int]) -> int:
    try:
        return command()
    except NpllmError as error:
        print(f"npllm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("npllm: interrupted.", file=sys.stderr)
        return 130


def _serve(args: argparse.Namespace) -> int:
    address = None if args.tcp is None else _address(args.tcp)
    settings, problems = config.load_leniently()  # an editor's server must come up and say what is wrong
    _log_to(settings.home / "logs" / "server.log")
    from npllm.lsp.server import build

    server = build(settings, evaluation=args.evaluation, problem=" ".join(problems))
    if address is None:
        server.start_io()
        return 0
    try:
        server.start_tcp(*address)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise NpllmError(f"Cannot listen on {args.tcp}: {said}. Choose another --tcp.") from error
    return 0


def _address(text: str) -> tuple[str, int]:
    """Host and port of `[HOST:]PORT`."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise NpllmError(f"--tcp wants [HOST:]PORT with a port from 1 to 65535, not {text!r}.")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A log that its user alone can read: it names files."""

    def _open(self) -> TextIOWrapper:
        stream = open(  # noqa: SIM115 - the handler closes it
            self.baseFilename, self.mode, encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)
        )
        assert isinstance(stream, TextIOWrapper)
        return stream


def _log_to(file: Path) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setLevel(logging.WARNING)
    try:
        file.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.parent.mkdir(exist_ok=True, mode=0o700)
        handlers.append(_PrivateLog(file, maxBytes=LOG_BYTES, backupCount=2))
    except OSError as error:
        print(f"npllm: no log file: {error}", file=sys.stderr)
    logging.basicConfig(
        level=logging.INFO,
        handlers=handlers,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("pygls").setLevel(logging.WARNING)  # at INFO it logs every document's text


def _status(args: argparse.Namespace) -> int:
    return asyncio.run(_print_status(args.json))


async def _print_status(as_json: bool) -> int:
    from npllm.memory.journal import Journal
    from npllm.memory.store import Store
    from npllm.sleep.mending import settle
    from npllm.types import VersionState

    settings = config.load()
    store = await Store.connect(settings)
    try:
        counts = await store.counts()
        versions = await store.adapter_versions(state=VersionState.PUBLISHED)
        await settle(store)
        last = await store.last_consolidation()
    finally:
        await store.close()
    backlog = Journal(settings.journal_dir).backlog()
    state = last.state.value if last else "never slept"
    if as_json:
        facts = {
            **dataclasses.asdict(counts),
            "backlog": backlog,
            "state": state,
            "last_sleep": last.started_at.isoformat() if last else None,
            "adapters": [str(version.id) for version in versions],
            "home": str(settings.home),
        }
        print(json.dumps(facts))
        return 0
    print(f"data folder   {settings.home}")
    for name in ("suggestions", "outcomes", "feedback", "experiences"):
        print(f"{name:<13} {getattr(counts, name)}")
    print(f"journal       {backlog} records not yet in PostgreSQL")
    print(f"last sleep    {f'{last.started_at:%Y-%m-%d %H:%M} UTC, {state}' if last else state}")
    for version in versions:
        gain = version.metrics.get("gain")
        print(f"adapter       {version.context} {version.id}" + (f" (held-out NLL {-gain:+.1%})" if gain else ""))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from npllm.doctor import examine, prune

    if args.prune:
        for folder, size in prune():
            print(f"npllm: removed {folder} ({size / 1e6:.0f} MB): its data folder is gone.")
        return 0
    checks = asyncio.run(examine())
    if args.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks]))
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'BAD '} {check.name:<12} {check.found}")
            if check.mend:
                print(f"     {'':<12} -> {check.mend}")
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
