"""What following suggestions costs at each keystroke, in a long file: `python -m tests.benchmarks.keystroke`.

First whole servers: the same messages, byte for byte, go to the server of `npllm serve` with 50 suggestions followed
and to a bare one that keeps documents and nothing else, by turns, so that both meet the same noise. Prints milliseconds
of a message, from its bytes to the next turn of the event loop, by the clock on the wall and in CPU time (other
programs do not count), median and 95th percentile of each, and what ours adds. With them a formatter that sends all
lines anew: how long its message takes, and how long the next keystroke would wait while it is read.

Then the parts: all that listens to a change beside the bookkeeping (`Document.apply`, timed in the same run), and what
a save costs where accepted texts were edited, first and when nothing has changed since.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer

from npllm.assist.offering import Offer
from npllm.assist.repository import Repositories
from npllm.config import Config, FeedbackConfig, PacingConfig
from npllm.feedback.frustration import Signs
from npllm.feedback.implicit import ImplicitFeedback
from npllm.feedback.pacing import Pacer
from npllm.feedback.tracking import Change
from npllm.lsp import server as servers
from npllm.lsp.documents import Document, Edit
from npllm.lsp.protocol import DocumentProtocol
from npllm.types import Place, Suggestion, new_id

URI = "file:///w/a.py"
FOLLOWED = 50
SAVED = 40  # accepted and edited texts in a document that is saved
BLOCK = "".join(f"    total_{letter} = combine(first[{letter}], second[{letter}])\n" for letter in "abcdefgh").strip()
HERE = str(Path(__file__).resolve().parents[2])  # a repository, where it is one


class Desk:
    """A document of many lines with suggestions along it, and all that listens to its changes."""

    def __init__(self, lines: int) -> None:
        text = "".join(f"value_{number} = compute({number})\n" for number in range(lines))
        self.document = Document(URI, "python", text)
        self.tracker = ImplicitFeedback(FeedbackConfig())
        self.signs, self.pacer, self.repositories = Signs(), Pacer(PacingConfig()), Repositories()
        for line in range(0, lines, max(1, lines // FOLLOWED)):
            self.offer(text, self.document.offset(lsp.Position(line, 8)), "compute(1)")
        self.repositories.holds(HERE)

    def offer(self, text: str, offset: int, suggested: str) -> None:
        """A suggestion is on screen."""
        place = Place(URI, "a.py", "python", HERE, offset)
        made = Suggestion(
            new_id(), place, suggested, text[max(0, offset - 6000) : offset], text[offset : offset + 2000],
            "language:python", "f", (), (), -1.0, 1.0, datetime.now(UTC),
        )  # fmt: skip
        self.tracker.shown(made, time.monotonic(), until_commit=True)

    def change(self, line: int, start: int, end: int, new: str) -> tuple[float, float]:
        """Seconds of CPU time for the bookkeeping, and for what listens."""
        where = lsp.Range(lsp.Position(line, start), lsp.Position(line, end))
        began = time.thread_time()
        edit = self.document.apply(lsp.TextDocumentContentChangePartial(range=where, text=new))
        kept = time.thread_time()
        self._listen(edit)
        return kept - began, time.thread_time() - kept

    def _listen(self, edit: Edit) -> None:
        now = time.monotonic()
        place = Place(URI, "a.py", "python", HERE, edit.start + len(edit.new_text))
        if len(edit.new_text) == 1 and edit.start == edit.end:
            self.pacer.key(now)
        self.signs.changed(place, edit.before, Change(edit.start, edit.end, edit.new_text), now)
        if edit.end - edit.start > 1:
            self.repositories.moved(HERE)
        for _ in self.tracker.changing(URI, edit.before, edit.start, edit.end, edit.new_text, now):
            pass
        self.tracker.tick(now)


def typing(desk: Desk, line: int, keys: int) -> list[tuple[float, float]]:
    return [desk.change(line, number % 60, number % 60, "a") for number in range(keys)]


def correcting(desk: Desk, line: int, keys: int) -> list[tuple[float, float]]:
    return [
        desk.change(line, 0, 0, "word") if number % 2 == 0 else desk.change(line, 0, 4, "") for number in range(keys)
    ]


def saving(lines: int) -> None:
    """Prints what saves cost, and how often the bookkeeping of one key that is."""
    desk = Desk(lines)
    desk.tracker.close_all(time.monotonic())
    for line in range(lines - 1, 0, -max(1, lines // SAVED)):
        desk.offer(desk.document.text, desk.document.offset(lsp.Position(line, 0)), BLOCK)
        desk.change(line, 0, 0, BLOCK)
        desk.change(line + 3, 10, 10, "x")
    key = statistics.median(kept for kept, _ in typing(desk, 0, 50))
    print(f"saves, {lines} lines, {SAVED} accepted texts of 8 lines, all edited")
    for name in ("at first", "unchanged"):
        began = time.thread_time()
        told = len(desk.tracker.saved(URI, time.monotonic()))
        spent = time.thread_time() - began
        print(f"  {name:<10} {1000 * spent:.3f} ms ({told} told); {spent / key:.2f} of the bookkeeping of a key")


def measure(name: str, lines: int, keys: int, work: Callable[[Desk, int, int], list[tuple[float, float]]]) -> None:
    print(f"{name}, {lines} lines, {FOLLOWED} suggestions followed, {keys} changes")
    for where, line in (("first line", 0), ("middle", lines // 2), ("last line", lines - 1)):
        desk = Desk(lines)
        work(desk, line, 20)
        times = work(desk, line, keys)
        kept, listened = ([1000 * pair[index] for pair in times] for index in (0, 1))
        p95 = statistics.quantiles(listened, n=20)[-1]
        share = statistics.median(listened) / statistics.median(kept)
        said = f"median {statistics.median(listened):.3f} ms, p95 {p95:.3f} ms"
        print(f"  {where:<10} {said}; {share:.2f} of the bookkeeping ({statistics.median(kept):.3f} ms)")


# -- whole servers ---------------------------------------------------------------------------------------


def bare() -> LanguageServer:
    """Keeps documents."""
    server = LanguageServer("bare", "0", protocol_cls=DocumentProtocol)
    documents: dict[str, Document] = {}

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        item = params.text_document
        documents[item.uri] = Document(item.uri, item.language_id, item.text, item.version)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        for change in params.content_changes:
            documents[params.text_document.uri].apply(change)

    return server


def message(method: str, params: dict[str, object], **more: int) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more})


def edits(text: str, keys: int, kind: str) -> list[str]:
    """Key presses in the middle of a document, as messages; `whole` sends all of it each time."""
    lines = text.split("\n")
    line = len(lines) // 2
    made = []
    for number in range(keys):
        column = number % 60
        put, at, until = ("a", column, column) if kind != "words" else ("word", 0, 0) if number % 2 == 0 else ("", 0, 4)
        lines[line] = lines[line][:at] + put + lines[line][until:]
        where = {"start": {"line": line, "character": at}, "end": {"line": line, "character": until}}
        change: dict[str, object] = {"text": "\n".join(lines)} if kind == "whole" else {"range": where, "text": put}
        document = {"uri": URI, "version": number + 2}
        made.append(message("textDocument/didChange", {"textDocument": document, "contentChanges": [change]}))
    return made


class Pair:
    """Ours and the bare one, with the same document open."""

    def __init__(self, lines: int, home: Path) -> None:
        self.text = "".join(f"value_{number} = compute({number})\n" for number in range(lines))
        self.ours, self.bare = servers.build(Config(home=home)), bare()
        item = {"uri": URI, "languageId": "python", "version": 1, "text": self.text}
        hello = {"processId": None, "rootUri": "file:///w", "capabilities": {}}
        for server in (self.ours, self.bare):
            server.protocol.set_writer(io.BytesIO())
            self._handle(server, message("initialize", hello, id=1))
            self._handle(server, message("textDocument/didOpen", {"textDocument": item}))
        document = self.ours.documents[URI]
        for line in range(0, lines, max(1, lines // FOLLOWED)):
            offset = document.offset(lsp.Position(line, 8))
            made = Suggestion(
                new_id(), self.ours.place(document, offset), "compute(1)", self.text[max(0, offset - 6000) : offset],
                self.text[offset : offset + 2000], "language:python", "f", (), (), -1.0, 1.0, datetime.now(UTC),
            )  # fmt: skip
            self.ours.assistant.offered(Offer(made, made.text))

    async def time(self, body: str) -> tuple[tuple[float, float], tuple[float, float]]:
        """(wall, CPU) milliseconds of a message for ours, and for the bare one."""
        found = []
        for server in (self.ours, self.bare):
            wall, cpu = time.perf_counter(), time.thread_time()
            self._handle(server, body)
            await asyncio.sleep(0)
            found.append((1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - cpu)))
        return found[0], found[1]

    @staticmethod
    def _handle(server: LanguageServer, body: str) -> None:
        protocol = server.protocol
        protocol.handle_message(json.loads(body, object_hook=protocol.structure_message))


async def serving(lines: int, keys: int) -> None:
    for kind in ("typing", "words", "whole"):
        with tempfile.TemporaryDirectory() as home:
            pair = Pair(lines, Path(home))
            times = [await pair.time(body) for body in edits(pair.text, keys if kind != "whole" else keys // 5, kind)][
                5:
            ]
            await pair.ours.assistant.listener.heard()
        print(f"{kind}, {lines} lines, {FOLLOWED} suggestions followed, {len(times)} messages")
        for unit, index in (("wall", 0), ("CPU", 1)):
            ours, plain = ([pair[which][index] for pair in times] for which in (0, 1))
            added = [mine - other for mine, other in zip(ours, plain)]
            said = [f"{name} {_spread(values)}" for name, values in (("ours", ours), ("bare", plain), ("added", added))]
            ratio = statistics.median(ours) / statistics.median(plain)
            print(f"  {unit:<4} {'; '.join(said)}; {ratio:.2f} of the bare server")


async def formatting(lines: int) -> None:
    """Prints what one replacement of all lines costs, and how long a keystroke waits meanwhile."""
    with tempfile.TemporaryDirectory() as home:
        pair = Pair(lines, Path(home))
        turns = []
        for number in range(6):
            text = pair.text.replace("(", "( ") if number % 2 == 0 else pair.text
            change = {"textDocument": {"uri": URI, "version": number + 2}, "contentChanges": [{"text": text}]}
            ours, plain = await pair.time(message("textDocument/didChange", change))
            heard = asyncio.create_task(pair.ours.assistant.listener.heard())
            gaps = []
            while not heard.done():
                began = time.perf_counter()
                await asyncio.sleep(0)
                gaps.append(1000 * (time.perf_counter() - began))
            if number:
                turns.append((ours[0], plain[0], gaps))
    print(f"formatter, {lines} lines, {FOLLOWED} suggestions followed, {len(turns)} times, wall")
    ours, plain = (statistics.median(turn[which] for turn in turns) for which in (0, 1))
    print(f"  its message: ours {ours:.1f} ms, bare {plain:.1f} ms; {ours / plain:.2f} of the bare server")
    waits = [gap for _, _, gaps in turns for gap in gaps]
    spent = statistics.median(sum(gaps) for _, _, gaps in turns)
    print(f"  read in {spent:.1f} ms; a keystroke meanwhile waits {_spread(waits)}, at most {max(waits):.3f} ms")


def _spread(values: list[float]) -> str:
    return f"p50 {statistics.median(values):.3f} p95 {statistics.quantiles(values, n=20)[-1]:.3f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--keys", type=int, default=500)
    args = parser.parse_args()
    asyncio.run(serving(args.lines, args.keys))
    asyncio.run(formatting(args.lines))
    measure("typing", args.lines, args.keys, typing)
    measure("words put in and taken back", args.lines, args.keys, correcting)
    saving(args.lines)


if __name__ == "__main__":
    main()
