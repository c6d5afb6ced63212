"""Between the value types of what happened and the tables' rows: parameters one way, dataclasses the other.

PostgreSQL's text cannot hold NUL, nor UTF-8 a lone surrogate, and documents can hold both: they become U+FFFD.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
from pgvector import HalfVector

from npllm import contexts
from npllm.types import (
    EMBEDDING_DIM,
    Decision,
    Experience,
    Feedback,
    HeldBack,
    Modulation,
    Outcome,
    OutcomeKind,
    Place,
    Sign,
    Suggestion,
    Trace,
)

log = logging.getLogger(__name__)

Row = Mapping[str, Any]

HALF_MAX = 65504.0  # the largest number that a halfvec holds
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def text(value: str) -> str:
    """`value` with what PostgreSQL cannot hold replaced."""
    return _UNSTORABLE.sub("�", value)


def vector(embedding: Sequence[float] | None) -> HalfVector | None:
    """For pgvector; None when there is none or it is not 384 finite numbers (said in the log)."""
    if embedding is None:
        return None
    if len(embedding) != EMBEDDING_DIM or not all(abs(number) < HALF_MAX for number in embedding):
        log.warning("an embedding that is not %d finite numbers was left out", EMBEDDING_DIM)
        return None
    return HalfVector(list(embedding))


def _place(place: Place) -> dict[str, Any]:
    return {
        "project": text(place.project),
        "uri": text(place.uri),
        "path": text(place.path),
        "language": text(place.language),
        "cursor_offset": place.offset,
    }


def suggestion_row(s: Suggestion) -> dict[str, Any]:
    return {
        **_place(s.place),
        "id": s.id,
        "text": text(s.text),
        "prefix": text(s.prefix),
        "suffix": text(s.suffix),
        "context": text(s.context),
        "base_fingerprint": s.base_fingerprint,
        "adapter_versions": list(s.adapter_versions),
        "memory_ids": list(s.memory_ids),
        "mean_logprob": s.mean_logprob,
        "latency_ms": s.latency_ms,
        "created_at": s.created_at,
        "source": s.source,
        "kind": s.kind,
        "contexts": _contexts(s),
        "chance": s.chance,
        "audited": s.audited,
        "asked": s.asked,
        "requests": s.requests,
        **_modulation_row(s.modulation),
    }


def _modulation_row(m: Modulation | None) -> dict[str, Any]:
    return {
        "decision_id": m and m.decision,
        "policy_version": m and m.policy,
        "families": m and [text(name) for name in m.families],
        "action": m and list(m.action),
        "propensity": m and m.propensity,
        "features": m and list(m.features),
    }


def _contexts(record: Suggestion | Experience) -> list[str]:
    """Of a record; one that was written before they were stored gets them by the rules."""
    found = record.contexts or contexts.of(record.place, record.prefix)
    return [text(name) for name in found]


def outcome_row(o: Outcome) -> dict[str, Any]:
    return {
        "id": o.id,
        "suggestion_id": o.suggestion_id,
        "revision": o.revision,
        "kind": o.kind.value,
        "suggested": text(o.suggested),
        "final_text": text(o.final_text),
        "survival": o.survival,
        "implicit": o.implicit,
        "created_at": o.created_at,
        "final": o.final,
        "occasion": o.occasion,
        "detail": o.detail,
        "weight": o.weight,
        "typed": o.typed,
        "seen_s": o.seen_s,
    }


def feedback_row(f: Feedback) -> dict[str, Any]:
    return {
        "id": f.id,
        "suggestion_id": f.suggestion_id,
        "emoji": text(f.emoji),
        "comment": text(f.comment),
        "satisfaction": f.satisfaction,
        "confidence": f.confidence,
        "frustration": f.frustration,
        "reward": f.reward,
        "created_at": f.created_at,
        "read_by": f.read_by,
    }


def held_back_row(h: HeldBack) -> dict[str, Any]:
    return {
        **_place(h.place),
        "suggestion_id": h.suggestion_id,
        "chance": h.chance,
        "threshold": h.threshold,
        "size": h.size,
        "mean_logprob": h.mean_logprob,
        "source": h.source,
        "created_at": h.created_at,
    }


def sign_row(s: Sign) -> dict[str, Any]:
    return {
        **_place(s.place),
        "id": s.id,
        "suggestion_id": s.suggestion_id,
        "kind": s.kind.value,
        "strength": s.strength,
        "created_at": s.created_at,
    }


def experience_row(e: Experience) -> dict[str, Any]:
    return {
        **_place(e.place),
        "id": e.id,
        "prefix": text(e.prefix),
        "suffix": text(e.suffix),
        "context": text(e.context),
        "suggested": text(e.suggested),
        "final_text": text(e.final_text),
        "outcome": e.outcome.value,
        "implicit": e.implicit,
        "emotional": e.emotional,
        "reward": e.reward,
        "relevance": e.relevance,
        "decision": e.decision.value,
        "created_at": e.created_at,
        "revision": e.revision,
        "embedding": vector(e.embedding),
        "contexts": _contexts(e),
    }


def suggestion(row: Row) -> Suggestion:
    return Suggestion(
        id=uuid(row["id"]),
        place=place(row),
        text=row["text"],
        prefix=row["prefix"],
        suffix=row["suffix"],
        context=row["context"],
        base_fingerprint=row["base_fingerprint"],
        adapter_versions=tuple(map(uuid, row["adapter_versions"])),
        memory_ids=tuple(map(uuid, row["memory_ids"])),
        mean_logprob=row["mean_logprob"],
        latency_ms=row["latency_ms"],
        created_at=row["created_at"],
        source=row["source"],
        kind=row["kind"],
        contexts=tuple(row["contexts"]),
        modulation=modulation(row),
        chance=row["chance"],
        audited=row["audited"],
        asked=row["asked"],
        requests=row["requests"],
    )


def modulation(row: Row) -> Modulation | None:
    if row["decision_id"] is None:
        return None
    return Modulation(
        decision=uuid(row["decision_id"]),
        policy=None if row["policy_version"] is None else uuid(row["policy_version"]),
        families=tuple(row["families"]),
        action=tuple(row["action"]),
        propensity=row["propensity"],
        features=tuple(row["features"]),
    )


def trace(row: Row) -> Trace:
    return Trace(
        id=uuid(row["id"]),
        revision=row["revision"],
        place=place(row),
        prefix=row["prefix"],
        suggested=row["suggested"],
        final_text=row["final_text"],
        outcome=OutcomeKind(row["outcome"]),
        decision=Decision(row["decision"]),
        created_at=row["created_at"],
    )


def experience(row: Row) -> Experience:
    """Without the embedding, which only the search needs."""
    return Experience(
        id=uuid(row["id"]),
        place=place(row),
        prefix=row["prefix"],
        suffix=row["suffix"],
        context=row["context"],
        suggested=row["suggested"],
        final_text=row["final_text"],
        outcome=OutcomeKind(row["outcome"]),
        implicit=row["implicit"],
        emotional=row["emotional"],
        reward=row["reward"],
        relevance=row["relevance"],
        decision=Decision(row["decision"]),
        created_at=row["created_at"],
        revision=row["revision"],
        contexts=tuple(row["contexts"]),
    )


def place(row: Row) -> Place:
    return Place(
        uri=row["uri"],
        path=row["path"],
        language=row["language"],
        project=row["project"],
        offset=row["cursor_offset"],
    )


def uuid(value: UUID | asyncpg.pgproto.pgproto.UUID) -> UUID:
    """A plain UUID from the driver's own kind."""
    return UUID(int=value.int)


def to_json(value: Mapping[str, Any]) -> str:
    """JSON that jsonb accepts: no NaN or infinity (they become null), no NUL."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int) or value is None:
        return value
    return text(str(value))
