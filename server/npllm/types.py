"""The value types that every room of the house shares.

Frozen dataclasses and enums only: no behaviour, no I/O, no torch. Text offsets are Python string
offsets (code points); LSP positions are translated at the editor's edge (`npllm.lsp`) and nowhere else.
Times are timezone-aware UTC datetimes; durations are seconds unless the name says `_ms`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import uuid_utils.compat as uuid_utils

EMBEDDING_DIM = 384
GENERIC_CONTEXT = "generic"


class NpllmError(Exception):
    """Something went wrong that the person can mend; the message names the cause and the mend."""


class ConfigError(NpllmError):
    """A setting is wrong."""


class ModelError(NpllmError):
    """A base model or an adapter cannot be loaded."""


class StoreError(NpllmError):
    """The database or the journal cannot be used."""


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): unique without coordination, and ordered by time of making."""
    return uuid_utils.uuid7()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the cursor is: a document and an offset into its text."""

    uri: str
    path: str  # relative to the project's root where there is one, else the file's name
    language: str  # LSP language id, e.g. "python"
    project: str  # absolute path of the workspace folder, "" where there is none
    offset: int


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of remembered code that may be put into a prompt."""

    path: str
    text: str
    score: float  # cosine similarity in [-1, 1]
    experience_id: UUID | None = None
    satisfaction: float = 0.0  # the experience's reward, [-1, 1]
    project: str = ""  # whose `path` it is; as in `Place`
    uri: str = ""  # of its document


@dataclass(frozen=True, slots=True)
class Modulation:
    """Which adapters were to act and how strongly, and how likely that choice was when it was made."""

    decision: UUID  # one decision may serve many suggestions in a row
    policy: UUID | None  # the policy's version; None = the rules
    families: tuple[str, ...]  # contexts with a loaded adapter here, the most specific first
    action: tuple[float, ...]  # how strongly each of them acts, in [0, 1]
    propensity: float  # the probability with which this action was chosen, in (0, 1]
    features: tuple[float, ...]  # what the policy saw; see models.modulator


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One text that was offered, and everything needed to know later how it came about."""

    id: UUID
    place: Place
    text: str
    prefix: str  # the document before the cursor, its last few thousand characters
    suffix: str  # the document behind the cursor, its first few thousand characters
    context: str  # its language's adapter family, e.g. "language:python"
    base_fingerprint: str
    adapter_versions: tuple[UUID, ...]
    memory_ids: tuple[UUID, ...]  # experiences that stood in the prompt
    mean_logprob: float  # nats per token, of the text that was shown
    latency_ms: float
    created_at: datetime
    source: str = "model"  # "model" | "cache" | "reflex": the cerebellum alone; adapter_versions names its version, too
    kind: str = "inline"  # "inline" | "completion" | "rewrite"
    contexts: tuple[str, ...] = ()  # all that the place belongs to, the most specific first; see npllm.contexts
    modulation: Modulation | None = None  # None where there was nothing to choose from
    chance: float | None = None  # estimated chance that it is taken, [0, 1]; None where too little is known
    audited: bool = False  # shown although the chance was too small, to see whether that is so
    asked: bool = False  # by a key of the person's own
    requests: int = 1  # that it took: this one, and those before it in its language and project that gave nothing


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A suggestion that was made and not shown, because it was unlikely to be taken; without its text."""

    suggestion_id: UUID
    place: Place
    chance: float  # [0, 1]
    threshold: float  # then in force
    size: int  # characters, white space aside
    mean_logprob: float
    source: str
    created_at: datetime


class OutcomeKind(enum.StrEnum):
    """What became of a suggestion."""

    ACCEPTED = "accepted"
    PARTIALLY_ACCEPTED = "partially_accepted"
    EDITED = "edited"  # accepted, then changed
    DELETED = "deleted"  # accepted, then removed or undone
    REJECTED = "rejected"  # the person wrote something else there
    DISMISSED = "dismissed"  # Escape
    IGNORED = "ignored"  # seen, and left alone
    UNSEEN = "unseen"  # never on screen long enough: no label
    SUPERSEDED = "superseded"  # replaced by another suggestion that continues it: no label


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a suggestion, as far as is known at `created_at`; later ones replace earlier ones."""

    id: UUID
    suggestion_id: UUID
    kind: OutcomeKind
    suggested: str
    final_text: str  # what stood there in the end: accepted, edited, or typed instead
    survival: float  # share of the suggested characters that survive, [0, 1]
    implicit: float  # implicit reward, [-1, 1]
    created_at: datetime
    revision: int = 0  # rises with every later look at the same suggestion
    final: bool = False
    occasion: str = ""  # what made us look: a time ("30 s"), "save", "commit", "close"; "" = a change or a command
    detail: str = ""  # how it came about, e.g. "undone"; see feedback.detail
    weight: float = 1.0  # of the surviving characters, (0, 1]: a factor of `implicit`; see feedback.reward
    typed: int = 0  # characters that were typed by hand while it was on screen
    seen_s: float | None = None  # on screen until something became of it, or now; None = not known


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the person said about a suggestion: emoji, thumbs, a comment."""

    id: UUID
    suggestion_id: UUID
    emoji: str
    comment: str
    satisfaction: float  # [0, 1]
    confidence: float  # [0, 1]
    frustration: float  # [0, 1]
    reward: float  # emotional reward, [-1, 1]
    created_at: datetime
    read_by: str = "lexicon"  # or "classifier", which corrects that


class SignKind(enum.StrEnum):
    """What a person does when something annoys them."""

    REFUSALS = "refusals"  # five in a row, ten, ...
    UNDO_STORM = "undo_storm"  # five undos within ten seconds


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of frustration in what the person does; apart from `Feedback`, which is what they say."""

    id: UUID
    suggestion_id: UUID  # the last one there; where there was none, the sign's own id
    kind: SignKind
    strength: float  # (0, 1]
    place: Place
    created_at: datetime


class Decision(enum.StrEnum):
    """The replay decision, about the suggestion (never about what the person wrote in the end)."""

    KEEP = "keep"
    LOW = "low"  # relevance between the two thresholds: kept at low priority
    DISCARD = "discard"
    AVOID = "avoid"  # high frustration: never its like again, a negative example in training


@dataclass(frozen=True, slots=True)
class Experience:
    """What is learned from: a place, what was suggested there, and what the person ended up with."""

    id: UUID  # equals the suggestion's id: one experience per suggestion
    place: Place
    prefix: str
    suffix: str
    context: str
    suggested: str
    final_text: str
    outcome: OutcomeKind
    implicit: float
    emotional: float | None
    reward: float  # r = 0.7 * implicit + 0.3 * emotional, in [-1, 1]
    relevance: float  # [0, 1]
    decision: Decision
    created_at: datetime
    revision: int = 0
    embedding: tuple[float, ...] | None = None  # EMBEDDING_DIM numbers, unit length
    contexts: tuple[str, ...] = ()  # as the suggestion's


@dataclass(frozen=True, slots=True)
class Trace:
    """An experience without what is long and what was made of it; `prefix` is its last thousand characters."""

    id: UUID
    revision: int
    place: Place
    prefix: str
    suggested: str
    final_text: str
    outcome: OutcomeKind
    decision: Decision
    created_at: datetime


class VersionState(enum.StrEnum):
    PUBLISHED = "published"
    REJECTED = "rejected"  # the gate said no; kept, with the reason
    RETIRED = "retired"  # replaced by a newer published version, rolled back, or imported
    FORGOTTEN = "forgotten"  # it had learned from what was forgotten since: its weights are deleted


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """A LoRA adapter that a sleep produced: a plain PEFT folder and its lineage."""

    id: UUID
    context: str
    base_fingerprint: str
    parent: UUID | None
    consolidation_id: UUID
    folder: str  # relative to the data folder
    sha256: str  # of adapter_model.safetensors
    state: VersionState
    reason: str
    metrics: Mapping[str, float]
    created_at: datetime
    pinned: bool = False  # stays in use: no sleep replaces it


@dataclass(frozen=True, slots=True)
class AttentionVersion:
    """Gains of neuromodulated attention that a sleep learned for one base: a folder and its lineage."""

    id: UUID
    base_fingerprint: str
    parent: UUID | None
    consolidation_id: UUID
    folder: str  # relative to the data folder
    sha256: str  # of gains.safetensors
    state: VersionState
    reason: str
    metrics: Mapping[str, float]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CerebellumVersion:
    """A whole small model that a sleep produced, and its lineage. It belongs to no base."""

    id: UUID
    origin: str  # fingerprint of the weights that the first version began with
    parent: UUID | None
    consolidation_id: UUID
    folder: str  # relative to the data folder
    sha256: str  # of model.safetensors
    state: VersionState
    reason: str
    metrics: Mapping[str, float]
    created_at: datetime
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A modulator's policy that a sleep produced, for one base."""

    id: UUID
    base_fingerprint: str
    parent: UUID | None
    consolidation_id: UUID
    folder: str  # relative to the data folder
    sha256: str  # of its weights
    state: VersionState
    reason: str
    metrics: Mapping[str, float]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Pattern:
    """A line that the person writes again and again."""

    language: str  # LSP language id
    text: str  # without what surrounds it
    count: int  # how often it was written, and stands in the project
    last_seen: datetime


class ConsolidationState(enum.StrEnum):
    RUNNING = "running"
    INTERRUPTED = "interrupted"  # the person came back: a checkpoint waits
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Consolidation:
    """One sleep."""

    id: UUID
    state: ConsolidationState
    started_at: datetime
    ended_at: datetime | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


class ServerState(enum.StrEnum):
    """What the status bar shows."""

    STARTING = "starting"
    AWAKE = "awake"
    THINKING = "thinking"
    DROWSY = "drowsy"
    SLEEPING = "sleeping"
    WAKING = "waking"  # the person is back, and the child keeps its state and goes
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows in the store, of the present database user."""

    suggestions: int = 0
    outcomes: int = 0
    feedback: int = 0
    experiences: int = 0
    adapter_versions: int = 0
    consolidations: int = 0


JournalRecord = Suggestion | Outcome | Feedback | Experience | HeldBack | Sign

TokenIds = Sequence[int]
