"""Rules that hold for the whole house and that no single room could test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "server" / "npllm"
SERVING = ("lsp", "assist", "models", "memory", "feedback")
SLEEP_PARENT = (
    "archive.py",
    "command.py",
    "drowsiness.py",
    "machine.py",
    "mending.py",
    "page.py",
    "pending.py",
    "plots.py",
    "process.py",
    "protocol.py",
    "record.py",
    "report.py",
    "scheduler.py",
    "supervisor.py",
    "terminal.py",
)


def serving_modules() -> list[Path]:
    rooms = [path for room in SERVING for path in (PACKAGE / room).rglob("*.py")]
    return sorted(rooms + [PACKAGE / "sleep" / name for name in SLEEP_PARENT])


@pytest.mark.parametrize("module", serving_modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_serving_side_has_no_optimizer_and_no_gradients(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not any("optim" in name for name in names), f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("backward", "optim", "requires_grad_") or _freezes(module, node), node.lineno


def _freezes(module: Path, node: ast.Attribute) -> bool:
    line = module.read_text(encoding="utf-8").splitlines()[node.lineno - 1]
    return "requires_grad_(False)" in line


def test_the_parent_s_side_is_imported_without_torch():
    code = (
        "import sys, npllm.cli, npllm.lsp.features, npllm.lsp.commands, npllm.sleep.scheduler;"
        "heavy = {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_the_extension_and_the_package_have_one_version():
    import json

    from npllm import __version__

    package = json.loads((ROOT / "client-vscode" / "package.json").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert package["version"] == __version__
    assert f'version = "{__version__}"' in project


def test_every_dependency_is_pinned():
    pins = {
        re.split("[=<>]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^  "([A-Za-z0-9_-]+)>=', project, re.MULTILINE)
    assert len(needed) > 20
    assert not {name.lower().replace("_", "-") for name in needed} - pins


def test_nothing_in_the_project_is_too_large_for_git():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    sizes = [(ROOT / name).stat().st_size for name in tracked.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert sum(sizes) < 60_000_000
