"""What real git writes into its log of HEAD."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from npllm.assist.repository import RECENT_S, Repositories


def git(folder: Path, *words: str) -> None:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    environment = {**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *words], cwd=folder, env=environment, check=True, capture_output=True)


def commit(folder: Path, text: str) -> None:
    (folder / "a.py").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "Mend it\n\nwith a body")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "x = 1\n")
    return folder


def test_each_commit_is_told_once(project):
    repositories = Repositories()
    assert repositories.holds(str(project))
    assert repositories.commits() == []  # what was there before
    commit(project, "x = 2\n")
    assert repositories.commits() == [str(project)]
    assert repositories.commits() == []
    git(project, "commit", "--amend", "-m", "Again")
    assert repositories.commits() == [str(project)]
    assert repositories.moved(str(project)) == 0


def test_a_checkout_is_another_state_and_no_commit(project):
    repositories = Repositories()
    assert repositories.moved(str(project)) == 0
    repositories.holds(str(project))
    git(project, "checkout", "-q", "-b", "other")
    assert repositories.moved(str(project)) > 0
    assert repositories.commits() == []
    git(project, "reset", "--hard", "HEAD")
    assert repositories.moved(str(project)) > 0
    log = project / ".git" / "logs" / "HEAD"
    old = time.time() - RECENT_S - 1
    os.utime(log, (old, old))
    assert repositories.moved(str(project)) == 0


def test_a_folder_inside_and_a_worktree_belong_to_a_repository(project, tmp_path):
    (project / "package").mkdir()
    git(project, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "tree")
    repositories = Repositories()
    assert repositories.holds(str(project / "package"))
    assert repositories.holds(str(tmp_path / "tree"))
    assert repositories.commits() == []
    commit(tmp_path / "tree", "x = 3\n")
    assert repositories.commits() == [str(tmp_path / "tree")]


def test_where_there_is_no_repository_or_no_commit_there_is_nothing(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    repositories = Repositories()
    for folder in ("", str(empty), "/proc/none"):
        assert not repositories.holds(folder)
        assert repositories.moved(folder) == 0
    assert repositories.commits() == []


def test_a_repository_that_goes_away_costs_nothing(project):
    repositories = Repositories()
    repositories.holds(str(project))
    (project / ".git" / "logs" / "HEAD").unlink()
    assert repositories.commits() == []
    assert repositories.moved(str(project)) == 0


def test_a_checkout_is_seen_while_it_still_writes_files(project):
    git(project, "checkout", "-q", "-b", "other")
    (project / ".gitattributes").write_text("*.py filter=slow\n")
    commit(project, "x = 2\n")
    git(project, "config", "filter.slow.smudge", "sleep 0.4; cat")
    git(project, "checkout", "-q", "main")
    log = project / ".git" / "logs" / "HEAD"
    os.utime(log, (0, time.time() - 2 * RECENT_S))
    repositories = Repositories()
    assert repositories.moved(str(project)) == 0
    with subprocess.Popen(["git", "checkout", "-q", "other"], cwd=project) as checkout:
        written = log.stat().st_mtime
        while checkout.poll() is None and not repositories.moved(str(project)):
            time.sleep(0.01)
        assert (checkout.poll(), log.stat().st_mtime) == (None, written)
    assert repositories.moved(str(project)) > 0


def test_a_file_that_git_did_not_write_is_as_it_was(project):
    (project / "b.py").write_text("y = 1\n")
    git(project, "checkout", "-q", "-b", "other")
    os.utime(project / "b.py", (0, time.time() - 2 * RECENT_S))
    repositories = Repositories()
    assert repositories.moved(str(project), str(project / "a.py")) > 0
    assert repositories.moved(str(project), str(project / "gone.py")) > 0
    assert repositories.moved(str(project), str(project / "b.py")) == 0
