"""A real VS Code with the extension in a real browser, as a person's hands and eyes use it.

code-server is VS Code's own workbench and extension host behind a web page. `install.sh` puts it, and the browser's
driver, into the cache folder. Knows nothing of what the server does with what is typed.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import psutil

T = TypeVar("T")
HERE = Path(__file__).parent
STATUS_ITEM = "npllm.npllm.status"  # publisher.name.id

SETTINGS: Mapping[str, Any] = {
    "chat.disableAIFeatures": True,
    "editor.autoClosingBrackets": "never",
    "editor.autoClosingQuotes": "never",
    "editor.autoIndent": "none",
    "editor.inlineSuggest.enabled": True,
    "editor.inlineSuggest.minShowDelay": 0,
    "editor.minimap.enabled": False,
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.wordBasedSuggestions": "off",
    "extensions.autoCheckUpdates": False,
    "extensions.autoUpdate": False,
    "extensions.ignoreRecommendations": True,
    "files.autoSave": "off",
    "git.enabled": False,
    "security.workspace.trust.enabled": False,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
}


class WorkbenchError(Exception):
    """The workbench, not what is tested, does not work."""


class TooSlow(WorkbenchError):
    """Something that was waited for did not come in time."""


class Installation:
    """What `install.sh` has put into the cache folder."""

    def __init__(self) -> None:
        self.cache = Path(os.environ.get("NPLLM_E2E_CACHE") or Path.home() / ".cache" / "npllm-e2e").absolute()
        self.node = self.cache / "bin" / "node"
        self._entry = self.cache / "code-server" / "node_modules" / "code-server" / "out" / "node" / "entry.js"
        self.chromium = shutil.which("chromium") or ""
        if not (self.node.exists() and self._entry.exists() and (self.cache / ".tools").exists() and self.chromium):
            raise WorkbenchError(f"There is no VS Code in {self.cache}: run {HERE / 'install.sh'} first.")

    def code_server(self, *arguments: str | Path) -> list[str]:
        """A command line for VS Code."""
        return [str(self.node), str(self._entry), *map(str, arguments)]

    def environment(self, home: Path) -> dict[str, str]:
        """An environment with `home` as the person's home folder, so that nothing of theirs is touched."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NPLLM_", "VSCODE_", "XDG_"))}
        path = f"{self.cache / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return kept | {"HOME": str(home), "PATH": path, "NPLLM_E2E_CACHE": str(self.cache)}


class Workbench:
    """One window. `stop` it in any case.

    Args:
        run: a fresh folder: hot exit would bring the last window's unsaved text back.
        extensions: the folder into which the extension is installed.
        file: the file to open; its folder is the workspace.
        settings: the person's settings, over `SETTINGS`.
    """

    def __init__(
        self, installation: Installation, run: Path, extensions: Path, file: Path, settings: Mapping[str, Any]
    ) -> None:
        self._installation = installation
        self._run = run
        self._settings = {**SETTINGS}
        self.configure(settings)
        self.log = run / "workbench.log"
        self._environment = installation.environment(run)
        self._port = _free_port()
        self._file = file
        self._driver: subprocess.Popen[str] | None = None
        self._server = self._start(
            *("--bind-addr", f"127.0.0.1:{self._port}", "--auth", "none"),
            *("--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"),
            *("--disable-getting-started-override", "--disable-proxy", "--ignore-last-opened"),
            *("--user-data-dir", run / "data", "--extensions-dir", extensions, file.parent),
        )

    def _start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._installation.code_server(*arguments),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def open(self) -> None:
        """Open the file in the browser.

        Raises:
            WorkbenchError: the page does not come up.
        """
        self.until(self._healthy, "VS Code to listen", 120)
        origin = f"127.0.0.1:{self._port}"
        payload = json.dumps([["openFile", f"vscode-remote://{origin}{quote(str(self._file))}"]])
        query = urlencode({"folder": str(self._file.parent), "payload": payload})
        with self.log.open("ab") as log:
            self._driver = subprocess.Popen(
                [str(self._installation.node), str(HERE / "driver.mjs")],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._do("open", url=f"http://{origin}/?{query}", chromium=self._installation.chromium)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change the person's settings; VS Code sees that at once."""
        self._settings |= settings
        # Seen from the page, this is a remote machine: what is a machine's own matter is read from its settings alone.
        for owner in ("User", "Machine"):
            file = self._run / "data" / owner / "settings.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(self._settings), encoding="utf-8")

    def stop(self) -> None:
        """Close the window and end every process of it."""
        if self._driver is not None and self._driver.stdin is not None:
            self._driver.stdin.close()
            try:
                self._driver.wait(20)
            except subprocess.TimeoutExpired:
                pass
        family = [one for root in (self._server, self._driver) if root is not None for one in _family(root.pid)]
        _signal_group(self._server.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=15)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self._server.wait(10)
        if self._driver is not None:
            self._driver.wait(10)
            if self._driver.stdout is not None:
                self._driver.stdout.close()

    # -- hands ------------------------------------------------------------------------------------------

    def to_end(self) -> None:
        """Click into the editor and go to the end of the document."""
        self._do("toEnd")

    def open_file(self, name: str) -> None:
        """Open a file of the workspace by its name."""
        self._do("openFile", name=name)

    def type(self, text: str, *, delay_ms: int = 30) -> None:
        """Type as a person does."""
        self._do("type", text=text, delay=delay_ms)

    def press(self, *keys: str) -> None:
        """Press keys, one after another: `Tab`, `Control+ArrowRight`."""
        self._do("press", keys=keys)

    def palette(self, command: str) -> None:
        """Run a command by its title."""
        self._do("palette", command=command)

    def choose(self, label: str) -> None:
        """Choose an entry of the quick pick that is open."""
        self._do("choose", label=label)

    def act(self, label: str) -> None:
        """Ask for the code actions at the cursor and choose one."""
        self._do("act", label=label)

    def follow(self, label: str) -> None:
        """Ask for the hover at the cursor and click a link in it."""
        self.press("Control+k", "Control+i")
        self._do("follow", label=label)

    def say(self, label: str) -> None:
        """Click a CodeLens."""
        self._do("lens", label=label)

    # -- eyes -------------------------------------------------------------------------------------------

    def lines(self) -> list[str]:
        """The editor's lines, without ghost text."""
        return [str(line) for line in self._do("lines")]

    def ghost(self) -> str:
        """The ghost text, "" when there is none."""
        return str(self._do("ghost"))

    def status(self) -> str:
        """The text of npllm's status bar item, "" while it is not there."""
        return str(self._do("status", id=STATUS_ITEM) or "")

    def lenses(self) -> list[str]:
        """The CodeLenses on screen."""
        return [str(text) for text in self._do("lenses")]

    def webview(self) -> str:
        """What the page says that an extension shows, "" when there is none."""
        return str(self._do("webview"))

    def title(self) -> str:
        """The title of the quick input that is open, "" when none is."""
        return str(self._do("title") or "")

    def notifications(self) -> list[str]:
        """What the notifications on screen say."""
        return [str(text) for text in self._do("notifications")]

    def blocked(self) -> bool:
        """Whether a modal dialog keeps the person from working."""
        return bool(self._do("blocked"))

    def until(self, look: Callable[[], T], what: str, timeout_s: float = 60) -> T:
        """Look until there is something to see (or rather, until it is true), and return it.

        Raises:
            TooSlow: there is not, within `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise TooSlow(f"Waited {timeout_s:.0f} s for {what}; saw {seen!r}. {self._scene()}")
            time.sleep(0.2)
        return seen

    def _scene(self) -> str:
        if self._driver is None:
            return f"The log is {self.log}."
        try:
            picture = self._run / f"{time.time_ns()}.png"
            self._do("screenshot", path=str(picture))
            seen = f"Status {self.status()!r}, ghost {self.ghost()!r}, notifications {self.notifications()}"
            return f"{seen}; see {picture}."
        except WorkbenchError as error:
            return f"And the page does not answer: {error}."

    def _healthy(self) -> bool:
        if self._server.poll() is not None:
            raise WorkbenchError(f"VS Code ended with status {self._server.returncode}; the log is {self.log}.")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _do(self, action: str, **arguments: Any) -> Any:
        driver = self._driver
        if driver is None or driver.stdin is None or driver.stdout is None:
            raise WorkbenchError("The window is not open.")
        try:
            driver.stdin.write(json.dumps({"do": action, **arguments}) + "\n")
            driver.stdin.flush()
        except BrokenPipeError as error:
            raise WorkbenchError(f"The browser's driver has gone; the log is {self.log}.") from error
        ready, _, _ = select.select([driver.stdout], [], [], 240)
        if not ready:
            raise TooSlow(f"The browser did not {action} within 240 s.")
        line = driver.stdout.readline()
        if not line:
            raise WorkbenchError(f"The browser's driver has gone; the log is {self.log}.")
        answer = json.loads(line)
        if "error" in answer:
            raise TooSlow(answer["error"]) if "imeout" in answer["error"] else WorkbenchError(answer["error"])
        return answer["value"]


def install_extension(installation: Installation, vsix: Path, folder: Path, home: Path) -> list[str]:
    """Install a .vsix as a person does on the command line; what is installed then, as `publisher.name@version`."""
    common = ("--user-data-dir", home / "data", "--extensions-dir", folder)
    for arguments in (("--install-extension", vsix), ("--list-extensions", "--show-versions")):
        done = subprocess.run(
            installation.code_server(*common, *arguments),
            env=installation.environment(home),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise WorkbenchError(f"{arguments[0]} failed: {done.stderr or done.stdout}")
    return done.stdout.split()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass
