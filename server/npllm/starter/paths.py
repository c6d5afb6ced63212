"""Where the shipped models lie, and how a build's folder is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

#: The model folders inside the package: the base, and the small model that drafts for it.
SHIPPED = Path(__file__).parent / "model"
SHIPPED_CEREBELLUM = Path(__file__).parent / "cerebellum"


def default_work() -> Path:
    """Where fetched wheels and builds are kept unless told otherwise."""
    return Path(platformdirs.user_cache_dir("npllm")) / "starter"


@dataclass(frozen=True)
class WorkFolder:
    """The folders of one preset's build; `root` holds what all presets share, and `data` names the preset whose
    corpus, tokenizer and packed rows this one uses, where they are not its own."""

    root: Path
    preset: str
    data: str | None = None

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    @property
    def npm(self) -> Path:
        return self.root / "npm"

    @property
    def folder(self) -> Path:
        return self.root / (self.data or self.preset)

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def packed(self) -> Path:
        return self.folder / "packed"

    @property
    def run(self) -> Path:
        return self.root / self.preset / "run"
