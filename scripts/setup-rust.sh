#!/usr/bin/env bash
# Checks that cargo is there and that rustup has the toolchain rust-toolchain.toml names (rustup fetches it if not).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo >/dev/null; then
    echo "setup: a Rust toolchain is needed; see https://rustup.rs" >&2
    exit 1
fi
wanted=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
found=$(cargo --version | cut -d' ' -f2)
if [ "$found" != "$wanted" ]; then
    echo "setup: cargo is $found, rust-toolchain.toml wants $wanted; run: rustup toolchain install $wanted" >&2
    exit 1
fi
cargo fmt --version >/dev/null
cargo clippy --version >/dev/null
