"""What the person's projects say word for word, in sleep: as the awake assistant will look it up.

Read once a sleep, by project and language, and held in memory alone. A place knows its document around the cursor and
the other files of its project; its own file on disk, in which the line may stand by now, does not count.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from npllm import projects
from npllm.memory.places import covered, paths_of
from npllm.memory.redaction import redact
from npllm.models import folder, locate
from npllm.models.codec import TextCodec
from npllm.models.continuations import Continuations, Index, Tokens
from npllm.models.fim import unix_lines
from npllm.models.reading import Reader, known_at
from npllm.sleep.interruption import look
from npllm.types import ModelError

log = logging.getLogger(__name__)

MOST_TOKENS = 2_000_000
READING_S = 60.0


class Knowledge:
    """One sleep's.

    Args:
        codec: of the model, with `vocabulary` tokens.
        off_limits: files and folders that are never read.
        stop: set when the person is back.
        ignore: patterns of files that are never read, beside those that never are.
    """

    def __init__(
        self,
        codec: TextCodec,
        vocabulary: int,
        off_limits: Collection[str],
        stop: threading.Event,
        ignore: Sequence[str] = (),
    ) -> None:
        self._reader = Reader(codec)
        self._vocabulary = vocabulary
        self._off_limits = tuple(off_limits)
        self._stop = stop
        self._ignore = tuple(ignore)
        self._indexes: dict[tuple[str, str], Index] = {}

    def at(self, project: str, language: str, path: str, document: tuple[str, str], trust: float) -> Continuations:
        """What is known at a place in a document, given before and after it. Raises Interrupted: the person is back."""
        key = (project, language)
        if key not in self._indexes:
            self._indexes[key] = Index(self._read(*key), self._vocabulary)
        above, below = map(unix_lines, document)
        return known_at(self._reader, above, below, self._vocabulary, self._indexes[key], path, trust)

    def _read(self, project: str, language: str) -> dict[str, Tokens]:
        endings = projects.ENDINGS.get(language, ())
        if not project or not endings:
            return {}
        until, total, found = time.monotonic() + READING_S, 0, dict[str, Tokens]()
        for path in projects.files(Path(project), endings, lambda: look(self._stop), until, self._ignore).paths:
            look(self._stop)
            if total > MOST_TOKENS or time.monotonic() > until:
                break
            if self._off_limits and covered(paths_of(project, path, ""), self._off_limits):
                continue
            text = redact(projects.text(Path(project), path) or "", language, second_pass=False)
            found[path] = self._reader.tokens(text)
            total += len(found[path])
        return found


def same_tokens(start: Path, base: str) -> bool:
    """Whether the model in a folder has the tokens of a base (`base.model`)."""
    try:
        one, other = folder.read_tokenizer(start), folder.read_tokenizer(locate.resolve(base))
    except ModelError as error:
        log.info("what the project says is left out: %s", error)
        return False
    return bool(one.get_vocab() == other.get_vocab())
