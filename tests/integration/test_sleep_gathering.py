"""What a sleep gathers for each context, from a real PostgreSQL; nothing is trained."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from npllm.config import Config
from npllm.memory.store import Store
from npllm.sleep import cerebellum_gathering
from npllm.sleep.gathering import Job, gather
from npllm.types import AdapterVersion, Experience, VersionState, new_id
from tests.fixtures_memory import database_url, postgres, store, store_config  # noqa: F401
from tests.fixtures_sleep import MORNING, PYTHON, from_source

# ruff: noqa: F811

BASE = "base"
NEVER = threading.Event()


def version(context: str, until: datetime, **changes: object) -> AdapterVersion:
    made = AdapterVersion(
        id=new_id(),
        context=context,
        base_fingerprint=BASE,
        parent=None,
        consolidation_id=new_id(),
        folder="adapters/none",
        sha256="",
        state=VersionState.PUBLISHED,
        reason="",
        metrics={"until": until.timestamp()},
        created_at=datetime.now(UTC),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def in_project(items: list[Experience], project: str) -> list[Experience]:
    return [replace(item, place=replace(item.place, project=project, path=f"{project}/x.py")) for item in items]


async def test_a_project_of_several_begins_at_the_language_s_adapter_and_must_beat_it(
    store: Store, store_config: Config
) -> None:
    default = replace(store_config, sleep=replace(store_config.sleep, min_holdout=4))
    config = replace(default, sleep=replace(default.sleep, families="language+project"))
    first = from_source(40)
    await store.write(first)
    jobs, waiting = await gather(store, config, BASE, new_id(), NEVER)
    assert [job.context for job in jobs] == [PYTHON], "one project alone is its language"
    assert waiting == () and jobs[0].parent is None

    python = version(PYTHON, max(item.created_at for item in first))
    await store.publish(python)
    later = from_source(40, start=MORNING + timedelta(days=1), offset=1)
    await store.write(in_project(later, "/q"))
    now = new_id()
    jobs, _ = await gather(store, config, BASE, now, NEVER)
    assert [job.context for job in jobs] == [PYTHON, "project:/q"], "nothing is new in the first project"
    assert [job.parent and job.parent.id for job in jobs] == [python.id, python.id]
    assert {item.place.project for item in jobs[1].part.all} == {"/q"}
    assert jobs[1].language == "python"
    jobs, _ = await gather(store, default, BASE, now, NEVER)
    assert [job.context for job in jobs] == [PYTHON], "by default only the language has one"

    newer = version(PYTHON, max(item.created_at for item in later), parent=python.id, consolidation_id=now)
    await store.publish(newer)
    jobs, _ = await gather(store, config, BASE, now, NEVER)
    assert [(job.context, job.parent and job.parent.id) for job in jobs] == [("project:/q", python.id)], (
        "a sleep that is gone on with begins where it began"
    )
    await store.publish(version("project:/q", max(item.created_at for item in later), parent=python.id))
    few = in_project(from_source(3, start=MORNING + timedelta(days=2), offset=2), "/q")
    await store.write(few)
    jobs, waiting = await gather(store, config, BASE, new_id(), NEVER)
    assert jobs == [] and [part.context for part in waiting] == [PYTHON], "what waits is told once"


def in_file(items: list[Experience], project: Path, name: str) -> list[Experience]:
    uri = (project / name).as_uri()
    return [
        replace(item, place=replace(item.place, project=str(project), path=name, uri=uri), id=new_id())
        for item in items
    ]


async def test_what_was_recorded_before_its_file_was_ignored_is_not_learned(
    store: Store, store_config: Config, tmp_path: Path
) -> None:
    config = replace(store_config, sleep=replace(store_config.sleep, min_holdout=4))
    other = ("cli.py", "doctor.py")
    day, listed = timedelta(days=1), replace(config.memory, ignore=("late.py",))
    old = in_file(from_source(20), tmp_path, "open.py") + in_file(from_source(20, offset=1), tmp_path, "secret.py")
    await store.write(old)
    await store.publish(version(PYTHON, max(item.created_at for item in old)))
    new = [*in_file(from_source(40, files=other, start=MORNING + day), tmp_path, "open.py")]
    new += in_file(from_source(40, files=other, start=MORNING + day, offset=1), tmp_path, "secret.py")
    new += in_file(from_source(20, files=other, start=MORNING + day, offset=2), tmp_path, "late.py")
    await store.write(new)

    def files(job: Job) -> set[str]:
        return {item.place.path for item in job.part.all}

    [job], _ = await gather(store, config, BASE, new_id(), NEVER)
    assert files(job) == {"open.py", "secret.py", "late.py"} and job.part.replay
    (tmp_path / ".npllmignore").write_text("secret.py\n", encoding="utf-8")
    [job], _ = await gather(store, replace(config, memory=listed), BASE, new_id(), NEVER)
    assert files(job) == {"open.py"} and job.part.replay
    origin = cerebellum_gathering.Origin(tmp_path, "origin")
    found = await cerebellum_gathering.gather(store, replace(config, memory=listed), origin, new_id(), NEVER)
    assert isinstance(found, cerebellum_gathering.Job)
    assert {item.place.path for item in found.part.all} == {"open.py"}
    (tmp_path / ".npllmignore").write_text("*.py\n", encoding="utf-8")
    assert await gather(store, config, BASE, new_id(), NEVER) == ([], ())
