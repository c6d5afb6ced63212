"""A real server process and a real LSP client over stdio, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lsprotocol import types as lsp

from npllm.evaluation.client import Editor, ServerStatus

QUICK: dict[str, dict[str, Any]] = {
    "completion": {"min_mean_logprob": -1000.0, "max_new_tokens": 12},
    "feedback": {"min_visible_ms": 0},
    "memory": {"wait_ms": 5000},
    "pacing": {"enabled": False},
    "sleep": {"enabled": False},
}


def settings(model: Path, **sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings under which a random model shows everything at once; `sections` go over them."""
    merged = {name: dict(values) for name, values in QUICK.items()}
    merged["base"] = {"model": str(model), "threads": 1}
    for name, values in sections.items():
        merged[name] = {**merged.get(name, {}), **values}
    return merged


@asynccontextmanager
async def session(
    home: Path,
    workspace: Path,
    given: Mapping[str, Mapping[str, Any]],
    *,
    ready: bool = True,
    options: Mapping[str, Any] | None = None,
    code_lens: lsp.CodeLensWorkspaceClientCapabilities | None = None,
) -> AsyncIterator[Editor]:
    """An editor with its server, ready (base loaded, database there) unless told otherwise."""
    workspace.mkdir(parents=True, exist_ok=True)
    editor = Editor(workspace, home, home / "stderr.log", options=options, code_lens=code_lens)
    await editor.start(given)
    try:
        if ready:
            await editor.ready(60)
        yield editor
    finally:
        await editor.stop()


async def until(editor: Editor, holds: Callable[[ServerStatus], bool], timeout_s: float = 60.0) -> ServerStatus:
    """Ask for the status until `holds`; its last value.

    Raises:
        AssertionError: it does not within `timeout_s`.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        status = await editor.ask_status()
        if holds(status):
            return status
        assert asyncio.get_running_loop().time() < deadline, f"still {status}"
        await asyncio.sleep(0.1)
