"""Where the shipped model lies, and how a build's folder is laid out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

#: The model folder inside the package.
SHIPPED = Path(__file__).parent / "model"


def default_work() -> Path:
    """Where fetched wheels and builds are kept unless told otherwise."""
    return Path(platformdirs.user_cache_dir("npllm")) / "starter"


@dataclass(frozen=True)
class WorkFolder:
    """The folder of one preset's build; `root` holds what presets share."""

    root: Path
    preset: str

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    @property
    def folder(self) -> Path:
        return self.root / self.preset

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
        return self.folder / "run"
