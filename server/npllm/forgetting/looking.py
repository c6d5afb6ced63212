"""`npllm memory show | search | export | stats`: what is remembered, as text, as JSON, as lines of JSON."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

from npllm.config import Config, FeedbackConfig
from npllm.feedback import explaining
from npllm.memory import codec
from npllm.memory.journal import Journal
from npllm.memory.looking import Case, Hit
from npllm.memory.places import Selector
from npllm.memory.store import Store
from npllm.types import Experience, HeldBack, JournalRecord, NpllmError, Sign, SignKind, Suggestion

LINES = 6  # of the text before the cursor that are shown
WIDTH = 100  # characters of a line in a list
SIGNS = {SignKind.REFUSALS: "the fifth (tenth ...) refusal in a row", SignKind.UNDO_STORM: "a storm of undoing"}
FOLDERS = ("postgres", "journal", "adapters", "attention", "cerebellum", "policies", "checkpoints", "reports", "logs")


def add_to(commands: Any) -> None:
    """Add these commands to `npllm memory`'s."""
    show = commands.add_parser("show", help="one suggestion, what became of it, and how its reward came about")
    show.add_argument("id", metavar="ID", help="its id, the beginning of it, or `last`")
    show.add_argument("--json", action="store_true", help="as one JSON object")
    search = commands.add_parser("search", help="what was learned, by words or by likeness")
    search.add_argument("words", nargs="+", metavar="WORD", help="all of them must be there, in any case")
    search.add_argument("--like", action="store_true", help="most alike first, by the embedder, in place of words")
    search.add_argument("--language", metavar="L", help="of this language (LSP's name) alone")
    search.add_argument("--project", metavar="P", help="of this workspace folder alone")
    search.add_argument("--limit", type=int, default=10, metavar="N", help="so many at most (default: 10)")
    search.add_argument("--json", action="store_true", help="one JSON object a line")
    export = commands.add_parser("export", help="everything that was recorded, one JSON object a line")
    export.add_argument("--output", metavar="FILE", help="into this new file, readable by you alone (default: stdout)")
    export.add_argument("--path", metavar="P", help="of a file, or a folder with all below it, alone")
    export.add_argument("--project", metavar="P", help="of a workspace folder alone")
    export.add_argument("--since", metavar="T", help="made then or later, as for forget")
    stats = commands.add_parser("stats", help="how much is remembered, and how much disk that takes")
    stats.add_argument("--json", action="store_true", help="as one JSON object")


# --- show ---------------------------------------------------------------------------------------------------------


async def show(args: argparse.Namespace, settings: Config, store: Store) -> int:
    case = await store.looking.case(args.id)
    print(json.dumps(_as_json(case)) if args.json else as_text(case, settings.feedback))
    return 0


def _as_json(case: Case) -> dict[str, Any]:
    return {
        "suggestion": case.suggestion and codec.plain(case.suggestion),
        "outcomes": [codec.plain(one) for one in case.outcomes],
        "feedback": [codec.plain(one) for one in case.feedback],
        "experience": case.experience and codec.plain(case.experience),
        "signs": [codec.plain(one) for one in case.signs],
    }


def as_text(case: Case, config: FeedbackConfig) -> str:
    """A case for the terminal, with its reward explained step by step."""
    known: Suggestion | Experience | None = case.suggestion or case.experience
    assert known is not None
    place = known.place
    lines = [
        f"{case.id}  {known.created_at:%Y-%m-%d %H:%M:%S} UTC",
        f"{place.path} ({place.language}), at character {place.offset}"
        + (f", in {place.project}" if place.project else ""),
    ]
    if (made := case.suggestion) is not None:
        by = ", ".join(map(str, made.adapter_versions)) or "the bare base"
        lines.append(f"by {made.source} ({by}), {made.latency_ms:.0f} ms, {made.mean_logprob:.2f} nats a token")
        lines.append(_requested(made))
        if made.chance is not None:
            audited = ", shown to see whether that is so" if made.audited else ""
            lines.append(f"its chance of being taken was {made.chance:.2f}{audited}")
        if made.memory_ids:
            lines.append("with in the prompt: " + ", ".join(map(str, made.memory_ids)))
    before = "\n".join(known.prefix.split("\n")[-LINES:])
    lines += ["", "before the cursor:", _quoted(before)]
    lines += ["suggested:", _quoted(case.suggestion.text if case.suggestion else known.suggested)]  # type: ignore[union-attr]
    for look in case.outcomes:
        what = look.kind.value.replace("_", " ") + (f" ({look.detail})" if look.detail else "")
        said = f"{look.created_at:%H:%M:%S} {what}, implicit reward {look.implicit:+.2f}"
        notes = [f"looked at: {look.occasion}"] if look.occasion else []
        notes += [f"{look.seen_s:.1f} s on screen"] if look.seen_s else []
        notes += [f"{look.typed} characters typed along"] if look.typed else []
        notes += ["the last look"] if look.final else []
        lines.append(", ".join([said, f"{look.survival:.0%} of it stands", *notes]))
    if case.outcomes and case.outcomes[-1].final_text.strip():
        lines += ["what stood there in the end:", _quoted(case.outcomes[-1].final_text)]
    for given in case.feedback:
        said = " ".join(part for part in (given.emoji, given.comment) if part)
        lines.append(
            f"said: {said!r}: satisfaction {given.satisfaction:.2f}, confidence {given.confidence:.2f}, "
            f"frustration {given.frustration:.2f}, emotional reward {given.reward:+.2f}"
            + (f" (read by a {given.read_by})" if given.read_by != "lexicon" else "")
        )
    for sign in case.signs:
        lines.append(f"{sign.created_at:%H:%M:%S} a sign of frustration, which changes no reward: {SIGNS[sign.kind]}")
    lines += _reward(case, config)
    if (learned := case.experience) is not None:
        lines.append("contexts: " + (", ".join(learned.contexts) or learned.context))
    else:
        lines.append("no experience was made of it.")
    return "\n".join(lines)


def _requested(made: Suggestion) -> str:
    """When and how it was asked for, and when it was ready."""
    at = made.created_at - timedelta(milliseconds=made.latency_ms)
    how = "by a key of the person's own" if made.asked else "as the person typed"
    before = f", after {made.requests - 1} requests that gave nothing" if made.requests > 1 else ""
    return f"{at:%H:%M:%S.%f}"[:-3] + f" requested {how}{before}; {made.created_at:%H:%M:%S.%f}"[:-3] + " offered"


def _reward(case: Case, config: FeedbackConfig) -> list[str]:
    """How it came about."""
    lines = ["its reward:"]
    if case.outcomes:
        lines.append(f"  implicit: {explaining.implicit(case.outcomes[-1])}")
    if case.feedback:
        lines.append(f"  emotional: {explaining.emotional(case.feedback[-1])}")
    if case.experience is not None:
        frustration = case.feedback[-1].frustration if case.feedback else 0.0
        lines += [f"  {line}" for line in explaining.total(case.experience, frustration, config)]
    return lines if len(lines) > 1 else []


def _quoted(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.split("\n"))


# --- search -------------------------------------------------------------------------------------------------------


async def search(args: argparse.Namespace, settings: Config, store: Store) -> int:
    if args.limit < 1:
        raise NpllmError("--limit must be at least 1.")
    narrowed = {"language": args.language, "project": args.project and _folder(args.project), "limit": args.limit}
    if args.like:
        from npllm.memory.embedder import Embedder

        embedder = Embedder(settings.memory.embedder, threads=settings.memory.threads)
        try:
            [query] = await embedder.embed([" ".join(args.words)])
        finally:
            embedder.close()
        hits = await store.looking.nearest(query, **narrowed)
    else:
        hits = await store.looking.with_words(args.words, **narrowed)
    if not hits:
        print("Nothing of that is remembered.", file=sys.stderr)
        return 1
    for hit in hits:
        print(json.dumps(_hit_as_json(hit)) if args.json else _hit_as_text(hit))
    return 0


def _hit_as_json(hit: Hit) -> dict[str, Any]:
    return {"similarity": hit.similarity, **codec.plain(hit.experience)}


def _hit_as_text(hit: Hit) -> str:
    found = hit.experience
    alike = "" if hit.similarity is None else f"{hit.similarity:.2f}  "
    what = f"{found.place.path}  {found.outcome.value}, {found.reward:+.2f}"
    head = f"{alike}{found.id}  {found.created_at:%Y-%m-%d %H:%M}  {what}"
    begun = found.prefix.rpartition("\n")[2]
    written = (begun + found.final_text).strip("\n").split("\n")
    shown = [line if len(line) <= WIDTH else line[: WIDTH - 3] + "..." for line in written[:LINES]]
    return "\n".join([head, *(f"  | {line}" for line in shown), *(["  | ..."] if len(written) > LINES else [])])


def _folder(path: str) -> str:
    return os.path.normpath(Path(path).expanduser().absolute())


# --- export -------------------------------------------------------------------------------------------------------


async def export(args: argparse.Namespace, selector: Selector, store: Store) -> int:
    """Journal records as the journal writes them, so that what reads one reads the other."""
    chosen: set[UUID] = set()
    count = 0
    everything = selector == Selector()
    with _opened(args.output) as stream:
        async for record in store.looking.records():
            if everything or _wanted(record, selector, chosen):
                stream.write(codec.encode(record).decode("ascii"))
                count += 1
    if args.output:
        print(f"{count} records are in {args.output}.")
    return 0


def _wanted(record: JournalRecord, selector: Selector, chosen: set[UUID]) -> bool:
    """Whether a record is meant; what became of a suggestion goes with it. Suggestions must come first."""
    if isinstance(record, Suggestion | Experience):
        if selector.takes(record):
            chosen.add(record.id)
        return record.id in chosen
    if isinstance(record, HeldBack | Sign):
        return selector.takes(record)
    return record.suggestion_id in chosen


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    """A new file for this user alone, whole or not there; or stdout."""
    if output is None:
        yield sys.stdout
        return
    path = Path(output)
    temporary = path.with_name(path.name + ".part")
    try:
        if path.exists():
            raise FileExistsError(17, "there is such a file already")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise NpllmError(f"{output} cannot be written: {error.strerror or error}. Choose another --output.") from error


# --- stats --------------------------------------------------------------------------------------------------------


async def stats(args: argparse.Namespace, settings: Config, store: Store) -> int:
    counts = await store.counts()
    sizes = await store.looking.sizes()
    folders = {name: size for name in FOLDERS if (size := _size(settings.home / name)) is not None}
    set_aside = sorted(settings.journal_dir.glob("*.corrupt"))
    backlog = Journal(settings.journal_dir).backlog()
    if args.json:
        facts = {
            "rows": dataclasses.asdict(counts),
            "experiences": [
                {"language": language, "decision": decision, "count": count}
                for (language, decision), count in sizes.experiences.items()
            ],
            "projects": dict(sizes.projects),
            "first": sizes.first.isoformat() if sizes.first else None,
            "last": sizes.last.isoformat() if sizes.last else None,
            "unembedded": sizes.unembedded,
            "kept_at_most": {
                "suggestions": settings.memory.keep_suggestions,
                "experiences": settings.memory.keep_experiences,
            },
            "table_bytes": dict(sizes.bytes_by_table),
            "database_bytes": sizes.database_bytes,
            "folder_bytes": folders,
            "journal": {"backlog": backlog, "set_aside": len(set_aside)},
        }
        print(json.dumps(facts))
        return 0
    print(f"data folder {settings.home}")
    rows = [
        (name, str(getattr(counts, name)), sizes.bytes_by_table.get(name, 0)) for name in dataclasses.asdict(counts)
    ]
    for name, count, size in rows:
        print(f"  {name:<18} {count:>10} rows  {_megabytes(size)}")
    print(f"  {'the whole database':<18} {'':>15}  {_megabytes(sizes.database_bytes)}")
    kept = (settings.memory.keep_suggestions, settings.memory.keep_experiences)
    bounds = ", ".join(
        f"{most or 'all'} {name}" for most, name in zip(kept, ("suggestions", "experiences"), strict=True)
    )
    print(f"kept at most: {bounds}; a sleep deletes the oldest beyond that")
    if sizes.first and sizes.last:
        print(f"experiences from {sizes.first:%Y-%m-%d} to {sizes.last:%Y-%m-%d}; {sizes.unembedded} not yet embedded")
    for (language, decision), number in sizes.experiences.items():
        print(f"  {language:<18} {decision:<8} {number:>7}")
    print("projects")
    for project, number in sizes.projects.items():
        print(f"  {number:>7}  {project or '(none)'}")
    print("on disk")
    for name, size in folders.items():
        print(f"  {name:<18} {'':>15}  {_megabytes(size)}")
    print(
        f"journal: {backlog} records wait for the database"
        + (f", {len(set_aside)} files set aside" if set_aside else "")
    )
    return 0


def _size(folder: Path) -> int | None:
    """Bytes on disk of a folder with all below it, links to it followed; None where there is none."""
    if not folder.exists():
        return None
    total = 0
    for here, _, names in os.walk(os.path.realpath(folder)):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                found = os.lstat(os.path.join(here, name))  # noqa: PTH118
                total += found.st_blocks * 512
    return total


def _megabytes(size: int) -> str:
    return f"{size / 1e6:>9.1f} MB"
