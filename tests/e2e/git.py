"""git in a project, as in a terminal beside the editor; whose it is does not hang on this machine's settings."""

from __future__ import annotations

import subprocess
from pathlib import Path

SETTINGS = ("user.name=Person", "user.email=person@example.org", "init.defaultBranch=main", "commit.gpgSign=false")


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder."""
    settings = [part for setting in SETTINGS for part in ("-c", setting)]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)
