"""The progress bar that every stage shows: tqdm, imported in one place because it carries no types."""

from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

__all__ = ["tqdm"]
