#!/usr/bin/env bash
# Builds etcd, kube-apiserver and kubectl, of the releases that interop/cluster/go.mod names; go.sum pins every module. Takes a
# quarter of an hour or so the first time.
set -euo pipefail
cd "$(dirname "$0")/../interop/cluster"

if ! command -v go >/dev/null; then
    echo "setup: Go 1.24 or later is needed for the cluster tests; see https://go.dev/doc/install" >&2
    exit 1
fi
out=../../build/cluster
mkdir -p "$out"
version=$(go list -mod=readonly -m -f '{{.Version}}' k8s.io/kubernetes)
number=${version#v}
stamp=k8s.io/component-base/version
started=$SECONDS
go build -mod=readonly -trimpath -o "$out/etcd" go.etcd.io/etcd/server/v3
echo "setup: etcd took $((SECONDS - started)) s"
started=$SECONDS
# As the release is built: the server says which version it is.
go build -mod=readonly -trimpath -o "$out/kube-apiserver" \
    -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=${number%%.*} -X $stamp.gitMinor=$(cut -d. -f2 <<<"$number")" \
    k8s.io/kubernetes/cmd/kube-apiserver
echo "setup: kube-apiserver $version took $((SECONDS - started)) s"
started=$SECONDS
go build -mod=readonly -trimpath -ldflags "-s -w" -o "$out/kubectl" k8s.io/kubernetes/cmd/kubectl
echo "setup: kubectl took $((SECONDS - started)) s"
