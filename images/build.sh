#!/usr/bin/env bash
# Builds the static binaries of this machine's architecture and packs each into an OCI archive under build/images.
# Archives for both architectures: run this on a machine of each, then images/build.py with both binaries.
set -euo pipefail
cd "$(dirname "$0")/.."

case "$(uname -m)" in
x86_64) architecture=amd64 target=x86_64-unknown-linux-gnu ;;
aarch64) architecture=arm64 target=aarch64-unknown-linux-gnu ;;
*) echo "images: no image is made for $(uname -m), only for x86_64 and aarch64" >&2 && exit 1 ;;
esac
# `zipline` is what `zipline knative check --probe-image` runs in a pod.
binaries=(zipline-queue-proxy zipline-controller zipline)

# Paths of this machine have no place in a binary. With --target, the flags are not for build scripts and macros.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export CARGO_INCREMENTAL=0
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/zipline --remap-path-prefix=$cargo_home=/cargo"
cargo build --locked --profile image --target "$target" --target-dir target/static \
    -p zipline-queue-proxy -p zipline-controller -p zipline-cli "${binaries[@]/#/--bin=}"

version=$(sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -1)
revision=$(git rev-parse HEAD 2>/dev/null || true)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
for binary in "${binaries[@]}"; do
    python3 images/build.py --binary "$architecture=target/static/$target/image/$binary" \
        --version "$version" --revision "$revision" --epoch "$epoch" --output build/images
done
