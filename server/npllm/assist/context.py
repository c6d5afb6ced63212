"""What is on the desk at one request: the text around the cursor, and where it stands."""

from __future__ import annotations

from pathlib import Path

from npllm.types import Place
from npllm.uris import file_path as file_path

PREFIX_CHARS = 6000
SUFFIX_CHARS = 2000


def window(text: str, offset: int) -> tuple[str, str]:
    """The document's text before and behind the cursor, cut to what a prompt can hold.

    Cut between lines, where there are any: half a secret is not known for one (`npllm.memory.redaction`).
    """
    begin, end = max(0, offset - PREFIX_CHARS), offset + SUFFIX_CHARS
    if begin and text[begin - 1] != "\n":
        begin = text.find("\n", begin, offset) + 1 or begin
    if end < len(text):
        end = text.rfind("\n", offset, end) + 1 or end
    return text[begin:offset], text[offset:end]


def place(uri: str, language: str, offset: int, folders: tuple[str, ...]) -> Place:
    """A `Place` for a document, with its path relative to the innermost of the workspace `folders`."""
    path = file_path(uri)
    best = ""
    for folder in folders:
        if (path == folder or path.startswith(folder.rstrip("/") + "/")) and len(folder) > len(best):
            best = folder
    relative = path[len(best.rstrip("/")) + 1 :] if best else Path(path).name
    return Place(uri=uri, path=relative, language=language, project=best, offset=offset)
