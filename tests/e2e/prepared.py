"""The real server, but what it suggests is prepared: `python -m tests.e2e.prepared FILE`.

FILE is a JSON object: what stands on the line before the cursor, and what is suggested there. It is read anew for
every request. All else is the server's own: documents, cache, what became of a suggestion, the journal. No model is
loaded and no database is started.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npllm import config
from npllm.assist import writing
from npllm.assist.worker import EngineWorker
from npllm.assist.writing import Request
from npllm.lsp.server import NpllmServer, build
from npllm.models.base import BaseInfo
from npllm.types import Suggestion
from tests.fixtures_memory import make_suggestion


class NoModel(EngineWorker):
    """Runs jobs without a desk: `writing.suggest` needs none here."""

    @property
    def info(self) -> BaseInfo:
        return BaseInfo("prepared", Path(), "prepared", 0, 4096, "none", "none", "none")

    async def run(self, job: Callable[[Any], Any], cancel: threading.Event | None = None) -> Any:
        return job(None)


def server(file: Path) -> NpllmServer:
    """A server that suggests what `file` says."""

    def suggest(_desk: object, request: Request, _cancel: threading.Event, kind: str) -> Suggestion | None:
        text = json.loads(file.read_text(encoding="utf-8")).get(request.prefix.rpartition("\n")[2])
        if text is None:
            return None
        return make_suggestion(
            place=request.place, text=text, prefix=request.prefix, suffix=request.suffix, kind=kind, mean_logprob=-0.1
        )

    made = build(config.load())
    resources = made.assistant.resources
    resources.worker = NoModel()
    resources.start = lambda: None  # type: ignore[method-assign]
    writing.suggest = suggest
    return made


if __name__ == "__main__":
    server(Path(sys.argv[1])).start_io()
