"""Kill -9 the sleeping child at random moments: is anything ever half-published, and does the next sleep go on?

    python -m tests.benchmarks.kill_sleep --kills 100 --seed 0

A tiny base with a tiny cerebellum, a real embedded PostgreSQL, real children. Half of the kills come at a random time
of a sleep, half some milliseconds after a random phase began, so that the short ones (publishing) are met, too. After
each kill: every row of `adapter_versions` and `cerebellum_versions` has its whole folder with the sha256 that it says
(no weights where the adapters' or the cerebellum's pruning takes them), one version of a context is in use, and the
base's files are what they were. At the end an undisturbed sleep is done, and no folder is without a row. Exit status 1
if not.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from npllm.config import CerebellumConfig, Config
from npllm.memory.postgres import destroy
from npllm.memory.store import Store
from npllm.models import cerebellum
from npllm.models.manifest import WEIGHTS, read_manifest, sha256_file
from npllm.sleep import cerebellum_pruning
from npllm.sleep.cerebellum import NAME
from npllm.sleep.protocol import Ending, Finished, Phase, Progress, decode
from npllm.types import AdapterVersion, CerebellumVersion, ConsolidationState, VersionState, new_id
from tests.fixtures_sleep import MORNING, config_for, from_source, start_child, write_settings
from tests.tiny import make_tiny_model

OWN = (Phase.PREPARING, Phase.LEARNING, Phase.JUDGING, Phase.PUBLISHING)
#: A phase, and whether it is the cerebellum's.
AIMED = ((Phase.GATHERING, False), *((phase, False) for phase in OWN), *((phase, True) for phase in OWN))


@dataclass
class Tally:
    """What came of it.

    Attributes:
        killed: kills by what was going on ("" = before the child's first word).
        finished: sleeps that ended by themselves before their kill.
        problems: what must never be.
    """

    killed: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    versions: int = 0
    problems: list[str] = field(default_factory=list)


async def run(home: Path, model: Path, kills: int, seed: int) -> Tally:
    """Kill so many children. `home` is an empty data folder, `model` the base's folder."""
    config = config_for(home, model, epochs=2, checkpoint_s=0.2)
    sister = CerebellumConfig(
        model=str(make_tiny_model(home / "sister", seed=3, hidden=32)),
        context_tokens=192,
        learning_rate=1e-2,
        time_share=0.5,
    )
    config = replace(config, cerebellum=sister)
    write_settings(config)
    base = digests(model)
    chance = random.Random(seed)
    tally = Tally()
    store = await Store.connect(config)
    try:
        await store.write(from_source(40))
        days, seconds, done = 1, 5.0, await _finished(store)
        while sum(tally.killed.values()) < kills:
            began = time.monotonic()
            phase = await _kill(config, chance, seconds)
            if phase is None:
                tally.finished += 1
                seconds = time.monotonic() - began
            else:
                tally.killed[phase] += 1
            tally.problems += await problems(store, config)
            if digests(model) != base:
                tally.problems.append("the base's files changed")
            if (now := await _finished(store)) != done:  # then the next day has something new
                done = now
                await store.write(from_source(40, start=MORNING + timedelta(days=days), offset=days % 3))
                days += 1
        await store.write(from_source(40, start=MORNING + timedelta(days=days), offset=days % 3))
        for _ in range(2):  # the first may only end what had begun
            ended = await _undisturbed(config)
        if ended not in (Ending.DONE, Ending.NOTHING):
            tally.problems.append(f"the last sleep ended as {ended.value}")
        tally.problems += await problems(store, config, at_rest=True)
        tally.versions = len(await store.adapter_versions())
    finally:
        await store.close()
    return tally


async def problems(store: Store, config: Config, *, at_rest: bool = False) -> list[str]:
    """What must never be, whatever was killed when; `at_rest`: nor may anything be left over."""
    found = []
    adapters, small = await store.adapter_versions(), await store.cerebellum.versions()
    versions: list[AdapterVersion | CerebellumVersion] = [*adapters, *small]
    pruned = without_weights(adapters, config)
    pruned |= {version.id for version in cerebellum_pruning.spare(small, config.sleep.keep_rejected)}
    for version in versions:
        folder = config.home / version.folder
        weights = folder / (cerebellum.WEIGHTS if isinstance(version, CerebellumVersion) else WEIGHTS)
        try:
            manifest = read_manifest(folder)
            if version.sha256 != manifest.sha256 or not (
                sha256_file(weights) == version.sha256 if weights.exists() else version.id in pruned
            ):
                found.append(f"version {version.id}: its weights are not what its row says")
        except Exception as error:  # noqa: BLE001  whatever it is, the version is not whole
            found.append(f"version {version.id} is {version.state.value}, and its folder is not whole: {error}")
    used = Counter(version.context for version in adapters if version.state is VersionState.PUBLISHED)
    used["the cerebellum"] = sum(version.state is VersionState.PUBLISHED for version in small)
    found += [f"{count} versions of {context} are in use" for context, count in used.items() if count > 1]
    if at_rest:
        rows = {config.home / version.folder for version in versions}
        left = [path for path in config.adapters_dir.glob("*") if path not in rows]
        left += [path for path in config.cerebellum_dir.glob("*") if path not in rows]
        left += config.checkpoints_dir.glob("*")
        found += [f"{path.name} is left over" for path in left]
    return found


def without_weights(adapters: Sequence[AdapterVersion], config: Config) -> set[UUID]:
    """Adapters, newest first, that need no weights any more: rejected before the newest `sleep.keep_rejected`."""
    rejected = defaultdict[tuple[str, str], list[UUID]](list)
    for version in adapters:
        if version.state is VersionState.REJECTED:
            rejected[version.context, version.base_fingerprint].append(version.id)
    return {id for ids in rejected.values() for id in ids[config.sleep.keep_rejected :]}


def digests(folder: Path) -> dict[str, str]:
    """Of each file in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


async def _kill(config: Config, chance: random.Random, seconds: float) -> str | None:
    """Start a child and kill it; the phase it was in ("": none yet), or None if it had ended by itself."""
    child = await start_child(config.home, new_id())
    assert child.stdout is not None
    aim = chance.choice(AIMED) if chance.random() < 0.5 else None
    wait = chance.uniform(0.0, 0.1) if aim else chance.uniform(0.0, seconds)
    phase = ""

    async def hear() -> None:
        nonlocal phase
        assert child.stdout is not None
        while line := await child.stdout.readline():
            message = decode(line.decode())
            if isinstance(message, Progress):
                phase = f"{message.phase.value} {message.context}".strip()
                if (message.phase, message.context == NAME) == aim:
                    return

    if aim is None:
        try:
            await asyncio.wait_for(hear(), wait)
        except TimeoutError:
            pass
    else:
        await hear()
        await asyncio.sleep(wait)
    ended = child.returncode is not None
    if not ended:
        child.kill()
    await child.communicate()
    return None if ended or child.returncode != -9 else phase


async def _undisturbed(config: Config) -> Ending:
    child = await start_child(config.home, new_id())
    out, _ = await child.communicate()
    said = decode(out.decode().strip().splitlines()[-1])
    return said.ending if isinstance(said, Finished) else Ending.FAILED


async def _finished(store: Store) -> object:
    last = await store.last_consolidation(ConsolidationState.DONE)
    return last.id if last else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        try:
            tally = asyncio.run(run(home, make_tiny_model(Path(folder) / "base"), args.kills, args.seed))
        finally:
            destroy(home)
    by_phase = ", ".join(f"{count} {phase or 'before the first word'}" for phase, count in tally.killed.most_common())
    print(f"{sum(tally.killed.values())} kills ({by_phase}); {tally.finished} sleeps had ended before theirs")
    print(f"{tally.versions} versions, {len(tally.problems)} problems")
    for problem in tally.problems:
        print(f"  {problem}")
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
