#!/usr/bin/env bash
# Installs what the benchmarks measure against and call. Without an argument, what Debian has: Redis, nginx, iperf3, and iproute2
# with util-linux for network namespaces. With `peers` also what has to be fetched or built, into build/bench: redis-py with
# hiredis, Ray, versitygw, s3s-fs. With `sdk` the Python SDK as it is now, for the same Python. What else is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

REDIS_PY=8.1.0
HIREDIS=3.5.0
NUMPY=2.4.6
RAY=2.60.0
VERSITYGW=v1.8.0
S3S_FS=0.14.1

needed=(/usr/sbin/nginx:nginx-light /sbin/ip:iproute2 /usr/bin/unshare:util-linux /usr/bin/redis-server:redis-server
    /usr/bin/iperf3:iperf3)

missing=()
for pair in "${needed[@]}"; do
    [ -x "${pair%%:*}" ] || missing+=("${pair##*:}")
done
if [ "${#missing[@]}" -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "setup: as root, run: apt-get install -y --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # The packages start servers of their own; these are only started by the benchmark.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod +x "$policy"
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

tools=build/bench
python=$tools/python/bin/python
if [ "${1:-}" = sdk ]; then
    exec "$python" -m pip install -q --disable-pip-version-check --force-reinstall --no-deps ./python
fi
[ "${1:-}" = peers ] || exit 0

mkdir -p "$tools"
if [ ! -x "$python" ]; then
    /usr/bin/python3 -m venv "$tools/python"
fi
"$python" -m pip install -q "redis==$REDIS_PY" "hiredis==$HIREDIS" "numpy==$NUMPY" "ray==$RAY"
if [ ! -x "$tools/bin/versitygw" ]; then
    GOBIN=$PWD/$tools/bin go install -trimpath "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW"
fi
if [ ! -x "$tools/bin/s3s-fs" ]; then
    CARGO_TARGET_DIR=$PWD/$tools/target cargo install s3s-fs --version "$S3S_FS" --features binary --locked --root "$tools"
    rm -rf "$tools/target"
fi
