"""Which files are neither read nor written about nor suggested in: key files, what the person lists, `.npllmignore`.

All in gitignore's syntax, and the last that says something wins: what is kept out by default, then `memory.ignore`,
then the `.npllmignore` files from the repository's folder down to the file's own. A file counts by its own name and by
the one that links lead to. In doubt it is ignored: whoever wrote a `.npllmignore` that cannot be read had a wish.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

log = logging.getLogger(__name__)

FILE = ".npllmignore"
MOST_BYTES = 1_000_000  # of such a file
DEFAULTS = """
.env .env.* *.env .envrc !.env.example !.env.sample !.env.template !.env.dist
*.pem *.key *.p12 *.pfx *.jks *.keystore *.kdbx *.ppk *.gpg *.ovpn id_rsa id_dsa id_ecdsa id_ed25519 id_*_sk
.npmrc .yarnrc.yml .pypirc .netrc _netrc .pgpass .my.cnf .mylogin.cnf .htpasswd .git-credentials .dockercfg .boto .s3cfg
.vault-token .Renviron .terraformrc *.tfstate *.tfstate.* *.tfvars *.tfvars.json *.agekey
credentials !credentials/ credentials.* !credentials.py !credentials.js !credentials.ts !credentials.go !credentials.rb
!credentials.java !credentials.cs !credentials.rs !credentials.*/
secrets.json secrets.toml secrets.yml secrets.yaml secrets.ini client_secret*.json service-account*.json
service_account*.json
.ssh/ .gnupg/ .password-store/ **/.aws/* **/.kube/* **/.docker/config.json **/.config/gcloud/** **/.azure/**
**/.config/gh/hosts.yml **/.cargo/credentials*
""".split()
_LOWERED = tuple(pattern.lower() for pattern in DEFAULTS)


def ignored(path: str | Path, listed: Sequence[str] = (), root: str = "") -> bool:
    """Whether a file is to be left alone.

    Args:
        path: absolute.
        listed: `memory.ignore`. Patterns without a slash fit at any depth; with one, below `root`; those that begin
            with `~/` below the home folder.
        root: the workspace folder; "" = the file's repository, or its folder.
    """
    given = os.path.normpath(path)
    if _ignored(given, tuple(listed), root):
        return True
    real = os.path.realpath(given)
    return real != given and _ignored(real, tuple(listed), os.path.realpath(root) if root else "")


def check(patterns: Sequence[str]) -> None:
    """Raises ValueError where one of `patterns` cannot be understood."""
    _compiled(tuple(patterns))


def _ignored(name: str, listed: tuple[str, ...], root: str) -> bool:
    folder = name.rpartition(os.sep)[0] or os.sep
    folders = _folders(folder)
    verdict = _kept_out(name.lower().lstrip("/"))
    home = str(Path.home())
    anchor = root or (folders[0] if (Path(folders[0]) / ".git").exists() else folder)
    for pattern in listed:
        if pattern.lstrip("!").startswith("~/"):
            negated = "!" if pattern.startswith("!") else ""
            spec, below = _compiled((negated + pattern.lstrip("!")[1:],)), home
        else:
            spec, below = _compiled((pattern,)), anchor
        if name.startswith(below.rstrip("/") + "/"):
            verdict = _verdict(spec, name[len(below.rstrip("/")) + 1 :], verdict)
    for folder in folders:
        found = _read(folder)
        if found is not None:
            verdict = _verdict(found, name[len(folder.rstrip("/")) + 1 :], verdict)
    return verdict


@functools.lru_cache(maxsize=65536)
def _kept_out(name: str) -> bool:
    return _compiled(_LOWERED).match_file(name)


def _verdict(spec: GitIgnoreSpec, relative: str, verdict: bool) -> bool:
    said = spec.check_file(relative).include
    return verdict if said is None else said


@functools.lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise ValueError(f"not a pattern of gitignore's kind: {error}") from error


@functools.lru_cache(maxsize=4096)
def _folders(folder: str) -> tuple[str, ...]:
    """The folders whose `.npllmignore` counts for files in `folder`: from its repository's down to itself."""
    found = [folder]
    for parent in (folder, *map(str, Path(folder).parents)):
        if parent != folder:
            found.append(parent)
        if (Path(parent) / ".git").exists():
            return tuple(reversed(found))
    return tuple(reversed(found))  # no repository: all of them


_EVERYTHING = ("*",)
_specs: dict[Path, tuple[tuple[int, int], GitIgnoreSpec]] = {}  # by file: its time and size, and what it says


def _read(folder: str) -> GitIgnoreSpec | None:
    """What a folder's file says, read again when it has changed; None where there is none."""
    file = Path(folder) / FILE
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return None  # a folder that may not be entered: nor can the file in question be read
    known = _specs.get(file)
    if known is not None and known[0] == (stat.st_mtime_ns, stat.st_size):
        return known[1]
    try:
        if stat.st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES} bytes")
        spec = GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as error:  # UnicodeDecodeError too
        log.warning("%s cannot be read, so everything beside and below it is ignored: %s", file, error)
        spec = _compiled(_EVERYTHING)
    _specs[file] = ((stat.st_mtime_ns, stat.st_size), spec)
    return spec
