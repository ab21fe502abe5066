#!/usr/bin/env bash
# Builds Knative's own queue-proxy, of the release that interop/knative/go.mod names; go.sum pins every module.
set -euo pipefail
cd "$(dirname "$0")/../interop/knative"

if ! command -v go >/dev/null; then
    echo "setup: Go 1.25 or later is needed for the interop suite; see https://go.dev/doc/install" >&2
    exit 1
fi
mkdir -p ../../build/knative
# As Knative builds its image: no cgo, no local paths.
CGO_ENABLED=0 go build -mod=readonly -trimpath -o ../../build/knative/queue knative.dev/serving/cmd/queue
