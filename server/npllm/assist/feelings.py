"""Comments read by a text classifier of the person's own, beside the word list and after it.

It is loaded when the first comment comes, works in a thread, and nobody waits for it. Where it is not there or says
nothing, what the word list made of a comment stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from npllm.feedback import labels
from npllm.feedback.emotional import LONGEST_COMMENT, Emotion, interpret
from npllm.types import ModelError

if TYPE_CHECKING:
    from npllm.models.classifier import Classifier

log = logging.getLogger(__name__)
NAME = "classifier"  # as classifiers are called in what is written down


class Feelings:
    """One per server.

    Args:
        load: runs a function that loads a model, while nothing else does.
        on_problem: told in one sentence when the classifier cannot be used, and "" when it can.
    """

    def __init__(
        self, load: Callable[[Callable[[], object]], Awaitable[object]], on_problem: Callable[[str], None]
    ) -> None:
        self._load = load
        self._on_problem = on_problem
        self._spec = ""
        self._classifier: Classifier | None = None
        self._failed = False
        self._busy = asyncio.Lock()

    async def configure(self, spec: str) -> None:
        """Take a folder or a Hugging Face id, "" = none; a folder that is not there is told now."""
        if spec == self._spec:
            return
        self._spec, self._classifier, self._failed = spec, None, False
        self._on_problem("")
        if spec and not await asyncio.to_thread(_may_be_there, spec):
            self._fail(f"there is no folder {spec}")

    async def read(self, emoji: str, comment: str) -> Emotion | None:
        """What an emoji and a comment say together; None where the classifier has nothing to say."""
        if not self._spec or not comment.strip():
            return None
        async with self._busy:
            classifier = await self._loaded()
            if classifier is None:
                return None
            found = await asyncio.to_thread(classifier.probabilities, comment[:LONGEST_COMMENT])
        prose = labels.feeling(found)
        return None if prose is None else interpret(emoji, comment, prose)

    async def _loaded(self) -> Classifier | None:
        if self._classifier is None and not self._failed:
            spec = self._spec
            try:
                made = await self._load(lambda: _made(spec))
            except ModelError as error:
                self._fail(str(error))
            else:
                if spec == self._spec:
                    self._classifier = made  # type: ignore[assignment]
        return self._classifier

    def _fail(self, why: str) -> None:
        self._failed = True
        self._on_problem(
            f"Comments are read by the word list alone: feedback.classifier cannot be used, since {why.rstrip('.')}. "
            'Set it to a text classifier (a folder or a Hugging Face id, with safetensors), or to "".'
        )


def _may_be_there(spec: str) -> bool:
    from npllm.models import locate

    return locate.expanded(spec).exists() or locate.names_id(spec)


def _made(spec: str) -> Classifier:
    from npllm.models.classifier import Classifier

    made = Classifier.load(spec)
    if len(strange := labels.unknown(made.labels)) == len(made.labels):
        raise ModelError(
            f"its labels say nothing about feelings that npllm knows ({', '.join(strange[:5])}); name them in its "
            "config.json (id2label), e.g. positive, neutral, negative"
        )
    return made
