"""Which files are left alone: those that hold keys, those that the person lists, and what `.npllmignore` says."""

from __future__ import annotations

import dataclasses
import functools
import random
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
from pathspec import GitIgnoreSpec

from npllm import config, projects
from npllm.assist import context
from npllm.assist.assistant import Assistant
from npllm.ignoring import DEFAULTS, FILE, Matcher, ignored, of_place
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
        return projects.files(tmp_path, (".py",), lambda: None, float("inf"), ignore).paths

    assert listed() == ["a.py", "b.py", "drop/d.py"]
    assert listed("drop/", "b.py") == ["a.py"]
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A", "."], cwd=tmp_path, check=True)
    assert listed("drop/") == ["a.py", "b.py"]


async def test_what_is_remembered_of_one_stays_out_of_prompts(tmp_path: Path) -> None:
    class Remembers:
        async def similar(self, *_: object, **__: object) -> list[Snippet]:
            texts = {"seen.py": "one()", "drop/d.py": "two()", ".env": "A=1"}
            return [Snippet(path, text, 0.9, new_id(), project=str(tmp_path)) for path, text in texts.items()]

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


@functools.cache
def asked(*lines: str) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(lines)


def plainly(path: str, listed: tuple[str, ...], root: Path) -> bool:
    """The same, asking pathspec about each list as a whole and for the whole path: slow, and without links."""
    verdict = asked(*(line.lower() for line in DEFAULTS)).match_file(path.lower().lstrip("/"))
    found = []
    for pattern in listed:
        home = pattern.lstrip("!").startswith("~/")
        cut = ("!" if pattern[0] == "!" else "") + pattern.lstrip("!")[1:] if home else pattern
        found.append((Path.home() if home else root, [cut]))
    inside = [root, *(root / part for part in reversed(Path(path).relative_to(root).parents) if str(part) != ".")]
    found += [(folder, (folder / FILE).read_text().splitlines()) for folder in inside if (folder / FILE).exists()]
    for folder, lines in found:
        if Path(path).is_relative_to(folder):
            said = asked(*lines).check_file(str(Path(path).relative_to(folder))).include
            verdict = verdict if said is None else said
    return verdict


def test_many_at_once_are_judged_as_each_pattern_says(tmp_path: Path) -> None:
    parts = ["a", "b.py", "secret_1.py", "x.pem", ".ENV", ".env.example", "credentials", "credentials.py", "[x]", "gen"]
    parts += [".aws", ".config", "gcloud", "docs", "private", "s p", "ää.key", "!x", "#x", "build", "b.pem.txt", ".git"]
    chance = random.Random(7)
    (tmp_path / ".git").mkdir()
    lists = [
        ("*.py", "!b.py"),
        ("secret_*", "!secret_1.py", "/a/", "docs/private"),
        ("**/gen/**", "!gen/a", "a/**/b.py", "\\!x", "\\#x", "# no", "", "[a-c].py", "\\[x\\]", "s p ", "?"),
        ("/*", "!/a", "*a*", "b**", "!**/x.pem"),
        ("~/a/", "!~/a/b.py", "credentials/"),
    ]
    for folder in ("", "a", "a/docs", "gen"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / FILE).write_text("\n".join(chance.choice(lists[:4])))
    decided = set()
    for listed in ((), *lists):
        matcher = Matcher(listed, str(tmp_path))
        for _ in range(400):
            path = str(tmp_path / "/".join(chance.choice(parts) for _ in range(chance.randrange(1, 5))))
            if FILE in path or "/.git/" in path:
                continue
            expected = plainly(path, listed, tmp_path)
            assert matcher.ignores(path) is expected, (path, listed)
            decided.add(expected)
    assert decided == {True, False}


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / FILE).write_text("/private/\n")
    (tmp_path / "private" / "inner").mkdir(parents=True)
    (tmp_path / "private" / "inner" / "a.py").write_text("x = 1\n")
    (tmp_path / "shown").symlink_to(tmp_path / "private")
    (tmp_path / "b.py").symlink_to("shown/inner/a.py")
    (tmp_path / "round").symlink_to("round")
    matcher = Matcher((), str(tmp_path))
    assert matcher.ignores(f"{tmp_path}/shown/inner/a.py", link=False)
    assert matcher.ignores(f"{tmp_path}/b.py") and not matcher.ignores(f"{tmp_path}/c.py")
    assert not matcher.ignores(f"{tmp_path}/round/c.py")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-link"
    elsewhere.symlink_to(tmp_path)
    assert Matcher((), str(elsewhere)).ignores(f"{elsewhere}/private/a.py")
    assert Matcher(("private/a.md",), str(elsewhere)).ignores(f"{tmp_path}/private/a.md")
    elsewhere.unlink()


def test_a_document_without_a_folder_is_where_its_uri_says(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / FILE).write_text("notes *.py\n*.sql\n")
    uri = (tmp_path / "notes a.py").as_uri()
    assert of_place(make_place(project="", path="notes a.py", uri=uri))
    assert of_place(make_place(project="", path="a.sql", uri=(tmp_path / "a.sql").as_uri()))
    assert not of_place(make_place(project="", path="a.py", uri=(tmp_path / "a.py").as_uri()))
    at_home = (Path.home() / "clients" / "a.py").as_uri()
    assert of_place(make_place(project="", path="a.py", uri=at_home), ("~/clients/",))
    assert of_place(make_place(project="", path="Untitled-1.sql", uri="untitled:Untitled-1.sql"), ("*.sql",))
    assert of_place(make_place(project=str(tmp_path), path="deep/a.sql", uri="file:///nowhere"))


STRANGE = ("file:///w/a%00b.py", "file:///w/%00", "file://[/a.py", "untitled:\0", "file:///w/\ud800.py", "x" * 9000)
STRANGE += ("file:///" + "a/" * 4000,)


async def test_what_the_editor_may_send_as_a_uri_is_borne(home: Path) -> None:
    assistant = Assistant(config.Config(home=home))
    assistant.resources.off_limits = ("/elsewhere",)
    for uri in STRANGE:
        place = context.place(uri, "python", 3, ())
        if "\0" in unquote(uri) or "\ud800" in uri:
            assert assistant.resources.leaves_alone(place), "no file has such a name"
        assistant.desk_moved(place, "x = 1\n")
        assistant.changed(place, "x = 1\n", 3, 3, "y")
        assert not assistant._records(place) or not assistant.resources.leaves_alone(place)
        assert await assistant.complete(place, "x = 1\n") is None
    await assistant.close()


def test_a_matcher_for_a_place_with_a_strange_project(tmp_path: Path) -> None:
    assert ignored(tmp_path / "a.py", (), "/w\0")
    assert ignored("/w/a\0/b.py")
