#!/usr/bin/env bash
# Runs the tests of everything that calls `unsafe` code under a checker.
#
#   scripts/sanitize.sh [address|memcheck|miri] [crate ...]
#
# address   AddressSanitizer with LeakSanitizer (the default). The pinned stable toolchain ships the runtime;
#           -Zsanitizer is unlocked by RUSTC_BOOTSTRAP. Where the runtime is missing, the run falls back to memcheck and says so.
# memcheck  valgrind over an ordinary build of the same tests: second best, since it sees neither the stack nor globals, and slow.
# miri      the pure tests of the same crates in Miri, which knows the language's rules that hardware does not check. It needs a
#           nightly toolchain with the component, and cannot run what talks to the kernel: memfds, shared mappings, sockets.
#
# Builds go to target/sanitize, so that ordinary builds stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."

# The crates with `unsafe` in them and those that hand it pointers, lengths and descriptors.
CALLERS=(zipline-segment zipline-buffer zipline-transfer zipline-sdk)

tool=address
case "${1:-}" in address | memcheck | miri) tool=$1; shift ;; esac
crates=()
for crate in "${@:-${CALLERS[@]}}"; do
    if [ -d "crates/$crate" ]; then crates+=("$crate"); else echo "sanitize: no crate $crate here, left out"; fi
done
packages=()
for crate in "${crates[@]}"; do packages+=(--package "$crate"); done
host=$(rustc -vV | sed -n 's/^host: //p')

# Every crate whose own code is unsafe has to be in the list above: checked, so that a new one cannot be forgotten.
unlisted=$(grep -rlE '^\s*(pub )?unsafe (impl|fn)|unsafe \{' crates/*/src --include='*.rs' | cut -d/ -f2 | sort -u \
    | grep -vxF -f <(printf '%s\n' "${CALLERS[@]}" zipline-py) || true)
if [ -n "$unlisted" ]; then
    echo "sanitize: unsafe code outside of the crates that are checked: $unlisted" >&2
    exit 1
fi

export CARGO_TARGET_DIR="$PWD/target/sanitize"
# What a test drives as a process of its own is not built again; it is the ordinary binary.
if [ -z "${ZIPLINE_TEST_BINARIES:-}" ] && [ -x target/debug/zipline-queue-proxy ]; then
    export ZIPLINE_TEST_BINARIES="$PWD/target/debug"
fi

runtime="$(rustc --print sysroot)/lib/rustlib/$host/lib"
if [ "$tool" = address ] && ! compgen -G "$runtime/librustc*_rt.asan.a" >/dev/null; then
    echo "sanitize: this toolchain has no AddressSanitizer runtime in $runtime; using valgrind instead"
    tool=memcheck
fi

case $tool in
address)
    echo "sanitize: AddressSanitizer and LeakSanitizer over ${crates[*]}"
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address"
    export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_init_order=1:check_initialization_order=1:abort_on_error=0"
    export LSAN_OPTIONS="suppressions=$PWD/scripts/sanitize-leaks.txt:print_suppressions=0"
    # A target of its own keeps the flags from build scripts and procedural macros. Documentation tests would each be a program.
    cargo test --target "$host" "${packages[@]}" --lib --bins --tests
    ;;
memcheck)
    if ! command -v valgrind >/dev/null; then
        echo "sanitize: valgrind is needed: apt-get install valgrind" >&2
        exit 1
    fi
    echo "sanitize: valgrind memcheck over ${crates[*]}"
    variable="CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUNNER"
    export "$variable=valgrind --quiet --error-exitcode=101 --leak-check=full --errors-for-leak-kinds=definite --fair-sched=yes"
    # Under valgrind one thread runs at a time and everything is some twenty times slower: fewer cases of each property.
    PROPTEST_CASES=${PROPTEST_CASES:-8} cargo test --target "$host" "${packages[@]}" --lib --tests
    ;;
miri)
    # The newest nightly that has the component.
    nightly=$(rustup toolchain list 2>/dev/null | sed -n 's/^\(nightly[^ ]*\).*/\1/p' | tail -1)
    if [ -z "$nightly" ] || ! cargo "+$nightly" miri --version >/dev/null 2>&1; then
        echo "sanitize: Miri is a component of nightly toolchains; get it with: rustup toolchain install nightly -c miri,rust-src" >&2
        exit 1
    fi
    echo "sanitize: $(cargo "+$nightly" miri --version) over ${crates[*]}, tests that need no kernel"
    # Tests that map memory or open sockets carry cfg_attr(miri, ignore).
    export MIRIFLAGS="${MIRIFLAGS:--Zmiri-disable-isolation}" PROPTEST_CASES=${PROPTEST_CASES:-4}
    cargo "+$nightly" miri test "${packages[@]}" --lib
    ;;
esac
