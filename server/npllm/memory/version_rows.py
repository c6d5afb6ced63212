"""Between the value types of what sleep made and the tables' rows: parameters one way, dataclasses the other."""

from __future__ import annotations

import json
import math
from typing import Any

from npllm.memory.rows import Row, text, to_json, uuid
from npllm.types import (
    AdapterVersion,
    AttentionVersion,
    Consolidation,
    ConsolidationState,
    PolicyVersion,
    VersionState,
)


def version_row(v: AdapterVersion) -> dict[str, Any]:
    return {**_made_row(v), "context": v.context}


def attention_row(v: AttentionVersion) -> dict[str, Any]:
    return _made_row(v)


def policy_row(v: PolicyVersion) -> dict[str, Any]:
    return _made_row(v)


def _made_row(v: AdapterVersion | AttentionVersion | PolicyVersion) -> dict[str, Any]:
    """What every kind of version has."""
    return {
        "id": v.id,
        "base_fingerprint": v.base_fingerprint,
        "parent": v.parent,
        "consolidation_id": v.consolidation_id,
        "folder": v.folder,
        "sha256": v.sha256,
        "state": v.state.value,
        "reason": text(v.reason),
        "metrics": to_json(v.metrics),
        "created_at": v.created_at,
    }


def consolidation_row(c: Consolidation) -> dict[str, Any]:
    return {
        "id": c.id,
        "state": c.state.value,
        "started_at": c.started_at,
        "ended_at": c.ended_at,
        "report": to_json(c.report),
    }


def version(row: Row) -> AdapterVersion:
    return AdapterVersion(context=row["context"], pinned=row["pinned"], **_made(row))


def attention_version(row: Row) -> AttentionVersion:
    return AttentionVersion(**_made(row))


def policy(row: Row) -> PolicyVersion:
    return PolicyVersion(**_made(row))


def _made(row: Row) -> dict[str, Any]:
    """What every kind of version has."""
    return {
        "id": uuid(row["id"]),
        "base_fingerprint": row["base_fingerprint"],
        "parent": None if row["parent"] is None else uuid(row["parent"]),
        "consolidation_id": uuid(row["consolidation_id"]),
        "folder": row["folder"],
        "sha256": row["sha256"],
        "state": VersionState(row["state"]),
        "reason": row["reason"],
        "metrics": _metrics(row["metrics"]),
        "created_at": row["created_at"],
    }


def _metrics(stored: str) -> dict[str, float]:
    return {key: math.nan if value is None else value for key, value in json.loads(stored).items()}


def consolidation(row: Row) -> Consolidation:
    return Consolidation(
        id=uuid(row["id"]),
        state=ConsolidationState(row["state"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        report=json.loads(row["report"]),
    )
