"""What one context's training is, fixed when it begins and kept beside its checkpoint, so that it can go on.

It names experiences, it does not copy them: texts stay in the database.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from npllm.sleep.dataset import Part
from npllm.sleep.files import sync_folder

log = logging.getLogger(__name__)

PLAN = "plan.json"
STATE = "state.safetensors"


@dataclass(frozen=True, slots=True)
class OldSlice:
    """Held-out experiences of an earlier sleep.

    Attributes:
        version: the adapter version that was judged by them first.
        best: the lowest nats per byte that a version of this base and context had on them; None: not known.
    """

    version: UUID
    held_at: datetime
    ids: tuple[UUID, ...]
    best: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One context's part of a sleep.

    Attributes:
        version_id: of the adapter version that will come of it, also when it is gone on with.
        parent: the version it starts from, which was in use.
        learn, replay, inner, held_out, negatives: ids of experiences, see `dataset.Part`.
        importance: of the replayed ones, by id.
        slices: what earlier sleeps held out and this one is judged by, too.
        until: when the newest of them was made; what comes later is new for the next sleep.
        budget_s: for the training.
        general_best: the lowest nats per byte that general code of `general_bytes` cost so far; None: not known.
    """

    context: str
    version_id: UUID
    base_fingerprint: str
    parent: UUID | None
    learn: tuple[UUID, ...]
    replay: tuple[UUID, ...]
    inner: tuple[UUID, ...]
    held_out: tuple[UUID, ...]
    until: datetime
    budget_s: float
    negatives: tuple[UUID, ...] = ()
    importance: Mapping[UUID, float] = field(default_factory=dict)
    slices: tuple[OldSlice, ...] = ()
    general_best: float | None = None
    general_bytes: float = 0.0

    @property
    def ids(self) -> tuple[UUID, ...]:
        """All experiences it needs."""
        named = (*self.learn, *self.replay, *self.inner, *self.held_out, *self.negatives)
        return (*named, *(id for item in self.slices for id in item.ids))

    @classmethod
    def new(
        cls,
        context: str,
        base_fingerprint: str,
        parent: UUID | None,
        part: Part,
        *,
        slices: Sequence[OldSlice] = (),
        until: datetime,
        budget_s: float,
        version_id: UUID,
        general_best: float | None = None,
        general_bytes: float = 0.0,
    ) -> Plan:
        """A plan for a division of experiences."""
        return cls(
            context,
            version_id,
            base_fingerprint,
            parent,
            **{name: tuple(item.id for item in getattr(part, name)) for name in _PARTS},
            until=until,
            budget_s=budget_s,
            importance=part.importance,
            slices=tuple(slices),
            general_best=general_best,
            general_bytes=general_bytes,
        )

    def write(self, folder: Path) -> None:
        """Keep it as `plan.json`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = {
            "context": self.context,
            "version_id": str(self.version_id),
            "base_fingerprint": self.base_fingerprint,
            "parent": str(self.parent) if self.parent else None,
            **{name: [str(item) for item in getattr(self, name)] for name in _PARTS},
            "until": self.until.timestamp(),
            "budget_s": self.budget_s,
            "general_best": self.general_best,
            "general_bytes": self.general_bytes,
            "importance": {str(id): value for id, value in self.importance.items()},
            "slices": [
                {
                    "version": str(item.version),
                    "held_at": item.held_at.timestamp(),
                    "ids": [str(id) for id in item.ids],
                    "best": item.best,
                }
                for item in self.slices
            ],
        }
        temporary = folder / (PLAN + ".tmp")
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(document, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(folder / PLAN)
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """The plan kept in a folder; None if there is none that can be used."""
        try:
            document: Any = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            return cls(
                context=str(document["context"]),
                version_id=UUID(document["version_id"]),
                base_fingerprint=str(document["base_fingerprint"]),
                parent=UUID(document["parent"]) if document["parent"] else None,
                **{name: tuple(UUID(item) for item in document[name]) for name in _PARTS},
                until=datetime.fromtimestamp(document["until"], UTC),
                budget_s=float(document["budget_s"]),
                general_best=document.get("general_best"),
                general_bytes=float(document.get("general_bytes", 0.0)),
                importance={UUID(id): float(value) for id, value in document["importance"].items()},
                slices=tuple(
                    OldSlice(
                        UUID(item["version"]),
                        datetime.fromtimestamp(item["held_at"], UTC),
                        tuple(UUID(id) for id in item["ids"]),
                        item["best"],
                    )
                    for item in document["slices"]
                ),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the plan in %s is of no use, a new one is made: %s", folder, error)
            return None


_PARTS = ("learn", "replay", "inner", "held_out", "negatives")


def folder_name(context: str) -> str:
    """A context as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9]+", "-", context)[:40] + f"-{zlib.crc32(context.encode()):08x}"
