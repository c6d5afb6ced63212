#!/usr/bin/env bash
# client.sh: check, test and pack the VS Code extension. Installs Node.js from Debian's packages where it is missing.
set -euo pipefail
cd "$(dirname "$0")/../client-vscode"

if ! command -v npm >/dev/null; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing Node.js from Debian's packages ..."
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm >/dev/null
  else
    echo "The extension is built with Node.js 18 or newer: install it first." >&2
    exit 1
  fi
fi
if [ ! -e node_modules/.ready ] || [ package-lock.json -nt node_modules/.ready ]; then
  npm ci --no-audit --no-fund --loglevel=error
  touch node_modules/.ready
fi
npm run --silent typecheck
npm run --silent build
npm test --silent
npm run --silent package
