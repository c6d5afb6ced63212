"""The cerebellum with a real PostgreSQL, real (tiny) models and the real sleeping process.

It learns, is judged, served and swapped in, answers alone, and drafts without changing a token; no base matters to it.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from npllm.assist import writing
from npllm.assist.resources import Resources
from npllm.assist.worker import Desk
from npllm.config import CerebellumConfig, Config
from npllm.memory.store import Store
from npllm.models import plastic
from npllm.models.base import Base, fingerprint
from npllm.models.cerebellum import MOST_TOKENS, Calibration, Cerebellum
from npllm.models.decoding import complete
from npllm.models.drafting import Costs, Drafting, ModelDrafter, PromptLookup, Source, set_up
from npllm.models.fim import PromptBuilder, PromptParts, choose
from npllm.models.manifest import read_manifest
from npllm.models.stops import StopRules
from npllm.models.torch_engine import TorchEngine
from npllm.sleep import archive, gathering
from npllm.sleep.cerebellum_gathering import Origin, gather
from npllm.sleep.confidence import Unseen
from npllm.sleep.protocol import Ending, Phase
from npllm.sleep.report import CerebellumReport
from npllm.sleep.saying import Saying
from npllm.sleep.supervisor import Ended, Sleeper
from npllm.types import Place, VersionState, new_id
from tests.fixtures_sleep import MORNING, config_for, experience, from_source
from tests.tiny import PRACTICE, make_tiny_model

NEVER = threading.Event()
SHARE = 0.8  # lambda: much, since the base here knows nothing


@pytest.fixture(scope="module")
def sister(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller model with the tiny base's tokens, as the starter's small sister."""
    folder = make_tiny_model(tmp_path_factory.mktemp("sister"), seed=3, hidden=32)
    (folder / "manifest.json").write_text('{"preset": "the shipped sister has a manifest of its own kind"}')
    return folder


@pytest.fixture
def config(home: Path, tiny_model: Path, sister: Path) -> Config:
    made = config_for(home, tiny_model, epochs=1)
    small = CerebellumConfig(
        model=str(sister), learning_rate=1e-2, context_tokens=192, time_share=0.5, mas_lambda=0.1, plastic=True
    )
    return replace(made, cerebellum=small)


async def sleep(config: Config, leave_in: Phase | None = None) -> Ended:
    """One sleep; sent away as soon as the cerebellum is in a phase."""
    enough = asyncio.Event()
    sleeper = Sleeper(
        config,
        on_progress=lambda p: enough.set() if p.context == "cerebellum" and p.phase is leave_in and p.step else None,
    )
    await sleeper.start(new_id(), "test")
    life, waiting = asyncio.create_task(sleeper.wait()), asyncio.create_task(enough.wait())
    await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        await sleeper.wake("test")
    waiting.cancel()
    ended = await life
    assert ended is not None
    return ended


@pytest.mark.slow
async def test_it_sleeps_is_published_and_serves_and_no_base_matters(
    store: Store, config: Config, sister: Path, tmp_path: Path
) -> None:
    again = [experience(n, path="m.py", prefix=f"x = {n}\n", final="self.value = value") for n in range(1000, 1006)]
    morning = [*from_source(40), *again]
    await store.write(morning)
    ended = await sleep(config, leave_in=Phase.LEARNING)
    assert ended.ending is Ending.INTERRUPTED, ended
    assert not await store.cerebellum.versions()
    assert await store.adapter_versions(), "the contexts were done before"
    ended = await sleep(config)
    assert ended.ending is Ending.DONE, ended
    assert ended.report is not None and ended.report.cerebellum is not None
    made = ended.report.cerebellum
    assert made.published, made
    assert made.gain > 0.02 and made.new + made.held_out <= len(morning)
    assert made.nll_plastic is not None and made.nll_zeroed is not None
    assert made.beside_before and made.beside_after and made.beside_after <= made.beside_before + 1e-9
    assert "cerebellum: published" in ended.report.text and "Beside the base they went from" in ended.report.text
    (version,) = await store.cerebellum.versions()
    assert (version.state, str(version.id)) == (VersionState.PUBLISHED, made.version)
    record = archive.newest(config.home)
    assert record is not None and record.report == ended.report and record.run != record.id, "it was gone on with"
    told = record.details_of("cerebellum")
    assert [point.step for point in told.curve] == list(range(1, made.steps + 1)), "over both parts of the sleep"
    assert sum(source.texts for source in told.sources) == made.new + made.old
    wrote = {str(item.id): item.final_text for item in morning}
    assert len(told.quotes) == min(5, made.held_out) and all(one.wrote == wrote[one.id] for one in told.quotes)
    assert {quote.id for quote in told.quotes} <= set(read_manifest(config.home / version.folder).data["held_out"])
    assert "(cerebellum), drawn by chance" in record.text and "Learned from (cerebellum):" in record.text
    manifest = read_manifest(config.home / version.folder)
    learned, held_out = set(manifest.data["learned"]), set(manifest.data["held_out"])
    assert learned and held_out and learned.isdisjoint(held_out)
    assert learned | held_out <= {str(item.id) for item in morning}
    assert manifest.data["project_files"] == []
    assert (config.home / version.folder / "importance.safetensors").is_file()
    assert not list(config.cerebellum_dir.glob(".tmp-*")) and not list(config.checkpoints_dir.iterdir())

    # The patterns that it knows; the frequent one was written six times.
    known = await store.cerebellum.patterns(language="python")
    assert all(pattern.count >= 2 for pattern in known)
    assert ("self.value = value", 6) in [(pattern.text, pattern.count) for pattern in known] or made.patterns == 0

    # The version serves as the model that was judged; it is the sister, changed.
    small = Cerebellum.load(config.home / version.folder, context_tokens=192)
    assert small.version_id == version.id
    before, after = Base.load(str(sister), shared=False).model.state_dict(), small.base.model.state_dict()
    assert before.keys() == after.keys()
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])

    # Another base leaves it alone: nothing is new for it, and it is loaded beside that base.
    other = make_tiny_model(tmp_path / "other", seed=9, vocab=500)
    changed = replace(config, base=replace(config.base, model=str(other)))
    ended = await sleep(changed)
    assert ended.ending is Ending.DONE, ended
    assert ended.report is not None and ended.report.cerebellum is not None
    assert "they wait" in ended.report.cerebellum.text
    assert len(await store.cerebellum.versions()) == 1
    resources = await served(changed)
    try:
        desk = resources.worker._desk
        assert desk is not None and desk.cerebellum is not None
        assert desk.cerebellum.version_id == version.id
        assert desk.drafting is not None
        assert [source.name for source in desk.drafting.sources] == ["prompt lookup"], "other tokens: no drafts by it"
        # A damaged version is not served: the model as it came is, and the problem is told.
        weights = config.home / version.folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        resources._small._serving = None
        await resources._try_refresh()
        assert "sha256 differs" in resources.problems["cerebellum"]
        desk = resources.worker._desk
        assert desk is not None and desk.cerebellum is not None and desk.cerebellum.version_id is None
    finally:
        await resources.close()


@pytest.mark.slow
async def test_what_it_was_judged_by_stays_apart_and_judges_it_again(store: Store, config: Config) -> None:
    config = replace(config, cerebellum=replace(config.cerebellum, plastic=False, mas_lambda=0.0))
    await store.write(from_source(40))
    ended = await sleep(config)
    assert ended.report is not None and ended.report.cerebellum is not None and ended.report.cerebellum.published
    (first,) = await store.cerebellum.versions()
    held_out = set(read_manifest(config.home / first.folder).data["held_out"])
    assert {str(item.id) for item in await store.replay.apart("cerebellum", limit=100)} == held_out
    drawn = await gathering.drawn(
        store, config, first.origin, "cerebellum", MORNING + timedelta(days=1), "any", 1000, (), everywhere=True
    )
    assert {str(one.experience.id) for one in drawn}.isdisjoint(held_out) and len(drawn) == 40 - len(held_out)
    assert len({one.priority for one in drawn}) > 10, "what surprises it still was measured"

    await store.write(from_source(40, offset=1, start=MORNING + timedelta(days=1)))
    await sleep(config)
    second = (await store.cerebellum.versions())[0]
    assert second.id != first.id
    data = read_manifest(config.home / second.folder).data
    assert set(data["learned"]).isdisjoint(held_out), "neither learned nor replayed"
    assert set(data["judged_again"][str(first.id)]) == held_out
    assert {f"slice.{first.id}.nll", f"slice.{first.id}.bytes"} <= second.metrics.keys()
    assert data["calibration"]["projects"] == ["/p"], "where it has its say"

    in_use = next(one for one in await store.cerebellum.versions() if one.state is VersionState.PUBLISHED)
    await store.cerebellum.pin(in_use.id, True)
    await store.write(from_source(40, offset=2, start=MORNING + timedelta(days=2)))
    told = await gather(store, config, Origin(Path(config.cerebellum.model), first.origin), new_id(), NEVER)
    assert isinstance(told, CerebellumReport) and "is pinned" in told.reason


async def served(config: Config) -> Resources:
    """A server's resources, with the base, the store and the published cerebellum there."""

    async def connected(_: Store) -> None:
        return None

    resources = Resources(config, lambda: None, lambda _: None, connected, connected)
    resources.start()
    async with asyncio.timeout(120):
        while resources._small.version is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return resources


async def test_a_version_that_is_announced_is_swapped_in_and_gives_reflexes(
    store: Store, config: Config, practised_model: Path, home: Path
) -> None:
    """The practised model, published as a cerebellum that may answer however unsure it is."""
    settings = replace(
        config,
        base=replace(config.base, model=str(practised_model), context_tokens=512),
        cerebellum=CerebellumConfig(model=str(practised_model)),
    )
    publish = make_version(settings, practised_model, Calibration(1e-12, 50, 20, 18, projects=("/w",)))
    resources = Resources(
        settings, lambda: None, lambda _: None, lambda _: asyncio.sleep(0), lambda _: asyncio.sleep(0)
    )
    resources.start()
    at = PRACTICE.index("return width")
    place = Place("file:///w/shapes.py", "shapes.py", "python", "/w", at)
    request = writing.Request(place, PRACTICE[:at], PRACTICE[PRACTICE.index("\n", at) :], (), settings)
    try:
        async with asyncio.timeout(120):
            while resources.store is None or resources._small._serving is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        made = await resources.worker.run(lambda desk: writing.suggest(desk, request, NEVER, "inline"))
        assert made is None or made.source == "model", (
            "before it has slept it does not know what its confidence is worth"
        )
        assert resources.versions == ()
        await store.cerebellum.publish(replace(publish, origin=fingerprint(practised_model)), [])
        async with asyncio.timeout(60):
            while resources.versions != (publish.id,):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        made = await resources.worker.run(lambda desk: writing.suggest(desk, request, NEVER, "inline"))
        assert made is not None
        assert made.source == "reflex" and made.text and "\n" not in made.text
        assert made.adapter_versions == (publish.id,)
        assert made.latency_ms > 0
        reflex = made.text
        await store.write([made])
        assert await store.cerebellum.reflexes() == 1

        def asked(**changes: object) -> writing.Request:
            return replace(request, config=replace(settings, cerebellum=replace(settings.cerebellum, **changes)))

        for off in (asked(reflex=False), asked(enabled=False), asked(min_confidence=1.0)):
            made = await resources.worker.run(lambda desk, r=off: writing.suggest(desk, r, NEVER, "inline"))  # type: ignore[misc]
            assert made is None or made.source == "model"
        elsewhere = replace(request, place=replace(place, project="/elsewhere"))
        made = await resources.worker.run(lambda desk: writing.suggest(desk, elsewhere, NEVER, "inline"))
        assert made is None or made.source == "model", "where it learned nothing, nobody knows what it is worth"
        by_hand = replace(elsewhere, config=asked(min_confidence=1e-12).config)
        made = await resources.worker.run(lambda desk: writing.suggest(desk, by_hand, NEVER, "inline"))
        assert made is not None and made.source == "reflex", "a confidence set by hand counts everywhere"
        unwanted = replace(request, unwanted=lambda text: text == reflex)
        made = await resources.worker.run(lambda desk: writing.suggest(desk, unwanted, NEVER, "inline"))
        assert made is None or made.source == "model", "what is not wanted there is left to the base"
        cancelled = threading.Event()
        cancelled.set()
        assert await resources.worker.run(lambda desk: writing.suggest(desk, request, cancelled, "inline")) is None
    finally:
        await resources.close()


async def test_it_has_its_say_in_what_the_base_writes_once_a_sleep_found_that_good(
    store: Store, config: Config, tiny_model: Path, practised_model: Path
) -> None:
    """A base that knows nothing of the practice, beside a cerebellum that does."""
    settings = replace(
        config,
        base=replace(config.base, model=str(tiny_model), context_tokens=512),
        memory=replace(config.memory, continuations=False),
        cerebellum=CerebellumConfig(model=str(practised_model), reflex=False),
    )
    version = make_version(
        settings, practised_model, Calibration(None, 50, 0, 0, share=SHARE, base=base_of(tiny_model), projects=("/w",))
    )
    at = PRACTICE.index("return width")
    end = PRACTICE.index("\n", at)
    place = Place("file:///w/shapes.py", "shapes.py", "python", "/w", at)
    request = writing.Request(place, PRACTICE[:at], PRACTICE[end:], (), settings)
    alone = replace(request, config=replace(settings, cerebellum=replace(settings.cerebellum, blend=False)))
    parts, text = PromptParts(place.path, request.prefix, request.suffix), PRACTICE[at:end]

    def scored(desk: Desk, request: writing.Request) -> float:
        return writing.score(desk, request, text, NEVER).nats

    resources = Resources(
        settings, lambda: None, lambda _: None, lambda _: asyncio.sleep(0), lambda _: asyncio.sleep(0)
    )
    resources.start()
    try:
        async with asyncio.timeout(120):
            while resources.store is None or resources._small._serving is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        before = await resources.worker.run(lambda desk: scored(desk, request))
        await store.cerebellum.publish(replace(version, origin=fingerprint(practised_model)), [])
        async with asyncio.timeout(60):
            while resources.versions != (version.id,):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        after, off = await resources.worker.run(lambda desk: (scored(desk, request), scored(desk, alone)))
        assert off == pytest.approx(before, rel=1e-5), "before it had slept it said nothing"
        assert after == pytest.approx(await resources.worker.run(lambda desk: by_hand(desk, parts, text)), rel=1e-4)
        assert after < 0.8 * off
        desk = resources.worker._desk
        assert desk is not None and desk.cerebellum is not None and desk.cerebellum.calibration is not None
        elsewhere = replace(desk.cerebellum.calibration, base="another base's")
        ours, desk.cerebellum.calibration = desk.cerebellum.calibration, elsewhere
        assert await resources.worker.run(lambda desk: scored(desk, request)) == pytest.approx(off, rel=1e-5)
        desk.cerebellum.calibration = ours
        abroad = replace(request, place=replace(place, project="/nobody/s"))
        assert await resources.worker.run(lambda desk: scored(desk, abroad)) == pytest.approx(off, rel=1e-5), (
            "of that project it has learned nothing"
        )
        made, other = await resources.worker.run(
            lambda desk: [writing.suggest(desk, one, NEVER, "inline") for one in (request, alone)]
        )
        assert made is not None and made.source == "model" and made.adapter_versions == (version.id,)
        assert other is None or (other.adapter_versions == () and other.text != made.text)
    finally:
        await resources.close()


def base_of(model: Path) -> str:
    return Base.load(str(model), shared=False).info.fingerprint


def by_hand(desk: Desk, parts: PromptParts, text: str) -> float:
    """Nats of a text under the base and the cerebellum's say, each reading the whole place anew."""
    assert desk.cerebellum is not None
    answer = desk.builder.encode_middle(text)
    rows = []
    for model, builder, reserve in (
        (desk.base.model, desk.builder, 96),
        (desk.cerebellum.base.model, desk.cerebellum.builder, MOST_TOKENS),
    ):
        ids = [*builder.build(parts, reserve=reserve).ids, *answer]
        rows.append(model(torch.tensor([ids])).logits[0, -len(answer) - 1 : -1].softmax(-1))
    return -float(together(*rows)[range(len(answer)), answer].log().sum())


def together(base: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """Probabilities [T, V] of the log-linear mixture of two models' probabilities; of the first token the base's."""
    product = base ** (1 - SHARE) * small**SHARE
    return torch.cat([base[:1], (product / product.sum(-1, keepdim=True))[1:]])


def test_what_its_say_is_worth_is_asked_as_it_will_write(tiny_model: Path, practised_model: Path) -> None:
    base = Base.load(str(tiny_model), shared=False)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 512)
    small = Cerebellum(Base.load(str(practised_model), shared=False), context_tokens=256)
    at = PRACTICE.index("return width")
    place = Unseen("/w", "python", "shapes.py", PRACTICE[:at], PRACTICE[at + 6 :], "return")
    saying = Saying(base, builder, None, NEVER)
    (alone,), (beside,) = saying.costs([(small, 0.0), (small, SHARE)], [place])
    answer = builder.encode_middle("return")
    rows = []
    for model, reads in ((base.model, builder), (small.base.model, small.builder)):
        ids = [*reads.build(PromptParts(*place[2:5]), reserve=len(answer)).ids, *answer]
        rows.append(model(torch.tensor([ids])).logits[0, -len(answer) - 1 : -1].softmax(-1))
    at_answer = (range(len(answer)), answer)
    assert alone == pytest.approx(-float(rows[0][at_answer].log().sum()), rel=1e-4)
    assert beside == pytest.approx(-float(together(*rows)[at_answer].log().sum()), rel=1e-4)
    assert saying.utf8_bytes(place) == len("return")


def make_version(config: Config, model: Path, calibration: Calibration):  # type: ignore[no-untyped-def]
    """A version's folder, as a sleep writes it, with a model's own weights."""
    import shutil
    from datetime import UTC, datetime

    from npllm.models.manifest import Manifest, sha256_file, write_manifest
    from npllm.types import CerebellumVersion

    id = new_id()
    folder = config.cerebellum_dir / str(id)
    shutil.copytree(model, folder)
    digest = sha256_file(folder / "model.safetensors")
    now = datetime.now(UTC)
    data = {"calibration": calibration.to_json()}
    write_manifest(folder, Manifest(id, "cerebellum", "origin", None, new_id(), digest, now, data))
    return CerebellumVersion(
        *(id, "origin", None, new_id(), f"cerebellum/{id}", digest, VersionState.PUBLISHED, "", {}, now)
    )


async def test_there_is_none_is_said_and_everything_else_goes_on(store: Store, config: Config) -> None:
    missing = replace(config, cerebellum=replace(config.cerebellum, model=str(config.home / "nothing")))
    await store.write(from_source(40))
    ended = await sleep(missing)
    assert ended.ending is Ending.DONE, ended
    assert ended.report is not None and ended.report.cerebellum is not None
    assert "nothing" in ended.report.cerebellum.text
    assert await store.adapter_versions()
    off = replace(config, cerebellum=replace(config.cerebellum, enabled=False))
    await store.write(from_source(40, start=MORNING + timedelta(days=1), offset=1))
    ended = await sleep(off)
    assert ended.report is not None and ended.report.cerebellum is None
    assert not await store.cerebellum.versions()


# -- drafts ----------------------------------------------------------------------------------------------------------


def places(builder: PromptBuilder) -> list[tuple[tuple[int, ...], StopRules]]:
    found = []
    for at in range(0, len(PRACTICE) - 1, 7):
        prefix, suffix = PRACTICE[:at], PRACTICE[at:][PRACTICE[at:].index("\n") :]
        ids = builder.build(PromptParts("shapes.py", prefix, suffix), reserve=64).ids
        found.append((ids, StopRules(prefix, suffix, end_ids=builder.end_ids)))
    return found


@pytest.mark.parametrize("name", ["prompt lookup", "itself", "a stranger"])
def test_drafts_change_nothing_in_what_the_base_writes(name: str, practised_model: Path, sister: Path) -> None:
    base = Base.load(str(practised_model), device="cpu", threads=1)
    builder = PromptBuilder(base.tokenizer, choose(base.tokenizer), 512)
    plain, engine = TorchEngine(base), TorchEngine(base)
    drafter = {
        "prompt lookup": PromptLookup,
        "itself": lambda: ModelDrafter(TorchEngine(base)),
        "a stranger": lambda: ModelDrafter(TorchEngine(Base.load(str(sister), device="cpu", shared=False))),
    }[name]()
    source = Source(name, drafter, Costs(1.0, 1.0, 0.0))
    drafts = Drafting([source])
    guessed = agreed = 0

    class Counting:
        def guess(self, *args):  # type: ignore[no-untyped-def]
            return drafts.guess(*args)

        def judged(self, many: int, right: int) -> None:
            nonlocal guessed, agreed
            guessed, agreed = guessed + many, agreed + right
            drafts.judged(many, right)

    for ids, stop in places(builder):
        wanted = complete(plain, ids, stop=stop, max_new_tokens=24, cancel=NEVER)
        found = complete(engine, ids, stop=stop, max_new_tokens=24, cancel=NEVER, drafts=Counting())
        assert (found.text, found.token_ids, found.finished) == (wanted.text, wanted.token_ids, wanted.finished)
        assert found.mean_logprob == pytest.approx(wanted.mean_logprob, abs=1e-4)
    assert guessed > 0
    if name == "itself":
        assert agreed > 0.9 * guessed, "a model agrees with itself"
    if name == "a stranger":
        assert agreed < 0.5 * guessed


def test_a_source_rests_where_it_does_not_pay_and_is_tried_again() -> None:
    never_pays = Source("too dear", PromptLookup(), Costs(step=1.0, verify=2.0, draft=4.0))
    assert never_pays.costs.needed == 5.0 and not never_pays.pays
    source = Source("a draft", PromptLookup(), Costs(step=1.0, verify=2.5, draft=0.0))
    for _ in range(100):
        source.judged(2)
    assert source.pays, "2 right ones are more than 1.5"
    for _ in range(100):
        source.judged(0)
        if source.resting:
            break
    assert not source.pays
    drafts = Drafting([source])
    prompt = (5, 6, 7, 8, 9, 5, 6, 7)
    assert drafts.guess(prompt, (), 10, NEVER) == ()
    source.resting = 1
    assert drafts.guess(prompt, (), 10, NEVER) == ()
    assert list(drafts.guess(prompt, (), 10, NEVER)) == [8, 9, 5, 6], "what followed the same three tokens before"
    assert drafts.guess(prompt, (), 1, NEVER) == (), "one token needs no draft"


def test_what_drafting_costs_is_measured_and_leaves_nothing_behind(practised_model: Path, sister: Path) -> None:
    base = Base.load(str(practised_model), device="cpu", threads=1)
    small = Cerebellum(Base.load(str(sister), device="cpu", shared=False), context_tokens=256)
    assert small.drafter(Base.load(str(sister), device="cpu").tokenizer) is not None
    engine = TorchEngine(base)
    with torch.inference_mode():
        drafts = set_up(engine, small.drafter(base.tokenizer))
    assert engine.length == 0
    assert [source.name for source in drafts.sources] == ["prompt lookup", "the cerebellum"]
    lookup, own = drafts.sources
    assert own.costs.needed > lookup.costs.needed > -1


# -- the plastic layer, awake ------------------------------------------------------------------------------------------


def test_the_plastic_layer_computes_in_the_models_own_numbers(tiny_model: Path) -> None:
    """As on a GPU, where a large cerebellum is in bfloat16 and the layer comes from a file in float32."""
    model = Base.load(str(tiny_model), device="cpu", threads=1, shared=False).model.to(torch.bfloat16)
    width = model.config.hidden_size
    plastic.attach(model, plastic.of({name: torch.eye(width) for name in ("w", "alpha", "hebb")}))
    with torch.inference_mode():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.dtype == torch.bfloat16


def test_the_plastic_layer_acts_the_same_in_both_forwards_and_can_be_taken_out(tiny_model: Path) -> None:
    base = Base.load(str(tiny_model), device="cpu", threads=1, shared=False)
    ids = list(range(40, 90))
    width = base.model.config.hidden_size
    with torch.inference_mode():
        plain = TorchEngine(base).prefill(ids, NEVER)
        tensors = {name: torch.randn(width, width) for name in ("w", "alpha", "hebb")}
        layer = plastic.of(tensors)
        plastic.attach(base.model, layer)
        lean, whole = TorchEngine(base).prefill(ids, NEVER), TorchEngine(base, lean=False).prefill(ids, NEVER)
        torch.testing.assert_close(lean, whole, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(lean, plain, atol=1e-2)
        plastic.attach(base.model, plastic.of(tensors, zeroed=True))
        zeroed = TorchEngine(base).prefill(ids, NEVER)
        assert not torch.allclose(lean, zeroed, atol=1e-2), "the trace acts"
        plastic.attach(base.model, None)
        torch.testing.assert_close(TorchEngine(base).prefill(ids, NEVER), plain)
