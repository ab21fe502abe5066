#!/usr/bin/env bash
# Builds the protocol suites. go.sum pins every module, h2spec among them by its commit.
set -euo pipefail
cd "$(dirname "$0")/../interop/protocols"

if ! command -v go >/dev/null; then
    echo "setup: Go 1.21 or later (it fetches the one go.mod names) is needed for the protocol suites; see https://go.dev/doc/install" >&2
    exit 1
fi
mkdir -p ../../build/protocols
go build -mod=readonly -o ../../build/protocols/protocols .
