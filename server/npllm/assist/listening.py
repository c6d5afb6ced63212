"""What became of each suggestion: hears the editor's events, git and the clock, and hands on outcomes and signs.

What is told of them is `npllm.feedback`'s business; what is written down, the recorder's. All methods are called on the
event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from npllm.assist.backlog import Backlog
from npllm.assist.recorder import Recorder
from npllm.assist.repository import RECENT_S, Repositories
from npllm.config import Config
from npllm.feedback.frustration import Signs
from npllm.feedback.implicit import ImplicitFeedback
from npllm.feedback.tracking import Change, TrackedRange
from npllm.types import Outcome, Place, Sign, Suggestion
from npllm.uris import file_path

LONG = 20_000  # characters that are replaced, or put in their place: read in steps


class Listener:
    """One per server.

    Args:
        records: whether what happens at a place is written down.
        on_outcome: told of every outcome, before it is written down.
    """

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        records: Callable[[Place], bool],
        on_outcome: Callable[[Outcome], None],
    ) -> None:
        self._record = config.memory.record
        self._recorder = recorder
        self._records = records
        self._on_outcome = on_outcome
        self._implicit = ImplicitFeedback(config.feedback)
        self._backlog = Backlog(self._tell)
        self._signs = Signs()
        self._repositories = Repositories()
        self.clock: Callable[[], float] = time.monotonic
        self._reloading: set[str] = set()  # documents that the editor is about to read anew
        self._moved: dict[str, int] = {}  # by document: when git put another state there

    def configure(self, config: Config) -> None:
        """Take new settings; where nothing is to be recorded any more, what is known now is final."""
        if self._record and not config.memory.record:
            self.settle()
        self._record = config.memory.record
        self._implicit.config = config.feedback

    def reported(self, reported: bool) -> None:
        """Whether the editor says when its keys take a suggestion or a part of it. Else that is told from changes."""
        self._implicit.reported = reported

    # -- what is offered ------------------------------------------------------------------------------

    def shown(self, suggestion: Suggestion, *, replaced: int = 0) -> None:
        """A suggestion is recorded and on its way to the editor, to replace the next `replaced` characters."""
        self._signs.offered(suggestion.place.uri, suggestion.id)
        under_git = self._repositories.holds(suggestion.place.project)
        self._hear(self._implicit.shown, suggestion, replaced=replaced, until_commit=under_git)

    def follows(self, suggestion_id: UUID) -> bool:
        """Whether changes still say something about this suggestion."""
        return self._implicit.follows(suggestion_id)

    def seen(self, suggestion_id: UUID) -> bool | None:
        """Whether the person has seen a suggestion; None where it is not followed any more."""
        return self._implicit.seen(suggestion_id, self.clock())

    def at(self, uri: str, start: int, end: int) -> UUID | None:
        """The newest suggestion of a document that stands in, or is offered at, these offsets."""
        return self._implicit.at(uri, start, end)

    def taken(self, uri: str) -> list[tuple[Suggestion, TrackedRange]]:
        """What was taken in a document, is recorded and still stands there, with its offsets; the newest first."""
        return self._implicit.taken(uri)

    # -- what the editor says -------------------------------------------------------------------------

    def changed(self, place: Place, before: str, start: int, end: int, new_text: str, *, several: bool = False) -> None:
        """A document changed: `before[start:end]` became `new_text`, perhaps with several changes at once."""
        if not self._record:
            return
        now = self.clock()
        self._note(self._signs.changed(place, before, Change(start, end, new_text), now))
        moved = self._repositories.moved(place.project, file_path(place.uri)) if end - start > 1 else 0
        before_that = self._moved.get(place.uri, 0)
        if moved:
            self._moved[place.uri] = moved
        if moved - before_that > RECENT_S * 1e9:  # the person did not write this
            self._hear(self._implicit.replaced, place.uri)
        foreign = place.uri in self._reloading
        self._backlog.hear(
            lambda: self._implicit.changing(
                place.uri, before, start, end, new_text, now, several=several, foreign=foreign
            ),
            long=max(end - start, len(new_text)) > LONG,
        )

    def reloading(self, uri: str) -> None:
        """The next change comes from the disk: another program wrote it."""
        self._reloading.add(uri)

    def reloaded(self, uri: str) -> None:
        """That change has been told."""
        self._reloading.discard(uri)

    def opened(self, uri: str, text: str) -> None:
        """A document is open, perhaps one that was renamed."""
        self._hear(self._implicit.opened, uri, text)

    def saved(self, uri: str) -> None:
        """A document was saved."""
        self._hear(self._implicit.saved, uri)

    def closed(self, uri: str) -> None:
        """A document was closed, perhaps to be renamed."""
        self._moved.pop(uri, None)
        self._hear(self._implicit.closed, uri)

    def visible(self, suggestion_id: UUID) -> None:
        """A suggestion is on screen from now on."""
        self._hear(self._implicit.visible, suggestion_id)

    def hidden(self, uri: str) -> None:
        """The person looks at something else."""
        self._hear(self._implicit.hidden, uri)

    def dismissed(self, uri: str) -> None:
        """Escape."""
        self._hear(self._implicit.dismissed, uri)

    def partially_accepted(self, suggestion_id: UUID, taken: str) -> None:
        """The editor says that `taken` was inserted: the beginning of the suggestion, or of what was left of it."""
        suggestion = self._recorder.known(suggestion_id)
        at = suggestion.text.find(taken) if suggestion else -1
        if at >= 0:
            self._hear(self._implicit.partially_accepted, suggestion_id, at + len(taken))

    def accepted(self, suggestion_id: UUID) -> None:
        """The item's command ran."""
        self._hear(self._implicit.accepted_command, suggestion_id)

    # -- what time brings -----------------------------------------------------------------------------

    async def look_again(self) -> None:
        """Looks that are due: how much of an accepted text survives, what was typed instead, what was committed."""
        while True:
            await asyncio.sleep(1.0)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        for project in await asyncio.to_thread(self._repositories.commits):
            self._hear(self._implicit.committed, project)
        self._hear(self._implicit.tick)

    def settle(self) -> None:
        """What is known now is final."""
        self._backlog.finish()
        self._tell(self._implicit.close_all(self.clock()))

    async def heard(self) -> None:
        """Return when all that was told so far is understood."""
        await self._backlog.done()

    # -- handing on -----------------------------------------------------------------------------------

    def _hear(self, tell: Callable[..., list[Outcome]], *about: Any, **more: Any) -> None:
        """Tell the tracker something that happens now."""
        now = self.clock()
        self._backlog.hear(lambda: [tell(*about, now, **more)])

    def _tell(self, outcomes: list[Outcome]) -> None:
        if not self._record:
            return
        for outcome in outcomes:
            self._on_outcome(outcome)
            if (suggestion := self._recorder.known(outcome.suggestion_id)) is not None:
                self._note(self._signs.outcome(outcome, suggestion.place))
        self._recorder.outcomes(outcomes)

    def _note(self, sign: Sign | None) -> None:
        if sign is not None and self._records(sign.place):
            self._recorder.note(sign)
