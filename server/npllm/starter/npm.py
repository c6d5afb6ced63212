"""Packages of JavaScript and TypeScript, fetched by name with the npm client and read from its tarballs.

Nothing is installed and no script of a package runs: `npm pack NAME` only downloads. Without an npm client there are
simply no packages, which the manifest then says. Knows nothing of duplicates or caps.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from npllm.starter.corpus import Language, Package, SourceFile
from npllm.starter.filters import clean
from npllm.starter.javascript import is_own_script, is_typescript
from npllm.starter.licences import named_licence
from npllm.starter.progress import tqdm

#: What a package of this registry is called in manifests and corpora: `npm:NAME`.
PREFIX = "npm:"

_MANIFEST_BYTES = 2_000_000


def npm_client() -> str | None:
    """The npm client on this machine, or None."""
    return shutil.which("npm")


def fetch_tarballs(names: Sequence[str], cache: Path, batch: int = 8) -> None:
    """Have a tarball of each named package in the cache; names that cannot be had are simply absent afterwards."""
    cache.mkdir(parents=True, exist_ok=True)
    client = npm_client()
    missing = [name for name in names if tarball(name, cache) is None]
    if client is None or not missing:
        return
    command = [client, "pack", "--ignore-scripts", "--silent", "--pack-destination", str(cache)]
    for start in tqdm(range(0, len(missing), batch), desc="fetching npm packages", unit="batch"):
        group = missing[start : start + batch]
        if subprocess.run([*command, *group], capture_output=True, stdin=subprocess.DEVNULL).returncode:
            for name in group:
                subprocess.run([*command, name], capture_output=True, stdin=subprocess.DEVNULL)


def tarball(name: str, cache: Path) -> Path | None:
    """The newest-named tarball of a package in the cache: npm writes `@a/b` as `a-b-VERSION.tgz`."""
    stem = re.escape(name.removeprefix("@").replace("/", "-"))
    found = [path for path in cache.glob("*.tgz") if re.fullmatch(rf"{stem}-\d+\.\d+\.\d+.*\.tgz", path.name)]
    return max(found) if found else None


def read_tarball(path: Path) -> Package:
    """The scripts of a package, with name, version and licence from its package.json. Raises OSError when the file is
    no npm package."""
    texts: list[SourceFile] = []
    described: dict[str, Any] | None = None
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                inner = "/".join(PurePosixPath(member.name).parts[1:])  # without the folder that npm calls `package`
                if not member.isfile() or member.size > _MANIFEST_BYTES:
                    continue
                if inner != "package.json" and not is_own_script(inner):
                    continue
                stream = archive.extractfile(member)
                raw = stream.read() if stream else b""
                if inner == "package.json":
                    described = json.loads(raw)
                elif (text := clean(raw)) is not None:
                    texts.append(SourceFile(inner, text))
    except (tarfile.TarError, ValueError, EOFError) as problem:
        raise OSError(f"{path.name} is not an npm package: {problem}") from problem
    if described is None:
        raise OSError(f"{path.name} is not an npm package: it has no package.json")
    name = str(described.get("name"))
    files = tuple(SourceFile(f"{name}/{file.path}", file.text) for file in sorted(texts, key=lambda file: file.path))
    version, licence = str(described.get("version")), npm_licence(described)
    return Package(PREFIX + name, version, licence, files, _language(files))


def npm_licence(described: Mapping[str, Any]) -> str | None:
    """The licence that a package.json states, in today's form or in the two older ones; None when it states none."""
    stated = described.get("license") or described.get("licenses")
    several = stated if isinstance(stated, list) else [stated]
    names = [item.get("type") if isinstance(item, dict) else item for item in several]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        return None
    known = [named_licence(str(name).strip()) for name in names]
    return " OR ".join(name for name in known if name) if all(known) else None


def _language(files: Sequence[SourceFile]) -> Language:
    typed = sum(len(file.text) for file in files if is_typescript(file.path))
    return "typescript" if 2 * typed > sum(len(file.text) for file in files) else "javascript"
