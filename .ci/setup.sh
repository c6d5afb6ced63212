#!/usr/bin/env bash
# setup.sh VENV: a virtual environment with npllm and its development tools, exactly as pinned in constraints.txt.
# Installs Python from Debian's packages where it is missing. Quiet, and quick when there is nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
find_python() {
  for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    [ -n "$name" ] && command -v "$name" >/dev/null && usable "$name" && { echo "$name"; return 0; }
  done
  return 1
}

if ! python=$(find_python); then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing Python from Debian's packages ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv python3-pip >/dev/null
  fi
  python=$(find_python) || { echo "npllm needs Python 3.11 or newer with venv: install it, or set PYTHON=/path/to/python3." >&2; exit 1; }
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "Installing npllm and what it needs into $venv (minutes, the first time) ..."
log=$venv/setup.log
if ! "$venv/bin/pip" install -q -c constraints.txt -e '.[dev]' >"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "The installation failed; the whole log is in $log." >&2
  exit 1
fi
