"""The sleeping process with a real PostgreSQL, a real model and real signals: it consolidates, goes when told, and
whatever kills it, nothing half-done is ever published and the next sleep goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from peft import LoraConfig

from npllm.config import Config
from npllm.memory.store import Store
from npllm.models.adapters import AdapterSet
from npllm.models.base import Base
from npllm.models.manifest import read_manifest
from npllm.sleep import archive
from npllm.sleep.mending import settle
from npllm.sleep.protocol import Ending, Message, Phase, Progress, decode
from npllm.sleep.report import Report, Verdict
from npllm.sleep.scheduler import Scheduler
from npllm.sleep.supervisor import Ended, Sleeper, SleeperState
from npllm.types import ConsolidationState, Decision, OutcomeKind, ServerState, VersionState, new_id
from tests.fixtures_sleep import (
    MORNING,
    PYTHON,
    SOURCE,
    config_for,
    experience,
    from_source,
    start_child,
    write_settings,
)

GONE_S = 2.0 + 1.0  # the promise, and what a busy test machine may add


@pytest.fixture
def config(home: Path, tiny_model: Path) -> Config:
    return config_for(home, tiny_model)


async def sleep(config: Config, until: Callable[[Progress], bool] = lambda _: False) -> Ended:
    """One sleep through the supervisor, sent away when `until` says so."""
    enough = asyncio.Event()
    sleeper = Sleeper(config, on_progress=lambda progress: enough.set() if until(progress) else None)
    await sleeper.start(new_id(), "test")
    life = asyncio.create_task(sleeper.wait())
    waiting = asyncio.create_task(enough.wait())
    await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if waiting.done():
        began = time.monotonic()
        await sleeper.wake("test")
        assert time.monotonic() - began < GONE_S
    waiting.cancel()
    ended = await life
    assert ended is not None
    assert sleeper.state is SleeperState.ABSENT
    return ended


async def until(true: Callable[[], bool], within_s: float = 120.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110  what is awaited has no event: a process, a state
            await asyncio.sleep(0.02)


def niceness(pid: int) -> set[int]:
    """Of a process's threads."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            found.add(os.getpriority(os.PRIO_PROCESS, int(thread.name)))
    return found


def io_classes(pid: int) -> set[int]:
    """Of a process's threads."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(psutil.NoSuchProcess):
            found.add(psutil.Process(int(thread.name)).ionice().ioclass)
    return found


def log_of(config: Config) -> str:
    file = config.home / "logs" / "sleep.log"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def leftovers(config: Config) -> list[Path]:
    return [*config.adapters_dir.glob(".tmp-*"), *config.checkpoints_dir.glob("*")]


async def consistent(store: Store, config: Config) -> None:
    """What is published is whole, loads, and is the only one of its context."""
    published = await store.adapter_versions(state=VersionState.PUBLISHED)
    assert len({version.context for version in published}) == len(published)
    if published:
        base = Base.load(config.base.model, device="cpu", threads=1)
        adapters = AdapterSet(base)
        for version in published:
            manifest = adapters.load(version.id, config.home / version.folder, version.context)
            assert manifest.sha256 == version.sha256


async def test_a_morning_is_consolidated_then_the_next_day_builds_on_it(store: Store, config: Config) -> None:
    morning = from_source(40)
    unwanted = replace(
        experience(5000, path="types.py", final="", suggested="raise SystemExit(1)", decision=Decision.AVOID),
        outcome=OutcomeKind.DELETED,
    )
    await store.write([*morning, unwanted])
    heard: list[str] = []
    announced = asyncio.Event()
    await store.listen(lambda id: (heard.append(id), announced.set()))  # type: ignore[func-returns-value]
    steps: list[Progress] = []
    sleeper = Sleeper(config, on_progress=steps.append)
    run_id = new_id()
    await sleeper.start(run_id, "test")
    ended = await sleeper.wait()
    assert ended is not None
    assert ended.ending is Ending.DONE, (ended, log_of(config))

    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == [Phase.GATHERING, Phase.PREPARING, Phase.LEARNING, Phase.JUDGING, Phase.PUBLISHING]
    assert [step.share for step in steps] == sorted(step.share for step in steps)
    learning = [step for step in steps if step.phase is Phase.LEARNING and step.step]
    assert learning[-1].step == learning[-1].total
    assert all(step.loss and step.tokens_per_s for step in learning)
    assert any(step.seconds_left is not None for step in learning)

    (version,) = await store.adapter_versions()
    assert (version.state, version.context, version.parent) == (VersionState.PUBLISHED, PYTHON, None)
    assert version.consolidation_id == run_id
    await asyncio.wait_for(announced.wait(), 10.0)
    assert str(version.id) in heard  # a cerebellum tells of itself, too
    await consistent(store, config)
    manifest = read_manifest(config.home / version.folder)
    held_out, learned = set(manifest.data["held_out"]), set(manifest.data["learned"])
    assert held_out.isdisjoint(learned)
    assert held_out | learned | set(manifest.data["validated"]) == {str(item.id) for item in morning}
    assert manifest.data["negatives"] == [str(unwanted.id)], "what is to be avoided is learned from, as such"

    row = await store.last_consolidation()
    assert row is not None
    assert (row.id, row.state) == (run_id, ConsolidationState.DONE)
    assert row.ended_at is not None
    report = Report.from_json(row.report)
    assert report == ended.report
    (part,) = report.contexts
    assert (part.verdict, part.new, part.held_out) == (Verdict.PUBLISHED, 32, 8)
    assert part.gain == pytest.approx(1 - part.nll_after / part.nll_before)
    assert part.gain > 0
    assert part.gain_low <= part.gain <= part.gain_high
    assert part.seconds > 0
    assert part.tokens_per_s > 0
    assert leftovers(config) == []

    record = archive.newest(config.home)
    assert record is not None and (record.id, record.report) == (run_id, report)
    told = record.details_of(PYTHON)
    assert [point.step for point in told.curve] == list(range(1, part.steps + 1))
    assert {quote.id for quote in told.quotes} <= held_out and len(told.quotes) == 5
    wrote = {str(item.id): item.final_text for item in morning}
    assert all(quote.wrote == wrote[quote.id] for quote in told.quotes)
    assert sum(source.texts for source in told.sources) == part.new == 32
    assert f"{version.id}" in archive.page_of(config.home, record).read_text(encoding="utf-8")

    # Nothing is new now.
    again = await sleep(config)
    assert again.ending is Ending.NOTHING

    # The next day: on from that version, with old experiences among the new.
    await store.write(from_source(40, start=MORNING + timedelta(days=1), offset=1))
    ended = await sleep(config)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    newest, former = await store.adapter_versions()
    assert newest.parent == version.id == former.id
    assert ended.report is not None
    (part,) = ended.report.contexts
    assert part.old == pytest.approx(part.new * 3 / 7, abs=3)
    (old,) = [one for one in part.slices if one.name == str(version.id)]
    in_use = report.contexts[0].nll_after
    assert old.nll_before == pytest.approx(in_use, rel=1e-4), "the gate compares with the version in use"
    if newest.state is VersionState.PUBLISHED:
        assert former.state is VersionState.RETIRED
    await consistent(store, config)


@pytest.mark.parametrize("kl_weight", [0.0, 1.0])
async def test_the_projects_other_files_are_learned_general_code_rehearsed_and_an_adapter_keeps_its_shape(
    store: Store, config: Config, tmp_path: Path, kl_weight: float
) -> None:
    root = tmp_path / "work"
    shutil.copytree(SOURCE / "sleep", root / "other", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCE / "types.py", root / "types.py")
    morning = [replace(item, place=replace(item.place, project=str(root))) for item in from_source(40)]
    await store.write(morning)
    wide = replace(config, sleep=replace(config.sleep, layers="auto", project_share=0.4, rank=0, alpha=0, epochs=1))
    wide = replace(wide, sleep=replace(wide.sleep, general_share=0.2, kl_weight=kl_weight))
    ended = await sleep(wide)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    assert ended.report is not None
    (part,) = ended.report.contexts
    learned = len(morning) - part.held_out  # what validates is too little to be apart here
    assert part.passages == pytest.approx(learned * 0.4 / 0.6, abs=6)
    assert f"{part.passages} passages of {part.project_files} project files" in part.text
    assert part.rehearsed == pytest.approx((learned + part.passages) * 0.2 / 0.8, abs=2)
    assert f"and rehearsed {part.rehearsed} passages of general code" in part.text
    (version,) = await store.adapter_versions()
    manifest = read_manifest(config.home / version.folder)
    every = {tuple(pair) for pair in manifest.data["project_files"]}
    read = {(project, path) for project, path in every if project == str(root)}
    assert len(read) == part.project_files > 0
    assert {project for project, _ in every - read} == {sysconfig.get_path("stdlib")}, "what is rehearsed is named, too"
    assert all(path.startswith("other/") for _, path in read), "no file in which an experience lies"
    shape = LoraConfig.from_pretrained(str(config.home / version.folder))
    assert (shape.r, shape.lora_alpha, set(shape.target_modules)) == (64, 64, {"lm_head"})
    assert leftovers(config) == [], "the passages are gone with the checkpoint"
    if not kl_weight:
        return  # what follows is the same

    await store.write(from_source(40, start=MORNING + timedelta(days=1), offset=1))
    other = replace(config, sleep=replace(config.sleep, layers="all", rank=8, project_share=0.0))
    ended = await sleep(other)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    newest, former = await store.adapter_versions()
    shape = LoraConfig.from_pretrained(str(config.home / newest.folder))
    assert former.id == version.id
    assert (shape.r, set(shape.target_modules)) == (64, {"lm_head"}), "else what it knows would be lost"
    assert "in the shape of the version in use" in log_of(config)
    await consistent(store, config)


@pytest.mark.parametrize("written_files", [False, True])
async def test_of_a_project_whose_files_are_all_written_in_passages_are_learned_only_if_that_is_on(
    store: Store, config: Config, tmp_path: Path, written_files: bool
) -> None:
    root = tmp_path / "work"
    root.mkdir()
    for name in ("types.py", "config.py"):
        shutil.copy(SOURCE / name, root / name)
    await store.write([replace(item, place=replace(item.place, project=str(root))) for item in from_source(40)])
    ended = await sleep(
        replace(config, sleep=replace(config.sleep, project_share=0.4, epochs=1, written_files=written_files))
    )
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    assert ended.report is not None
    (part,) = ended.report.contexts
    (version,) = await store.adapter_versions()
    read = {tuple(pair) for pair in read_manifest(config.home / version.folder).data["project_files"]}
    if written_files:
        assert part.passages > 0 and {(str(root), name) for name in ("types.py", "config.py")} & read
    else:
        assert part.passages == 0 and not any(project == str(root) for project, _ in read)
    await consistent(store, config)


async def test_interrupted_twice_it_ends_as_if_it_had_slept_through(
    store: Store, config: Config, tmp_path: Path
) -> None:
    config = replace(config, sleep=replace(config.sleep, epochs=12, project_share=0.3, general_share=0.1))
    root = tmp_path / "work"
    shutil.copytree(SOURCE / "sleep", root, ignore=shutil.ignore_patterns("__pycache__"))
    await store.write([replace(item, place=replace(item.place, project=str(root))) for item in from_source(40)])
    for stop_at in (3, 20):
        ended = await sleep(config, lambda p, at=stop_at: p.phase is Phase.LEARNING and p.step >= at)  # type: ignore[misc]
        assert ended.ending is Ending.INTERRUPTED, (ended, log_of(config))
        row = await store.last_consolidation()
        assert row is not None
        assert row.state is ConsolidationState.INTERRUPTED
        assert not await store.adapter_versions()
        for file in root.glob("*.py"):  # the person has worked meanwhile: this sleep learns what it had read
            file.write_text("changed = True\n" * 100, encoding="utf-8")
    steps: list[int] = []

    def note(progress: Progress) -> bool:
        if progress.phase is Phase.LEARNING and progress.step:
            steps.append(progress.step)
        return False

    ended = await sleep(config, note)
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    assert ended.report is not None
    assert ended.report.parts == 3
    assert steps[0] > 20, "it goes on where it was, and does not begin anew"
    assert ended.report.contexts[0].passages > 0
    assert ended.report.contexts[0].rehearsed > 0
    record = archive.newest(config.home)
    assert record is not None
    drawn = [point.step for point in record.details_of(PYTHON).curve]
    assert drawn == list(range(1, ended.report.contexts[0].steps + 1)), "over all parts, each step once"
    (version,) = await store.adapter_versions()
    last = await store.last_consolidation()
    assert last is not None
    assert version.consolidation_id == last.id == row.id
    assert leftovers(config) == []
    await consistent(store, config)


async def killed(config: Config, when: Callable[[Message], bool]) -> None:
    """A child that is killed with SIGKILL at the first message that `when` is true of."""
    child = await start_child(config.home, new_id())
    assert child.stdout is not None
    while line := await child.stdout.readline():
        if when(decode(line.decode())):
            child.kill()
            break
    await child.wait()


async def test_killed_anywhere_nothing_half_done_is_published_and_the_next_sleep_goes_on(
    store: Store, config: Config
) -> None:
    config = replace(config, sleep=replace(config.sleep, epochs=4))
    write_settings(config)
    await store.write(from_source(40))
    points: list[Callable[[Message], bool]] = [
        lambda m: isinstance(m, Progress) and m.phase is Phase.PREPARING,
        lambda m: isinstance(m, Progress) and m.phase is Phase.LEARNING and m.step >= 12,
        lambda m: isinstance(m, Progress) and m.phase is Phase.JUDGING and m.step >= 5,
        lambda m: isinstance(m, Progress) and m.phase is Phase.PUBLISHING,
    ]
    first = None
    for point in points:
        await killed(config, point)
        await consistent(store, config)
        row = await store.last_consolidation()
        assert row is not None
        first = first or row.id
        assert row.id == first, "it goes on with the sleep that was killed"
    before = await store.adapter_versions()
    # As if killed between the folder's renaming and the row: a half-written folder, and a whole one that is no one's.
    (config.adapters_dir / ".tmp-half").mkdir(parents=True)
    ended = await sleep(config)
    row = await store.last_consolidation()
    assert row is not None
    assert row.id == first
    assert row.state is ConsolidationState.DONE, (ended, log_of(config))
    (version,) = await store.adapter_versions()
    assert version.state is VersionState.PUBLISHED
    assert version.id in {one.id for one in before} | {version.id}
    assert [path.name for path in config.adapters_dir.iterdir()] == [str(version.id)]
    assert leftovers(config) == []
    await consistent(store, config)


async def test_what_is_not_better_is_kept_as_rejected_with_its_reason(store: Store, config: Config) -> None:
    await store.write(
        [replace(item, context="language:go", place=replace(item.place, language="go")) for item in from_source(5)]
    )
    await store.write(from_source(40))
    ended = await sleep(replace(config, sleep=replace(config.sleep, learning_rate=0.0, epochs=1)))
    assert ended.ending is Ending.DONE, (ended, log_of(config))
    (version,) = await store.adapter_versions()
    assert version.state is VersionState.REJECTED
    assert "not likelier than before" in version.reason
    assert (config.home / version.folder / "adapter_model.safetensors").is_file()
    assert ended.report is not None
    verdicts = {part.context: part for part in ended.report.contexts}
    assert verdicts[PYTHON].verdict is Verdict.REJECTED
    assert verdicts["language:go"].verdict is Verdict.WAITING
    assert "8 with a text to learn are needed" in verdicts["language:go"].reason


async def test_one_trainer_at_a_time_and_it_does_not_outlive_its_server(store: Store, config: Config) -> None:
    await store.write(from_source(40))
    script = (
        "import asyncio, json, sys\n"
        "from pathlib import Path\n"
        "from npllm.config import Config, merge\n"
        "from npllm.sleep.supervisor import Sleeper\n"
        "from npllm.types import new_id\n"
        "async def main():\n"
        "    config = merge(Config(home=Path(sys.argv[1])), json.loads(sys.argv[2]), source='test')\n"
        "    sleeper = Sleeper(config, on_progress=lambda p: print(sleeper.pid, p.phase.value, flush=True))\n"
        "    await sleeper.start(new_id(), 'test')\n"
        "    await sleeper.wait()\n"
        "asyncio.run(main())\n"
    )
    from npllm.sleep.supervisor import settings_of

    slow = replace(config, sleep=replace(config.sleep, epochs=500, nice=2))
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(config.home), json.dumps(settings_of(slow))),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    while (line := await server.stdout.readline()) and b"learning" not in line:
        pass
    child = psutil.Process(int(line.split()[0]))
    assert child.nice() >= 2
    other = await sleep(config)
    assert other.ending is Ending.HELD
    assert "Another sleep" in other.text
    server.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, [child], GONE_S)
    assert not alive
    await server.wait()
    row = await store.last_consolidation()
    assert row is not None
    assert row.state in (ConsolidationState.INTERRUPTED, ConsolidationState.RUNNING)
    async with store.trainer_lock() as ours:
        assert ours


async def test_idle_it_falls_asleep_by_itself_and_a_keystroke_wakes_it(store: Store, config: Config) -> None:
    config = replace(config, sleep=replace(config.sleep, idle_s=0.8, min_experiences=20, epochs=500))
    problems: list[str] = []
    states: list[ServerState] = []
    scheduler = Scheduler(
        config,
        lambda: store,
        on_change=lambda: states.append(scheduler.state),
        on_problem=problems.append,
    )
    elsewhere = new_id()
    await store.write(from_source(19))
    scheduler.start()
    await asyncio.sleep(1.5)
    assert scheduler.state is ServerState.AWAKE, "too little is new"
    await store.write(from_source(40))
    await until(lambda: scheduler.state is ServerState.SLEEPING and scheduler.phase == "learning")
    assert scheduler.progress is not None
    assert "learning language:python" in scheduler.message
    pid = scheduler._sleeper.pid
    assert pid is not None
    if sys.platform == "linux":
        assert io_classes(pid) == {psutil.IOPRIO_CLASS_IDLE}, "every thread uses the disk when nobody else does"

    scheduler.activity()
    assert scheduler.state is ServerState.WAKING, "at once, while the child packs up"
    if sys.platform == "linux":  # it leaves the CPU to the person at once, and does not only promise to go
        await until(lambda: not psutil.pid_exists(pid) or niceness(pid) <= {19}, 0.5)
    await until(lambda: not psutil.pid_exists(pid), GONE_S)
    await until(lambda: scheduler.state is ServerState.AWAKE, 1.0)
    assert states[-1] is ServerState.AWAKE, "and it is told"

    # Idle again it goes on with the interrupted sleep; another window's activity ends that, too.
    await until(lambda: scheduler.state is ServerState.SLEEPING)
    row = await store.interrupted_consolidation()
    assert row is not None
    await store.heartbeat(elsewhere, MORNING.now(MORNING.tzinfo), True)
    await until(lambda: scheduler.state is not ServerState.SLEEPING, 1.0 + GONE_S)
    await store.end_session(elsewhere)

    # By hand, whatever the clock says.
    scheduler.configure(replace(config, sleep=replace(config.sleep, enabled=False)))
    assert await scheduler.sleep_now()
    assert not await scheduler.sleep_now()
    await asyncio.sleep(1.5)
    assert scheduler.state in (ServerState.DROWSY, ServerState.SLEEPING), "a veto ends no sleep"
    await scheduler.wake()
    assert scheduler.state is ServerState.AWAKE
    await scheduler.close()
    assert problems == []
    assert ServerState.SLEEPING in states


async def test_a_child_killed_in_the_middle_leaves_no_row_that_says_it_runs(store: Store, config: Config) -> None:
    await store.write(from_source(40))
    scheduler = Scheduler(replace(config, sleep=replace(config.sleep, epochs=500)), lambda: store)
    assert await scheduler.sleep_now()
    await until(lambda: scheduler.phase == "learning")
    pid = scheduler._sleeper.pid
    assert pid is not None
    row = await store.last_consolidation()
    assert row is not None and row.state is ConsolidationState.RUNNING
    await settle(store)
    row = await store.last_consolidation()
    assert row is not None and row.state is ConsolidationState.RUNNING, "it runs indeed"
    psutil.Process(pid).kill()
    await until(lambda: scheduler._sleeper.pid is None)
    await until(lambda: scheduler._settling is None)
    row = await store.last_consolidation()
    assert row is not None and row.state is ConsolidationState.INTERRUPTED
    await scheduler.close()


async def test_what_stands_against_sleeping_is_shown_and_ends_a_sleep_that_nobody_asked_for(
    store: Store, config: Config
) -> None:
    idle = replace(config, sleep=replace(config.sleep, idle_s=0.8, epochs=500))
    never = replace(idle, sleep=replace(idle.sleep, schedule=elsewhen()))
    scheduler = Scheduler(never, lambda: store)
    await store.write(from_source(40))
    scheduler.start()
    await until(lambda: "sleep.schedule" in scheduler.message)
    assert scheduler.message.startswith("Would sleep, but it is ")
    assert scheduler.state is ServerState.AWAKE
    scheduler.configure(idle)
    await until(lambda: scheduler.state is ServerState.SLEEPING)
    scheduler.configure(never)
    await until(lambda: scheduler.state is ServerState.AWAKE)
    assert await scheduler.sleep_now(), "by hand whatever the clock says"
    await until(lambda: scheduler.state is ServerState.SLEEPING)
    await asyncio.sleep(1.5)
    assert scheduler.state is ServerState.SLEEPING
    await scheduler.close()


def elsewhen() -> str:
    """A schedule that the present time is not in."""
    hour = datetime.now().astimezone().hour
    return f"{(hour + 10) % 24:02}:00-{(hour + 11) % 24:02}:00"


async def test_a_child_that_takes_too_much_memory_keeps_its_state_and_says_so(store: Store, config: Config) -> None:
    await store.write(from_source(40))
    ended = await sleep(replace(config, sleep=replace(config.sleep, max_memory_mb=150, epochs=500)))
    assert ended.ending is Ending.FAILED
    assert "sleep.max_memory_mb" in ended.text and "may take 150" in ended.text
    await settle(store)
    row = await store.last_consolidation()
    assert row is None or row.state is ConsolidationState.INTERRUPTED
    ended = await sleep(config)
    assert ended.ending is Ending.DONE, (ended, log_of(config))


async def test_a_window_that_closes_makes_nobody_sleep(store: Store, config: Config) -> None:
    config = replace(config, sleep=replace(config.sleep, idle_s=30.0))
    scheduler = Scheduler(config, lambda: store)
    elsewhere = new_id()
    await store.write(from_source(40))
    await store.heartbeat(elsewhere, MORNING.now(MORNING.tzinfo), True)
    scheduler.start()
    scheduler._last_activity = scheduler._active = MORNING  # this window has long been idle
    await asyncio.sleep(2.5)
    await store.end_session(elsewhere)
    await asyncio.sleep(2.5)
    state = scheduler.state
    await scheduler.close()
    assert state is ServerState.AWAKE


async def test_a_base_that_is_not_there_is_one_clear_message(store: Store, config: Config, tmp_path: Path) -> None:
    await store.write(from_source(40))
    ended = await sleep(replace(config, base=replace(config.base, model=str(tmp_path / "nothing"))))
    assert ended.ending is Ending.FAILED
    assert "nothing" in ended.text
    assert "Traceback" not in ended.text


async def test_sigterm_before_anything_has_begun(config: Config) -> None:
    child = await start_child(config.home, new_id())
    await asyncio.sleep(0.3)
    began = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert await child.wait() in (Ending.INTERRUPTED.exit_code, -signal.SIGTERM)
    assert time.monotonic() - began < GONE_S
