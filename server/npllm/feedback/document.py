"""A document and the suggestions followed in it; its text is put together only when it is looked at."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from uuid import UUID

from npllm.feedback.case import Case
from npllm.feedback.tracking import Change


@dataclass(slots=True)
class Document:
    """One per document in which suggestions are followed."""

    cases: OrderedDict[UUID, Case] = field(default_factory=OrderedDict)
    before: str = ""
    change: Change | None = None  # the last one

    def text(self) -> str:
        """As it is now; copies the text once after each change."""
        if self.change is not None:
            self.before, self.change = self.change.splice(self.before), None
        return self.before
