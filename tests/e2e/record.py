"""Records what a real VS Code says to the server in each scenario: `python -m tests.e2e.record [NAME ...]`.

Writes tests/streams/NAME.jsonl (all scenarios, or those named). A recording holds what bears on suggestions: documents,
requests and answers, npllm's own notifications about them, what the person did and what git wrote into its log of HEAD;
the project's folder is written as ${project}. Needs `install.sh` and a packed extension (`make client`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.git import git
from tests.e2e.person import CARET, Person, Scenario
from tests.e2e.scenarios import scenarios
from tests.e2e.workbench import Installation, TooSlow, Workbench, install_extension

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STREAMS = ROOT / "tests" / "streams"
VSIX = ROOT / "client-vscode" / "npllm.vsix"
ATTEMPTS = 3
ASKED = "textDocument/inlineCompletion"
KEPT = (
    "initialize",
    "textDocument/didOpen",
    "textDocument/didChange",
    "textDocument/didSave",
    "textDocument/didClose",
    "textDocument/didShowCompletion",
    "textDocument/didPartiallyAcceptCompletion",
)
# As VS Code comes, but for what would disturb a suggestion by chance.
SETTINGS: Mapping[str, Any] = {
    "editor.autoClosingBrackets": "languageDefined",
    "editor.autoClosingQuotes": "languageDefined",
    "editor.autoIndent": "full",
    "neighbour.suggestions": {
        "    nearby = ": "items[0].price",
        "    farther = ": "items[0].price * RATE",
        "    distant = ": "round(RATE, 2)",
    },
    "neighbour.words": ["items_total", "items_first"],
    "npllm.settings": {"feedback": {"avoid_refused": False}, "pacing": {"enabled": False}, "sleep": {"enabled": False}},
}
KEYS = [
    {"key": "ctrl+alt+l", "command": "npllm.acceptLine", "when": "editorTextFocus"},
    {"key": "ctrl+alt+down", "command": "editor.action.insertCursorBelow", "when": "editorTextFocus"},
    {"key": "alt+\\", "command": "editor.action.inlineSuggest.trigger", "when": "editorTextFocus"},
]


class Studio:
    """One window in which scenarios are recorded one after another."""

    def __init__(self, run: Path) -> None:
        self._project = run / "project"
        self._wire = run / "wire.jsonl"
        self._prepared = run / "prepared.json"
        self._prepared.write_text("{}", encoding="utf-8")
        self._projects()
        home = run / "npllm"
        home.mkdir(mode=0o700)
        installation = Installation()
        extensions = run / "extensions"
        installed = install_extension(installation, VSIX, extensions, run / "home")
        installed = install_extension(installation, packed(HERE / "neighbour", run), extensions, run / "home")
        self.editor = f"code-server {version(installation)}, {', '.join(sorted(installed))}"
        server = ["-m", "tests.e2e.prepared", str(self._prepared)]
        command = [sys.executable, str(HERE / "wire.py"), str(self._wire), sys.executable, *server]
        paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'server'}", "NPLLM_HOME": str(home)}
        own = {"npllm.server.command": command, "npllm.server.env": paths}
        first = self._project / "first.py"
        self.bench = Workbench(installation, run / "code", extensions, first, {**SETTINGS, **own})
        keys = run / "code" / "data" / "User" / "keybindings.json"
        keys.write_text(json.dumps(KEYS), encoding="utf-8")

    def open(self) -> None:
        self.bench.open()
        self.bench.until(lambda: self.bench.status() == "npllm awake", "the server to be awake", 120)

    def record(self, scenario: Scenario) -> list[dict[str, Any]]:
        """Play one scenario; its recording."""
        self._clean()
        self._prepared.write_text(json.dumps(dict(scenario.suggestions)), encoding="utf-8")
        if scenario.settings:
            self.bench.configure(scenario.settings)
            time.sleep(2)
        person = Person(self.bench, scenario, self._project)
        began = time.time()
        person.begin()
        time.sleep(1)
        try:
            scenario.act(person)
            time.sleep(1.5)
        finally:
            ended = time.time()
            self.bench.press("Escape", "Escape")
            self.bench.palette("File: Save All Files")
            time.sleep(0.5)
            self.bench.palette("View: Close All Editors")
            if scenario.settings:
                self.bench.configure({name: SETTINGS.get(name, False) for name in scenario.settings})
        lines = [json.loads(line) for line in self._wire.read_text(encoding="utf-8").splitlines()]
        first = next(line for line in lines if line["message"].get("method") == "initialize")
        told = [reduced(first), *heard([line for line in lines if began <= line["at"] <= ended])]
        return [self._line(line, began) for line in sorted([*told, *person.notes], key=lambda line: line["at"])]

    def _line(self, line: dict[str, Any], began: float) -> dict[str, Any]:
        line = {**line, "at": round(max(0.0, line["at"] - began), 3)}
        line.get("message", {}).pop("jsonrpc", None)
        text = json.dumps(line, ensure_ascii=False)
        made = json.loads(text.replace(str(self._project), "${project}"))
        assert isinstance(made, dict)
        return made

    def _projects(self) -> None:
        """A repository with a file for each scenario; on the branch "other" each begins otherwise."""
        self._project.mkdir()
        (self._project / "first.py").write_text("# Nothing happens here.\n", encoding="utf-8")
        for scenario in scenarios.values():
            self._file(scenario).write_bytes(scenario.text.replace(CARET, "").encode())
        git(self._project, "init", "-q")
        git(self._project, "add", "--all")
        git(self._project, "commit", "-q", "-m", "Begin")
        git(self._project, "checkout", "-q", "-b", "other")
        for scenario in scenarios.values():
            file = self._file(scenario)
            file.write_bytes(b"# another state\n" + file.read_bytes())
        git(self._project, "commit", "-q", "-a", "-m", "Another state")
        git(self._project, "checkout", "-q", "main")

    def _clean(self) -> None:
        git(self._project, "checkout", "-q", "-f", "main")
        git(self._project, "clean", "-q", "-f", "-d")
        time.sleep(1)

    def _file(self, scenario: Scenario) -> Path:
        return self._project / scenario.file


def reduced(first: dict[str, Any]) -> dict[str, Any]:
    """`initialize` with what bears on suggestions."""
    params = first["message"]["params"]
    capabilities = params["capabilities"]
    kept = {name: capabilities[name] for name in ("general", "experimental") if name in capabilities}
    inline = capabilities["textDocument"].get("inlineCompletion")
    message = {
        **first["message"],
        "params": {
            "processId": None,
            "rootUri": params["rootUri"],
            "workspaceFolders": params["workspaceFolders"],
            "initializationOptions": {"reportsAcceptance": params["initializationOptions"]["reportsAcceptance"]},
            "capabilities": {**kept, "textDocument": {"inlineCompletion": inline}},
        },
    }
    return {**first, "at": 0.0, "message": message}


def heard(lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What bears on suggestions: no requests to which nothing was offered."""
    asked = {line["message"].get("id") for line in lines if line["message"].get("method") == ASKED}
    answered = {
        line["message"]["id"]
        for line in lines
        if line["by"] == "server" and line["message"].get("id") in asked and _offers(line["message"])
    }
    for line in lines:
        message = line["message"]
        method = message.get("method", "")
        if line["by"] == "server":
            wanted = not method and message.get("id") in answered
        elif method == ASKED:
            wanted = message["id"] in answered
        elif method == "workspace/executeCommand":
            wanted = message["params"]["command"] == "npllm.accepted"
        else:
            wanted = method in KEPT or (method.startswith("npllm/") and method != "npllm/didInteract")
        if wanted:
            yield line


def _offers(answer: dict[str, Any]) -> bool:
    return bool((answer.get("result") or {}).get("items"))


def packed(folder: Path, run: Path) -> Path:
    """An extension of one package.json and one script as a .vsix."""
    about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    identity = f'Id="{about["name"]}" Version="{about["version"]}" Publisher="{about["publisher"]}" Language="en-US"'
    manifest = f"""<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
<Metadata><Identity {identity} /><DisplayName>{about["displayName"]}</DisplayName><Properties>
<Property Id="Microsoft.VisualStudio.Code.Engine" Value="{about["engines"]["vscode"]}" /></Properties></Metadata>
<Installation><InstallationTarget Id="Microsoft.VisualStudio.Code" /></Installation><Dependencies />
<Assets><Asset Type="Microsoft.VisualStudio.Code.Manifest" Path="extension/package.json" Addressable="true" /></Assets>
</PackageManifest>
"""
    types = """<?xml version="1.0" encoding="utf-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension=".json" ContentType="application/json" />
<Default Extension=".js" ContentType="application/javascript" />
<Default Extension=".vsixmanifest" ContentType="text/xml" /></Types>
"""
    made = run / f"{about['name']}.vsix"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("[Content_Types].xml", types)
        archive.writestr("extension.vsixmanifest", manifest)
        for file in folder.iterdir():
            archive.write(file, f"extension/{file.name}")
    return made


def version(installation: Installation) -> str:
    done = subprocess.run(installation.code_server("--version"), capture_output=True, text=True, check=True)
    return " ".join(done.stdout.strip().splitlines()[-1].split(" "))


def write(name: str, editor: str, lines: Sequence[Mapping[str, Any]]) -> None:
    STREAMS.mkdir(exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [{"editor": editor}, *lines])
    (STREAMS / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.e2e.record", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(scenarios))
    names = parser.parse_args(arguments).names or list(scenarios)
    if unknown := sorted(set(names) - set(scenarios)):
        parser.error(f"There is no scenario {', '.join(unknown)}.")
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="npllm-streams-", ignore_cleanup_errors=True) as folder:
        studio = Studio(Path(folder))
        try:
            studio.open()
            failed += [name for name in names if not _recorded(studio, scenarios[name])]
        finally:
            studio.bench.stop()
    if failed:
        print(f"Not recorded: {' '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _recorded(studio: Studio, scenario: Scenario) -> bool:
    for attempt in range(1, ATTEMPTS + 1):
        began = time.monotonic()
        try:
            write(scenario.name, studio.editor, studio.record(scenario))
        except TooSlow as error:
            print(f"{scenario.name}, attempt {attempt} of {ATTEMPTS}: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{scenario.name}: {time.monotonic() - began:.0f} s", flush=True)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
