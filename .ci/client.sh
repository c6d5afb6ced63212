#!/usr/bin/env bash
# client.sh: check, test and pack the VS Code extension. Where Node.js is missing or too old for the lock file (Debian
# 12 has 18), it uses the one that the end-to-end tests keep in their cache, and installs that first if need be.
set -euo pipefail
cd "$(dirname "$0")/../client-vscode"

node_will_do() { # 20.18.1 or newer, with its npm
  command -v npm >/dev/null && node -e '
    const [major, minor, patch] = process.versions.node.split(".").map(Number)
    process.exit(major * 1e6 + minor * 1e3 + patch >= 20018001 ? 0 : 1)' 2>/dev/null
}

if ! node_will_do; then
  PATH="$(../tests/e2e/install.sh node):$PATH"
  export PATH
fi
if [ ! -e node_modules/.ready ] || [ package-lock.json -nt node_modules/.ready ]; then
  npm ci --no-audit --no-fund --loglevel=error
  touch node_modules/.ready
fi
npm run --silent typecheck
npm run --silent build
npm test --silent
npm run --silent package
