#!/usr/bin/env bash
# Builds the Go clients of the matrix. go.sum pins every module.
set -euo pipefail
cd "$(dirname "$0")/../clients/go"

if ! command -v go >/dev/null; then
    echo "setup: Go 1.21 or later (it fetches the one go.mod names) is needed for the client matrix; see https://go.dev/doc/install" >&2
    exit 1
fi
mkdir -p ../../build/clients
go build -mod=readonly -o ../../build/clients/ ./...
