"""Which files are left alone: those that hold keys, those that the person lists, and what `.npllmignore` says."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from npllm import config, projects
from npllm.ignoring import FILE, ignored
from npllm.memory.retrieval import Retriever
from npllm.types import Snippet, new_id
from tests.fixtures_memory import make_place, unit_vector


@pytest.mark.parametrize(
    "path",
    [
        *(".env", "app/.env.local", "prod.env", ".envrc", "server.pem", "tls/Server.KEY", "id_rsa", "id_ed25519"),
        *(".npmrc", ".pypirc", ".netrc", ".pgpass", ".git-credentials", "credentials", "credentials.json"),
        *(".ssh/config", ".aws/credentials", ".kube/config", ".docker/config.json", "terraform.tfstate", "a.p12"),
        *("secrets.yaml", "client_secret_12.json", "db.kdbx"),
    ],
)
def test_key_files_are_left_alone(tmp_path: Path, path: str) -> None:
    assert ignored(tmp_path / path)


@pytest.mark.parametrize(
    "path",
    [
        *(".env.example", ".env.sample", "id_rsa.pub", "keys.py", "environment.py", "src/credentials/store.py"),
        *("credentials.py", "secrets.py", "password.ts", "app.py", "key", ".gitignore", "config.json"),
    ],
)
def test_others_are_not(tmp_path: Path, path: str) -> None:
    assert not ignored(tmp_path / path)


def test_what_the_person_lists_in_gitignores_syntax(tmp_path: Path) -> None:
    root = str(tmp_path)
    listed = ("*.sql", "!public.sql", "/generated/", "docs/private", "!local.key")
    for path, expected in {
        "a.sql": True,
        "deep/a.sql": True,
        "deep/public.sql": False,
        "generated/a.py": True,
        "src/generated/a.py": False,
        "docs/private/a.md": True,
        "local.key": False,
        "other.key": True,
    }.items():
        assert ignored(tmp_path / path, listed, root) is expected, path
    home = Path.home()
    assert ignored(home / "clients" / "a.py", ("~/clients/",), root) and not ignored(home / "a.py", ("~/clients/",))


def test_npllmignore_files_from_the_repository_down(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / FILE).write_text("*.csv\n/notes.py\npackage/hidden.py\n")
    (tmp_path / "package" / FILE).write_text("!kept.csv\ninner/\n")
    package = str(tmp_path / "package")  # the workspace folder may lie below the repository's
    for path, expected in {
        "a.csv": True,
        "notes.py": True,
        "package/notes.py": False,
        "package/hidden.py": True,
        "package/kept.csv": False,
        "package/other.csv": True,
        "package/inner/a.py": True,
    }.items():
        assert ignored(tmp_path / path, (), package) is expected, path
    (tmp_path / FILE).write_text("nothing\n")
    assert not ignored(tmp_path / "notes.py"), "it is read again when it changes"
    (tmp_path / FILE).unlink()
    assert not ignored(tmp_path / "a.csv")


def test_one_that_cannot_be_read_ignores_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / FILE).write_bytes(b"\xff\xfe\xff")
    assert ignored(tmp_path / "a.py")
    assert FILE in caplog.text


def test_a_link_to_a_key_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    (tmp_path / "settings.py").symlink_to(tmp_path / ".env")
    assert ignored(tmp_path / "settings.py")


def test_no_reader_of_a_project_gets_them(tmp_path: Path) -> None:
    for path in ("a.py", "b.py", "private/c.py", "drop/d.py", ".ssh/e.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x = 1\n")
    (tmp_path / FILE).write_text("private/\n")

    def listed(*ignore: str) -> list[str]:
        return projects.files(tmp_path, (".py",), lambda: None, float("inf"), ignore)

    assert listed() == ["a.py", "b.py", "drop/d.py"]
    assert listed("drop/", "b.py") == ["a.py"]
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A", "."], cwd=tmp_path, check=True)
    assert listed("drop/") == ["a.py", "b.py"]


async def test_what_is_remembered_of_one_stays_out_of_prompts(tmp_path: Path) -> None:
    class Remembers:
        async def similar(self, *_: object, **__: object) -> list[Snippet]:
            texts = {"seen.py": "one()", "drop/d.py": "two()", ".env": "A=1"}
            return [Snippet(path, text, 0.9, new_id()) for path, text in texts.items()]

    class Embeds:
        async def embed(self, texts: list[str]) -> list[tuple[float, ...]]:
            return [unit_vector(1) for _ in texts]

    settings = config.MemoryConfig(ignore=("drop/",))
    retriever = Retriever(Remembers(), Embeds(), settings)  # type: ignore[arg-type]
    place = make_place(project=str(tmp_path))
    assert [one.path for one in await retriever.snippets(place, "x", "", 5000)] == ["seen.py"]
    await retriever.close()


def test_the_setting_is_a_list_of_patterns(home: Path) -> None:
    made = config.merge(config.Config(home=home), {"memory": {"ignore": ["*.sql", "a/"]}}, source="the test")
    assert made.memory.ignore == ("*.sql", "a/")
    assert dataclasses.asdict(made)["memory"]["ignore"] == ("*.sql", "a/")
    for wrong in ("*.sql", [1], {"a": 1}):
        found, problems = config.merge_leniently(
            config.Config(home=home), {"memory": {"ignore": wrong, "record": True}}, source="the test"
        )
        assert "memory.ignore must be a list of texts" in problems[0]
        assert not found.memory.record, "whoever wrote it wanted something kept out"
