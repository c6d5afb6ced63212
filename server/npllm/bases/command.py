"""`npllm base use | list | info`: change the base, see which there are, see what one is.

The setting is written last, when the new base has been fetched, looked at, loaded and tried: whatever goes wrong before
leaves the old one in place.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from npllm import config
from npllm.bases import learned, setting, shelf
from npllm.bases.learned import Learned, Lineage
from npllm.bases.profile import Profile, check_form, check_room, gigabytes, profile, try_out
from npllm.models.base import Base, device_of
from npllm.models.causes import mend
from npllm.models.fingerprints import fingerprint
from npllm.models.folder import first_line
from npllm.models.hub import Meter
from npllm.models.locate import expanded, resolve
from npllm.types import ModelError, NpllmError

OVER_THE_FILE = "NPLLM_BASE_MODEL"


def main(arguments: Sequence[str]) -> int:
    """Run `npllm base ...`; its exit status.

    Raises:
        NpllmError: with cause and mend; nothing was changed.
    """
    args = _parser().parse_args(arguments)
    settings, problems = config.load_leniently()
    if args.command == "use":
        setting.check(settings.home)  # before anything is fetched
    for problem in problems:
        print(f"npllm: {problem}", file=sys.stderr)
    if args.command == "use":
        return _use(args.base, settings)
    if args.command == "info":
        return _info(args.base, settings)
    return _list(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npllm base", description=__doc__.split("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    use = commands.add_parser("use", help="switch to another base; the old one stays if anything is wrong with it")
    use.add_argument("base", metavar="ID_OR_FOLDER", help='a Hugging Face id, a folder, or "starter"')
    commands.add_parser("list", help="the bases at hand, and what was learned for each")
    info = commands.add_parser("info", help="what a base is, needs, and has learned")
    info.add_argument("base", nargs="?", metavar="ID_OR_FOLDER", help="by default the one in use")
    return parser


def _use(asked: str, settings: config.Config) -> int:
    name = _named(asked)
    device, cache = settings.base.device, settings.home / "cache"
    device_of(device)  # before anything is fetched

    def look(folder: Path, parameters: int) -> None:
        check_form(folder)
        check_room(name, parameters, device)

    with _explained(name):
        with _bar(name) as meter:
            folder = resolve(name, meter=meter, look=look)
        found = profile(folder, device=device, cache=cache, hashed=True)
        warnings = [check_room(name, found.parameters, device)]
        print(f"Loading {name} to see whether it works ...", flush=True)
        warnings.append(try_out(Base.load(name, device=device, cache=cache), settings))
    known = asyncio.run(learned.look(settings, found.fingerprint))
    before = setting.read_model(settings.home)
    waiting = _waiting(before, found, known, cache) if name != before else None
    file = setting.write_model(settings.home, name)
    _show(name, found, settings)
    _show_learned(found, known)
    for warning in filter(None, warnings):
        print(f"mind          {warning}")
    print()
    over = os.environ.get(OVER_THE_FILE, name)
    if over not in (name, asked):
        print(
            f"{OVER_THE_FILE} is set to {over}, which goes over config.toml: unset it. Until then {over} is the base."
        )
    if name == before:
        print(f"{name} was the base already{'' if over in (name, asked) else ' in config.toml'}.")
        return 0
    now = "The base is now" if over in (name, asked) else "In config.toml the base is now"
    print(f"{now} {name}, no longer {before} ({file}).")
    if waiting is not None:
        print(f"The adapters of {before} ({', '.join(waiting.contexts)}) wait for its return.")
    print(
        f'Editors that are open go on with {before} until their server is restarted (in VS Code: "npllm: Restart '
        "Server\"). Restart all of them: one with the old base and one with the new throw away each other's "
        "interrupted training. A base.model in an editor's own settings goes over config.toml: take it out there."
    )
    return 0


def _info(asked: str | None, settings: config.Config) -> int:
    name = settings.base.model if asked is None else _named(asked)
    with _explained(name):
        folder = shelf.folder_of(name)
        found = profile(folder, device=settings.base.device, cache=settings.home / "cache", hashed=True)
    _show(name, found, settings)
    _show_learned(found, asyncio.run(learned.look(settings, found.fingerprint)))
    return 0


def _list(settings: config.Config) -> int:
    known = asyncio.run(learned.look(settings, None))
    entries = shelf.entries(settings.base.model, known, device=settings.base.device, cache=settings.home / "cache")
    width = max(len(entry.name) for entry in entries)
    print(f"  {'base':<{width}}  weights   memory  prompt format")
    for entry in entries:
        mark = "*" if entry.in_use else " "
        made = entry.profile
        what = (
            f"{_millions(made.parameters):>7} {gigabytes(made.memory_bytes):>8}  {made.format_name}"
            if made is not None
            else entry.problem
        )
        adapters = f", adapters for {', '.join(entry.lineage.contexts)}" if entry.lineage is not None else ""
        print(f"{mark} {entry.name:<{width}}  {what}{adapters}")
    if known.problem:
        print(f"Which bases have adapters is not known: {known.problem}")
    return 0


def _show(name: str, found: Profile, settings: config.Config) -> None:
    in_use = " (in use)" if name == settings.base.model else ""
    used = min(settings.base.context_tokens, found.context_tokens)
    prompt = "fill-in-the-middle" if found.fills else "prefix only: it does not see what stands behind the cursor"
    shared = ", once for all editor windows" if found.device == "cpu" else ""
    learns = f"; it learns on {found.learns_on}" if found.learns_on != found.device else ""
    lines = {
        "base": f"{name}{in_use}",
        "folder": str(found.folder),
        "architecture": f"{found.architecture}, {_millions(found.parameters)} parameters",
        "prompt": f"{prompt} ({found.format_name} format)" if found.fills else prompt,
        "context": f"{found.context_tokens} tokens, of which {used} are used",
        "memory": f"{gigabytes(found.memory_bytes)} for its weights in {found.dtype} on {found.device}{shared}{learns}",
        "disk": gigabytes(found.disk_bytes)
        + (f", and a shared copy of {gigabytes(found.memory_bytes)}" if found.device == "cpu" else ""),
        "fingerprint": found.fingerprint or "",
    }
    for label, text in lines.items():
        print(f"{label:<13} {text}")


def _show_learned(found: Profile, known: Learned) -> None:
    if known.problem:
        print(f"learned       not known: {known.problem}")
        return
    own = known.of(found.fingerprint)
    print(f"adapters      {', '.join(own.contexts) if own is not None else 'none for this base yet'}")
    print(f"to learn      {known.ahead} of {known.experiences} experiences, in the next sleeps")
    for lineage in known.lineages:
        if lineage is not own:
            name = lineage.name or f"fingerprint {lineage.fingerprint[:12]}"
            print(f"waiting       adapters of {name} ({', '.join(lineage.contexts)}), for its return")


def _named(asked: str) -> str:
    """How a base is written down: a folder by its full path, so that it is found from everywhere."""
    if asked == shelf.STARTER:
        return asked
    name = asked
    with _explained(asked):
        path = expanded(asked)
        if asked.startswith((".", "~", "/")) or path.exists():
            name = str(path.resolve())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"{name!r} is no text, so it cannot be written down. Rename the folder.") from error
    return name


def _waiting(before: str, found: Profile, known: Learned, cache: Path) -> Lineage | None:
    """The adapters of the base before, which may be gone; None where there are none, or they fit the new one too."""
    if not known.lineages:
        return None
    try:
        old = fingerprint(shelf.folder_of(before), cache)
    except (ModelError, OSError):
        return None
    return known.of(old) if old != found.fingerprint else None


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Whatever is raised (a GPU out of memory, a file that cannot be read), as one sentence with a mend."""
    try:
        yield
    except NpllmError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name} cannot be used: {first_line(error)}. {mend(error, 'Choose another base, or run `npllm doctor`.')}"
        ) from error


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"


@contextmanager
def _bar(name: str) -> Iterator[Meter]:
    """A progress bar on stderr, from the first byte on."""
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    task = progress.add_task(f"Fetching {name}", total=None)

    def told(there: int, total: int) -> None:
        progress.start()
        progress.update(task, completed=there, total=total)

    try:
        yield told
    finally:
        if progress.live.is_started:
            progress.stop()
