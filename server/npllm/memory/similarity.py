"""The search for what resembles the present: cosine distance over experiences, in PostgreSQL.

Small projects are searched exactly. In large ones every row's code (the signs of its numbers, binary quantization) is
looked at, and the `CANDIDATES` nearest by Hamming distance are compared exactly: no graph that a filter, a million near
copies, or a team's other members stand in the way of. What may be offered is what the *person* ended up with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from npllm.memory import rows
from npllm.memory.database import QUERIES, Connection
from npllm.memory.texts import snippet_text
from npllm.types import Snippet

SPARE = 4  # candidates per wanted snippet, for those that fall to the avoided
AVOIDED = 2_000  # newest avoided suggestions that are looked at
CANDIDATES = 4_000  # nearest by their codes, that are compared exactly
EXACT_BELOW = 2 * CANDIDATES  # rows of one project and language; with fewer, codes spare nothing
SHORT = 12  # characters; an avoided text shorter than this is avoided only as a whole


def offers_avoided(text: str, final_text: str, avoided: Collection[str]) -> bool:
    """Whether a snippet would put an avoided suggestion's text before the model again."""
    return any(bad == final_text.strip() or (len(bad) >= SHORT and bad in text) for bad in avoided)


async def find_similar(
    connection: Connection,
    embedding: Sequence[float],
    project: str | None,
    language: str,
    limit: int,
    min_similarity: float,
    exclude: Collection[UUID],
) -> list[Snippet]:
    """See `Store.similar`; runs inside the caller's transaction."""
    vector = rows.vector(embedding)
    if vector is None or limit < 1:
        return []
    parameters: dict[str, Any] = {
        "embedding": vector,
        "language": rows.text(language),
        "exclude": list(exclude),
        "max_distance": 1.0 - min_similarity,
        "limit": limit * SPARE,
    }
    project_id = None
    exact = False
    if project is not None:
        size = await QUERIES.project_size(
            connection, project=rows.text(project), language=parameters["language"], ceiling=EXACT_BELOW
        )
        if size is None:
            return []
        project_id, exact = size["id"], size["size"] < EXACT_BELOW
    if exact:
        search = QUERIES.similar_exact(connection, project_id=project_id, **parameters)
    else:
        search = QUERIES.similar_coded(connection, project_id=project_id, candidates=CANDIDATES, **parameters)
    found = [row async for row in search]
    avoided = await _avoided(connection, parameters["language"]) if found else set()
    snippets = []
    for row in found:
        text = snippet_text(row["prefix"], row["final_text"])
        if offers_avoided(text, row["final_text"], avoided):
            continue
        score = 1.0 - row["distance"]
        id, belongs = rows.uuid(row["id"]), (row["project"], row["uri"])
        snippets.append(Snippet(row["path"], text, score, id, row["reward"], *belongs))
        if len(snippets) == limit:
            break
    if project is None:
        return snippets
    shared = await _shared(connection, rows.text(project), parameters)
    return sorted([*snippets, *shared], key=lambda snippet: -snippet.score)[:limit]


async def _shared(connection: Connection, project: str, parameters: dict[str, Any]) -> list[Snippet]:
    """What others share of this project. Their paths count as this project's: its ignored files stay out."""
    found = [row async for row in QUERIES.similar_shared(connection, project=project, **parameters)]
    avoided = await _avoided(connection, parameters["language"]) if found else set()
    snippets = []
    for row in found:
        text = snippet_text(row["prefix"], row["final_text"])
        if not offers_avoided(text, row["final_text"], avoided):
            score = 1.0 - row["distance"]
            snippets.append(Snippet(row["path"], text, score, rows.uuid(row["id"]), row["reward"], project))
    return snippets


async def _avoided(connection: Connection, language: str) -> set[str]:
    found = QUERIES.avoided_texts(connection, language=language, limit=AVOIDED)
    return {row["suggested"].strip() async for row in found}
