#!/usr/bin/env bash
# Puts Node 24 into build/node; fetch() obeys proxy variables from that version on. Its binary is part of the npm package.
set -euo pipefail
cd "$(dirname "$0")/.."

version=24.21.0
node=build/node/node_modules/.bin/node

if [ "$("$node" --version 2>/dev/null || true)" != "v$version" ]; then
    mkdir -p build/node
    npm install --silent --no-audit --no-fund --prefix build/node "node@$version"
fi
found=$("$node" --version)
if [ "$found" != "v$version" ]; then
    echo "setup: build/node is $found, not v$version; remove build/node and try again" >&2
    exit 1
fi
