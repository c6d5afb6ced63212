"""The modulator around a real (tiny) base with real adapters, and its policies from the sleep to the running engine."""

from __future__ import annotations

import asyncio
import hashlib
import math
import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import torch

from npllm import contexts
from npllm.assist.resources import Resources
from npllm.config import Config, ModulatorConfig
from npllm.memory.store import Store
from npllm.models.adapters import AdapterSet
from npllm.models.base import Base
from npllm.models.engine import NO_ADAPTERS
from npllm.models.manifest import read_manifest, write_manifest
from npllm.models.modulator import Modulator, Sight, choice_of
from npllm.models.policy import ACTIONS, POLICY_WEIGHTS, Policy, available, index_of, served
from npllm.models.torch_engine import TorchEngine
from npllm.sleep import policy_learning
from npllm.types import ModelError, Modulation, OutcomeKind, VersionState, new_id
from tests.fixtures_memory import (  # noqa: F401
    database_url,
    make_experience,
    make_place,
    make_suggestion,
    postgres,
    store,
    store_config,
)
from tests.fixtures_sleep import config_for
from tests.integration.test_models_adapters import make_adapter

# ruff: noqa: F811

NEVER = threading.Event()
RULES = ModulatorConfig()
LEARNED = replace(RULES, policy="learned", exploration=0.2)
CONTEXTS = ("project:/w", "language:python", "generic")
PREFIX = "def area(width, height):\n    "


@pytest.fixture
def base(tiny_model: Path) -> Base:
    return Base.load(str(tiny_model), device="cpu", threads=1)


def sight(**changes: object) -> Sight:
    made = Sight("file:///w/a.py", "python", len(PREFIX), PREFIX, "\n", CONTEXTS)
    return replace(made, **changes)  # type: ignore[arg-type]


def three(base: Base, model: Path, folder: Path, targets: tuple[str, ...]) -> AdapterSet:
    adapters = AdapterSet(base)
    for number, context in enumerate(CONTEXTS):
        at = folder / f"{number}"
        version = make_adapter(at, model, base.info.fingerprint, seed=number, targets=targets)
        adapters.load(version, at, context)
    return adapters


def modulator_of(base: Base) -> Modulator:
    return Modulator(base.model.config.hidden_size, base.info.fingerprint)


def test_by_the_rules_the_most_specific_adapter_acts(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    adapters, engine, modulator = three(base, tiny_model, tmp_path, ("lm_head",)), TorchEngine(base), modulator_of(base)
    fitting = adapters.fitting(CONTEXTS)
    for explore in (True, False):
        made = modulator.decide(fitting, sight(), engine, RULES, explore=explore)
        assert made is not None
        assert (made.families, made.action, made.propensity) == (CONTEXTS, (1.0, 0.0, 0.0), 1.0)
        assert made.policy is None
    assert choice_of(made, fitting, 0.5) == adapters.choose(CONTEXTS, 0.5)
    elsewhere = adapters.fitting(("project:/other", *CONTEXTS[1:]))
    made = modulator.decide(elsewhere, sight(uri="file:///o/a.py"), engine, RULES)
    assert choice_of(made, elsewhere, 1.0) == adapters.choose(("language:python",))
    assert modulator.decide((), sight(), engine, RULES) is None
    assert choice_of(None, (), 1.0) == NO_ADAPTERS


def test_without_exploration_the_untrained_policy_is_the_rules(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    fitting = three(base, tiny_model, tmp_path, ("lm_head",)).fitting(CONTEXTS)
    engine, modulator = TorchEngine(base), modulator_of(base)
    quiet = replace(LEARNED, exploration=0.0, sticky_s=0.0)
    for number in range(200):
        made = modulator.decide(fitting, sight(uri=f"file:///{number}"), engine, quiet)
        assert made is not None and (made.action, made.propensity) == ((1.0, 0.0, 0.0), 1.0)


def test_logged_propensities_are_those_that_actions_were_drawn_with(
    base: Base, tiny_model: Path, tmp_path: Path
) -> None:
    fitting = three(base, tiny_model, tmp_path, ("lm_head",)).fitting(CONTEXTS)
    engine, modulator = TorchEngine(base), modulator_of(base)
    engine.prefill(range(10, 60), NEVER)
    policy = Policy(base.model.config.hidden_size, seed=3).requires_grad_(False)
    torch.manual_seed(0)
    policy.head.weight.normal_()
    policy.head.bias.normal_()
    modulator._policy = policy
    count = 3000
    drawn: Counter[int] = Counter()
    told: dict[int, float] = {}
    possible = available(CONTEXTS)
    for _ in range(count):
        made = modulator.decide(fitting, sight(), engine, replace(LEARNED, sticky_s=0.0))
        assert made is not None
        mu = served(policy(torch.tensor([made.features]), possible[None])[0], possible, LEARNED.exploration)
        number = index_of(made.families, made.action)
        assert made.propensity == pytest.approx(float(mu[number]), abs=1e-5), "as can be computed from what is logged"
        assert made.propensity >= LEARNED.exploration / 10 - 1e-6, "never below the floor"
        modulator._kept = None  # the time since the last decision is a feature: let all see the same
        drawn[number] += 1
        told[number] = made.propensity
    assert len(drawn) == int(possible.sum()) < len(ACTIONS)
    for number, p in told.items():
        assert abs(drawn[number] / count - p) < 4 * math.sqrt(p * (1 - p) / count), ACTIONS[number]


def test_a_choice_is_kept_while_typing_and_so_is_the_cache(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    adapters, modulator = three(base, tiny_model, tmp_path, ("q_proj", "lm_head")), modulator_of(base)
    engine, fitting = TorchEngine(base), adapters.fitting(CONTEXTS)
    ids = list(range(10, 60))

    def request(**changes: object) -> Modulation:
        made = modulator.decide(fitting, sight(**changes), engine, LEARNED)
        assert made is not None
        engine.use_adapters(choice_of(made, fitting, 1.0))
        engine.prefill(ids, NEVER)
        return made

    first = request()
    assert engine.prefilled == 50
    for number in range(1, 40):
        ids.append(60 + number)
        typed = PREFIX + "x" * number
        assert request(prefix=typed, offset=len(typed)) is first
        assert engine.prefilled <= 2, "only what was typed is computed"
    back = request(prefix=PREFIX[:10], offset=10, suffix=PREFIX[10:])
    assert back is first, "a few lines up is near"
    far = PREFIX + "\n" * 30
    moved = request(prefix=far, offset=len(far))
    assert moved.decision != first.decision, "the place moved on"
    assert request(uri="file:///w/b.py").decision != moved.decision, "another document"
    kept = request()
    assert modulator.decide(fitting[1:], sight(), engine, LEARNED).decision != kept.decision  # type: ignore[union-attr]
    kept = request()
    brief = replace(LEARNED, sticky_s=0.0)
    later = [modulator.decide(fitting, sight(), engine, brief) for _ in range(2)]
    assert len({kept.decision, *(one.decision for one in later if one)}) == 3, "time is over"


async def decisions(
    store: Store, base: Base, count: int, best: tuple[float, ...], documents: Sequence[int] = range(9)
) -> None:
    """What an untrained policy decided in these documents by turns, and that `best` alone was welcome."""
    engine, modulator = TorchEngine(base), modulator_of(base)
    fitting = tuple((context, new_id()) for context in CONTEXTS)
    eager = replace(LEARNED, sticky_s=0.0, exploration=0.5)
    records: list[object] = []
    for number in range(count):
        uri = f"file:///{documents[number % len(documents)]}"
        made = modulator.decide(fitting, sight(uri=uri), engine, eager)
        place = make_place(uri=uri)
        told = make_suggestion(place=place, base_fingerprint=base.info.fingerprint, modulation=made)
        assert made is not None
        reward = 1.0 if made.action == best else -0.2
        records += [told, make_experience(id=told.id, reward=reward, outcome=OutcomeKind.ACCEPTED)]
    unseen = make_suggestion(base_fingerprint=base.info.fingerprint, modulation=made)
    records += [unseen, make_experience(id=unseen.id, outcome=OutcomeKind.UNSEEN)]
    await store.write(records)  # type: ignore[arg-type]


def by_half(count: int) -> tuple[list[int], list[int]]:
    """The first so many documents of `decisions`: those to learn from, and those to judge by."""
    found: tuple[list[int], list[int]] = [], []
    for number in range(count):
        found[hashlib.sha256(f"file:///{number}".encode()).digest()[0] % 2].append(number)
    return found


async def test_a_better_policy_is_published_and_swapped_into_the_running_engine(
    store: Store, store_config: Config, base: Base, tiny_model: Path
) -> None:
    config = replace(
        config_for(store_config.home, tiny_model),
        database=store_config.database,
        modulator=replace(LEARNED, exploration=0.5, min_decisions=300),
    )
    fingerprint = base.info.fingerprint
    assert await policy_learning.learn(store, replace(config, modulator=RULES), fingerprint, new_id(), NEVER) == ""
    await decisions(store, base, 20, (0.0, 1.0, 0.0))
    waiting = await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    assert "20 decisions with an outcome; 300 are needed" in waiting
    connected = asyncio.Event()

    async def told(_: Store) -> None:
        connected.set()

    async def forgotten(_: Store) -> None:
        raise AssertionError("nothing was forgotten")

    resources = Resources(config, lambda: None, lambda _: None, told, forgotten)
    resources.start()
    try:
        async with asyncio.timeout(120):
            while resources.worker.info is None or not connected.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await decisions(store, base, 900, (0.0, 1.0, 0.0))
        consolidation = new_id()
        told_of = await policy_learning.learn(store, config, fingerprint, consolidation, NEVER)
        assert "published" in told_of and "920 decisions" in told_of and "doubly robust" in told_of
        (version,) = await store.policies.versions(fingerprint)
        assert version.state is VersionState.PUBLISHED and version.metrics["gain_low"] > 0

        async def in_use() -> UUID | None:
            return await resources.worker.run(lambda desk: desk.modulator.version)

        async with asyncio.timeout(60):
            while await in_use() != version.id:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert "adapters" not in resources.problems
        assert await policy_learning.learn(store, config, fingerprint, consolidation, NEVER) == "", "once a sleep"
    finally:
        await resources.close()
    assert [path.name for path in config.policies_dir.iterdir()] == [str(version.id)]
    data = read_manifest(config.home / version.folder).data  # so that forgetting finds it
    assert len(data["learned"]) + len(data["held_out"]) == 920 and not set(data["learned"]) & set(data["held_out"])

    modulator = modulator_of(base)
    modulator.use(version.id, config.home / version.folder)
    fitting = tuple((context, new_id()) for context in CONTEXTS)
    chosen = Counter(
        made.action
        for number in range(300)
        if (made := modulator.decide(fitting, sight(uri=f"file:///{number}"), TorchEngine(base), LEARNED)) is not None
    )
    assert chosen[(0.0, 1.0, 0.0)] > 3 * 300 * 0.1, "far more often than at first"
    assert made is not None and made.policy == version.id
    with pytest.raises(ModelError, match="another base"):
        Modulator(base.model.config.hidden_size, "another").use(version.id, config.home / version.folder)
    weights = config.home / version.folder / POLICY_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    other = modulator_of(base)
    with pytest.raises(ModelError, match="sha256 differs"):
        other.use(version.id, config.home / version.folder)
    assert other.version is None


async def test_a_policy_that_is_not_better_is_kept_as_rejected(
    store: Store, store_config: Config, base: Base, tiny_model: Path
) -> None:
    config = replace(config_for(store_config.home, tiny_model), modulator=replace(LEARNED, exploration=0.5))
    await decisions(store, base, 300, (2.0, 2.0, 2.0))  # nothing is ever better than anything
    told = await policy_learning.learn(store, config, base.info.fingerprint, new_id(), NEVER)
    (version,) = await store.policies.versions(base.info.fingerprint)
    assert version.state is VersionState.REJECTED and version.reason in told
    assert (config.home / version.folder / POLICY_WEIGHTS).is_file()
    assert await store.policies.published(base.info.fingerprint) is None


async def test_what_a_parent_learned_judges_no_later_policy(
    store: Store, store_config: Config, base: Base, tiny_model: Path
) -> None:
    config = replace(
        config_for(store_config.home, tiny_model), modulator=replace(LEARNED, exploration=0.5, min_decisions=100)
    )
    fingerprint = base.info.fingerprint
    await decisions(store, base, 100, (0.0, 1.0, 0.0), documents=[0])
    waiting = await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    assert "so the policy waits for other documents" in waiting and not await store.policies.versions(fingerprint)
    await decisions(store, base, 600, (0.0, 1.0, 0.0))
    assert "published" in await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    await decisions(store, base, 500, (0.0, 1.0, 0.0), documents=range(5, 25))
    await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    second, first = await store.policies.versions(fingerprint)
    assert second.parent == first.id
    uri = {str(id): one.uri for one in await store.policies.decided(fingerprint) for id in one.suggestions}
    parents, own = (read_manifest(config.home / version.folder).data for version in (first, second))
    learned = {uri[id] for id in (*parents["learned"], *own["learned"])}
    judged = {uri[id] for id in own["held_out"]}
    assert judged and learned and not judged & learned


async def test_each_further_try_takes_as_many_new_decisions_as_the_first(
    store: Store, store_config: Config, base: Base, tiny_model: Path
) -> None:
    config = replace(
        config_for(store_config.home, tiny_model), modulator=replace(LEARNED, exploration=0.5, min_decisions=60)
    )
    fingerprint = base.info.fingerprint
    nothing_better = (2.0, 2.0, 2.0)
    await decisions(store, base, 80, nothing_better)
    assert "rejected" in await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    await decisions(store, base, 59, nothing_better)
    told = await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    assert told == "modulator: 59 new decisions with an outcome; 60 are needed, so the policy waits."
    assert len(await store.policies.versions(fingerprint)) == 1
    await decisions(store, base, 1, nothing_better)
    assert "from 140 decisions" in await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)


async def test_new_decisions_are_counted_also_where_old_ones_have_gone(
    store: Store, store_config: Config, base: Base, tiny_model: Path
) -> None:
    settings = replace(LEARNED, exploration=0.5, min_decisions=60)
    config = replace(config_for(store_config.home, tiny_model), modulator=settings)
    await decisions(store, base, 80, (2.0, 2.0, 2.0))
    await policy_learning.learn(store, config, base.info.fingerprint, new_id(), NEVER)
    await decisions(store, base, 60, (2.0, 2.0, 2.0))
    known = await store.policies.versions(base.info.fingerprint)
    newest = await store.policies.decided(base.info.fingerprint, limit=80)  # as where more are kept than are read
    assert len(newest) == known[0].metrics["decisions"]
    assert policy_learning.waits_for(newest, known, settings) == ""
    assert "59 new" in policy_learning.waits_for(newest[1:], known, settings)


@pytest.mark.parametrize("which", ["parent", "grandparent"])
async def test_a_policy_begins_anew_where_the_one_in_use_has_learned_from_what_judges(
    store: Store, store_config: Config, base: Base, tiny_model: Path, which: str
) -> None:
    config = replace(
        config_for(store_config.home, tiny_model), modulator=replace(LEARNED, exploration=0.5, min_decisions=100)
    )
    fingerprint = base.info.fingerprint
    await decisions(store, base, 700, (0.0, 1.0, 0.0))
    assert "published" in await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    (first,) = await store.policies.versions(fingerprint)
    in_use = first
    if which == "grandparent":
        in_use = replace(first, id=new_id(), parent=first.id, folder=f"policies/{new_id()}")
        folder = config.home / in_use.folder
        shutil.copytree(config.home / first.folder, folder)
        manifest = read_manifest(folder)
        write_manifest(folder, replace(manifest, version_id=in_use.id, parent=first.id))
        await store.policies.insert(in_use)
    folder = config.home / first.folder  # as one from before the halves went by a hash
    manifest = read_manifest(folder)
    both = [*manifest.data["learned"], *manifest.data["held_out"]]
    write_manifest(folder, replace(manifest, data={**manifest.data, "learned": both}))

    await decisions(store, base, 100, (0.0, 1.0, 0.0))
    await policy_learning.learn(store, config, fingerprint, new_id(), NEVER)
    made = (await store.policies.versions(fingerprint))[0]
    assert made.id != in_use.id and made.parent is None
    assert read_manifest(config.home / made.folder).parent is None
    halfway = (first.metrics["before"] + first.metrics["after"]) / 2
    assert made.metrics["before"] > halfway, "it is held against the one in use all the same"


async def test_a_decision_is_read_back_as_it_was_logged(store: Store) -> None:
    made = Modulation(new_id(), new_id(), CONTEXTS, (0.5, 0.0, 0.5), 0.125, (0.25, -1.5))
    told = make_suggestion(modulation=made, contexts=contexts.of(make_place(), ""))
    await store.write([told])
    assert await store.suggestion(told.id) == told
