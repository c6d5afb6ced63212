"""`.ci/client.sh` takes the Node.js that is there when it is new enough, else the one of the end-to-end tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = """#!/bin/bash
# Stands in for node: says whether the version {version} passes the check that it is given.
script="${{2//process.versions.node/\\"{version}\\"}}"
[[ $script == *'"{version}".split'* && $script == *20018001* ]] || exit 9
IFS=. read -r a b c <<<{version}
(( a * 1000000 + b * 1000 + c >= 20018001 ))
"""
NPM = '#!/bin/bash\necho "{name} $*" >>"$LOG"\n'


def program(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "taken"),
    [("18.20.4", "ours"), ("20.18.0", "ours"), ("", "ours"), ("20.18.1", "theirs"), ("24.19.0", "theirs")],
)
def test_which_node_builds_the_extension(tmp_path: Path, version: str, taken: str) -> None:
    program(tmp_path / ".ci" / "client.sh", (ROOT / ".ci" / "client.sh").read_text(encoding="utf-8"))
    (tmp_path / "client-vscode" / "node_modules").mkdir(parents=True)
    (tmp_path / "client-vscode" / "package-lock.json").write_text("{}")
    program(tmp_path / "tests" / "e2e" / "install.sh", f'#!/bin/bash\n[ "$1" = node ] && echo {tmp_path}/ours\n')
    program(tmp_path / "ours" / "npm", NPM.format(name="ours"))
    if version:
        program(tmp_path / "theirs" / "node", NODE.format(version=version))
        program(tmp_path / "theirs" / "npm", NPM.format(name="theirs"))
    for name in ("bash", "dirname", "touch"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / "tools").mkdir(exist_ok=True)
        (tmp_path / "tools" / name).symlink_to(found)
    environment = {
        "PATH": f"{tmp_path}/theirs:{tmp_path}/tools",
        "LOG": str(tmp_path / "log"),
        "HOME": os.environ["HOME"],
    }
    for _ in range(2):
        subprocess.run([tmp_path / ".ci" / "client.sh"], env=environment, check=True, timeout=30)
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in lines} == {taken}
    assert sum(" ci " in line for line in lines) == 1
