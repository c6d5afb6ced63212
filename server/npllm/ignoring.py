"""Which files are neither read nor written about nor suggested in: key files, what the person lists, `.npllmignore`.

All in gitignore's syntax, and the last that says something wins: what is kept out by default, then `memory.ignore`,
then the `.npllmignore` files from the repository's folder down to the file's own. A file counts by its own name and by
the one that links lead to. In doubt it is ignored: whoever wrote a `.npllmignore` that cannot be read had a wish, and a
name that no file can have is no file to write in.
"""

# ruff: noqa: PTH110, PTH114, PTH116 - asked for thousands of files, a Path for each takes longer than the rest
from __future__ import annotations

import functools
import logging
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from npllm.gitignore import Patterns
from npllm.types import Place
from npllm.uris import file_path

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
    """Whether a file is to be left alone; arguments as of `Matcher`, which is faster for many.

    Args:
        path: absolute.
    """
    return Matcher(listed, root).ignores(str(path))


def of_place(place: Place, listed: Sequence[str] = ()) -> bool:
    """Whether the document of a place is to be left alone; `listed` as of `Matcher`."""
    return of_document(place.project, place.path, place.uri, listed)


def of_document(project: str, path: str, uri: str, listed: Sequence[str] = ()) -> bool:
    """Whether a document is to be left alone: by its path in its project, and by its URI where it has no project.

    Args:
        path: relative to `project`.
        listed: as of `Matcher`.
    """
    name = Path(project) / path if project else os.sep / Path(file_path(uri) if uri else path)
    return ignored(name, listed, project)


def check(patterns: Sequence[str]) -> None:
    """Raises ValueError where one of `patterns` cannot be understood."""
    for pattern in patterns:
        _compiled((pattern,))


@dataclass(frozen=True, slots=True)
class _Said:
    """One that has a say about the files of a folder."""

    patterns: Patterns
    below: str  # the folder, relative to where they hold: "" or with a slash at its end
    concerned: bool  # the folder's own name may have a part in it; else only files' names can


@dataclass(frozen=True, slots=True)
class _Folder:
    real: str  # the folder that links lead to
    said: tuple[_Said, ...]  # in order: the last wins


@dataclass(frozen=True, slots=True)
class _Chain:
    """Where a folder belongs: its repository's folder ("" where there is none), and the `.npllmignore` files."""

    repository: str
    files: tuple[tuple[str, Patterns], ...]  # by folder, the outermost first


class Matcher:
    """The answers for one moment: each folder is looked at once, so it is not for keeping. In one thread at a time.

    Args:
        listed: `memory.ignore`. Patterns without a slash fit at any depth; with one, below `root`; those that begin
            with `~/` below the home folder.
        root: the workspace folder; "" = the file's repository, or its folder.

    Raises:
        ValueError: one of `listed` cannot be understood; see `check`.
    """

    def __init__(self, listed: Sequence[str] = (), root: str = "") -> None:
        self._listed: list[tuple[str, Patterns]] = []  # the folder below which they hold, "" = the root
        home = str(Path.home())
        for pattern in listed:
            negated, plain = "!" if pattern.startswith("!") else "", pattern.lstrip("!")
            if plain.startswith("~/"):
                self._listed.append((home, _compiled((negated + plain[1:],))))
            else:
                self._listed.append(("", _compiled((pattern,))))
        self._root = root
        self._possible = _possible(root)
        self._folders: dict[tuple[str, str], _Folder] = {}
        self._chains: dict[str, _Chain] = {}
        self._real: dict[str, str] = {}

    def ignores(self, path: str, *, link: bool = True) -> bool:
        """Whether the file of an absolute path is to be left alone. `link`: the file itself may be one, not only one of
        its folders; to see that takes longer than all else."""
        if not self._possible or not _possible(path):
            return True
        given = os.path.normpath(path)
        folder, _, name = given.rpartition(os.sep)
        known = self._folders.get((folder, self._root)) or self._folder(folder, self._root)
        if _verdict(known, name):
            return True
        real = known.real
        if link and os.path.islink(given):
            real, _, name = os.path.realpath(given).rpartition(os.sep)
        elif real == folder:
            return False
        root = (self._real_of(self._root) or os.sep) if self._root else ""
        return _verdict(self._folder(real, root), name)

    def _folder(self, folder: str, root: str) -> _Folder:
        """What is known of a folder; "" = the topmost."""
        known = self._folders.get((folder, root))
        if known is None:
            chain = self._chain(folder)
            anchor = root or chain.repository or folder
            places = [("", _compiled(_LOWERED, lowered=True))]
            places += [(below or anchor, patterns) for below, patterns in self._listed]
            places += chain.files
            said = tuple(one for below, patterns in places if (one := _said(patterns, below, folder)) is not None)
            known = self._folders[folder, root] = _Folder(self._real_of(folder), said)
        return known

    def _chain(self, folder: str) -> _Chain:
        chain = self._chains.get(folder) or _Chain("", ())
        for one in _unknown(folder, self._chains):
            found = _read(one)
            own = () if found is None else ((one, found),)
            above = self._chains.get(one.rpartition(os.sep)[0]) if one else None
            if os.path.exists(f"{one}{os.sep}.git"):
                chain = _Chain(one or os.sep, own)
            else:
                chain = _Chain(above.repository, above.files + own) if above else _Chain("", own)
            self._chains[one] = chain
        return chain

    def _real_of(self, folder: str) -> str:
        """The folder that links lead to, without a slash at its end."""
        real = self._real.get(folder, "")
        for one in _unknown(folder, self._real):
            above, _, name = one.rpartition(os.sep)
            real = f"{self._real.get(above, '')}{os.sep}{name}" if one else ""
            if one and (name in ("", ".", "..") or os.path.islink(real)):
                real = os.path.realpath(one).rstrip(os.sep)
            self._real[one] = real
        return real


def _unknown(folder: str, known: Container[str]) -> list[str]:
    """Those of a folder and the ones above it that are not known, the topmost ("") first."""
    found = []
    while folder not in known:
        found.append(folder)
        if not folder:
            break
        folder = folder.rpartition(os.sep)[0]
    return found[::-1]


def _possible(path: str) -> bool:
    """Whether a file may have such a name: URIs come with anything."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _said(patterns: Patterns, below: str, folder: str) -> _Said | None:
    """None where a folder is not, and does not lie below, the one where the patterns hold."""
    start, name = below.rstrip(os.sep) + os.sep, folder.rstrip(os.sep) + os.sep
    if not name.startswith(start):
        return None
    relative = name[len(start) :].replace(os.sep, "/")
    return _Said(patterns, relative, any(map(patterns.may_name, relative.split("/")[:-1])))


def _verdict(folder: _Folder, name: str) -> bool:
    verdict = False
    for said in folder.said:
        if said.concerned or said.patterns.may_name(name):
            verdict = said.patterns.verdict(said.below + name, verdict)
    return verdict


@functools.lru_cache(maxsize=256)
def _compiled(lines: tuple[str, ...], lowered: bool = False) -> Patterns:
    return Patterns(lines, lowered=lowered)


_EVERYTHING = ("*",)
_specs: dict[str, tuple[tuple[int, int], Patterns]] = {}  # by file: its time and size, and what it says


def _read(folder: str) -> Patterns | None:
    """What a folder's file says, read again when it has changed; None where there is none."""
    name = f"{folder}{os.sep}{FILE}"
    try:
        stat = os.stat(name)
    except OSError:
        return None  # there is none, or the folder may not be entered: nor can the file in question be read
    known = _specs.get(name)
    if known is not None and known[0] == (stat.st_mtime_ns, stat.st_size):
        return known[1]
    try:
        if stat.st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES} bytes")
        found = Patterns(Path(name).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as error:  # UnicodeDecodeError too
        log.warning("%s cannot be read, so everything beside and below it is ignored: %s", name, error)
        found = _compiled(_EVERYTHING)
    _specs[name] = ((stat.st_mtime_ns, stat.st_size), found)
    return found
