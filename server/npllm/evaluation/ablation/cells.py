"""Cells on disk: one file of JSON lines for each day of each arm, project and seed; what is there is not done again.

A day begins from what the day before left: a copy of its data folder, and a database made from its database as a
template. So a day that was cut short, by whatever, is simply lived again. A cell's file appears whole, when its day has
ended; then the day before lets go of its folder and database.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg

from npllm.evaluation.ablation import life
from npllm.evaluation.ablation.arms import Arm
from npllm.evaluation.ablation.days import Day
from npllm.evaluation.ablation.exam import Row
from npllm.evaluation.ablation.life import Lived, Note, Place
from npllm.evaluation.plan import Visit
from npllm.evaluation.sources import EvaluationError
from npllm.memory.journal import Journal
from npllm.memory.locks import FileLock
from npllm.memory.postgres import EmbeddedPostgres, Endpoint
from npllm.types import NpllmError

LEFT_BEHIND = ("logs", "journal", "checkpoints")  # of a data folder, when a day begins


@dataclass(frozen=True, slots=True)
class Chain:
    """One arm on one project's days, by one seed.

    Attributes:
        project: name and key of the history and of all that every arm shares.
        swap: the base that the last day's knowledge is carried over to, or "".
    """

    project: str
    arm: Arm
    seed: int
    days: tuple[Day, ...]
    swap: str = ""

    @property
    def name(self) -> str:
        """As a relative folder. Other settings are another chain."""
        told = json.dumps([dict(self.arm.settings), self.arm.sleeps, self.arm.shuffled or False], sort_keys=True)
        slug = re.sub(r"[^a-z0-9]+", "-", self.arm.name.lower()).strip("-")
        return f"{self.project}/{slug}-{hashlib.sha256(told.encode()).hexdigest()[:8]}/seed{self.seed}"


class Cells:
    """Everything below one folder. Use it as `async with`: no two processes may work there at once."""

    def __init__(self, root: Path, common: Mapping[str, Any], general: Sequence[Visit]) -> None:
        self.root = root
        self._common = common
        self._general = general
        self._postgres = EmbeddedPostgres(root)
        self._server: Endpoint | None = None
        self._lock = FileLock(root / "lock")

    async def __aenter__(self) -> Cells:
        if not self._lock.try_acquire():
            raise EvaluationError(f"Another process works in {self.root}. Wait for it, or choose another --home.")
        self._server = await self._postgres.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._postgres.close()
        self._lock.release()

    # -- what is there ---------------------------------------------------------------------------------------

    def file(self, chain: Chain, day: int) -> Path:
        """The cell of a day; the day behind the last is the other base."""
        swap = f"-swap-{hashlib.sha256(chain.swap.encode()).hexdigest()[:8]}" if day > len(chain.days) else ""
        return self.root / "cells" / chain.name / f"day{day}{swap}.jsonl"

    def read(self, chain: Chain, day: int) -> Lived | None:
        """A finished cell, or None."""
        try:
            first, *rest = self.file(chain, day).read_text(encoding="utf-8").splitlines()
            return Lived(json.loads(first), [Row(**json.loads(line)) for line in rest])
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # from another version
            return None

    def wanted(self, chain: Chain) -> int:
        """How many cells a chain has."""
        return len(chain.days) + bool(chain.swap)

    def done(self, chain: Chain) -> int:
        """How many of them are there, from the first."""
        count = 0
        while count < self.wanted(chain) and self.read(chain, count + 1) is not None:
            count += 1
        return count

    # -- work ------------------------------------------------------------------------------------------------

    async def run(self, chain: Chain, note: Note, deadline: float) -> AsyncIterator[int]:
        """Live the days that are missing, one after the other, and yield the number of each that has ended.

        No day is begun after `deadline` (`time.monotonic()`).

        Raises:
            NpllmError: a day failed; those before it are there.
        """
        done = self.done(chain)
        if done == self.wanted(chain):
            return
        if done and not self._home(chain, done).is_dir():
            done = 0  # its state was removed: from the beginning
        for number in range(done + 1, self.wanted(chain) + 1):
            if time.monotonic() > deadline:
                return
            place = await self._begin(chain, number)
            lived = await self._live(chain, number, place, note)
            if waiting := Journal(place.home / "journal").backlog():
                raise EvaluationError(f"{waiting} records of {place.home} did not reach PostgreSQL.")
            _write(self.file(chain, number), lived)
            await self._forget(chain, number - 1)
            if number == self.wanted(chain):
                await self._forget(chain, number)
            yield number

    async def _live(self, chain: Chain, number: int, place: Place, note: Note) -> Lived:
        if number > len(chain.days):
            return await life.other_base(chain.arm, chain.days, self._general, place, chain.seed, chain.swap, note)
        return await life.live(chain.arm, chain.days[:number], self._general, place, chain.seed, note)

    async def _begin(self, chain: Chain, number: int) -> Place:
        """A data folder and a database as the day before left them."""
        assert self._server is not None
        home, before = self._home(chain, number), self._home(chain, number - 1)
        await self._forget(chain, number)
        if number > 1:
            shutil.copytree(before, home, ignore=lambda folder, names: _left_behind(folder, names, before))
        else:
            home.mkdir(parents=True, mode=0o700)
        name = self._database(chain, number)
        template = f' TEMPLATE "{self._database(chain, number - 1)}"' if number > 1 else ""
        await self._administer(f'CREATE DATABASE "{name}"{template}')
        workspace = self.root / "workspace" / chain.project
        return Place(home, workspace, replace(self._server, database=name).url, self._common)

    async def _forget(self, chain: Chain, number: int) -> None:
        if number < 1:
            return
        await self._administer(f'DROP DATABASE IF EXISTS "{self._database(chain, number)}" WITH (FORCE)')
        shutil.rmtree(self._home(chain, number), ignore_errors=True)

    def _home(self, chain: Chain, number: int) -> Path:
        return self.root / "state" / chain.name / f"day{number}"

    @staticmethod
    def _database(chain: Chain, number: int) -> str:
        return f"ablation_{hashlib.sha256(chain.name.encode()).hexdigest()[:16]}_{number}"

    async def _administer(self, sql: str) -> None:
        assert self._server is not None
        try:
            connection = await asyncpg.connect(self._server.url)
            try:
                await connection.execute(sql)
            finally:
                await connection.close()
        except (asyncpg.PostgresError, OSError) as error:
            raise EvaluationError(f"PostgreSQL refuses: {error} ({sql}).") from error


def _left_behind(folder: str, names: list[str], home: Path) -> set[str]:
    return set(names) & set(LEFT_BEHIND) if Path(folder) == home else set()


def _write(file: Path, lived: Lived) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".new")
    documents = [dict(lived.facts), *(row.as_json() for row in lived.rows)]
    temporary.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    temporary.replace(file)


@contextlib.contextmanager
def failing(failures: dict[str, str], chain: Chain) -> Iterator[None]:
    """What goes wrong in one chain is told with it, and the others go on."""
    try:
        yield
    except NpllmError as error:
        failures[chain.name] = str(error)
