#!/bin/sh
# Everything that is done with cargo in kernel/.
#
# Usage: sh scripts/kernel.sh usable|ensure|build|check|fmt|test|fuzz
#   usable  whether there is a Rust compiler that can build it; says why not
#   ensure  build if the sources are newer than what is there; without Rust do without
#   build   build it and put it into src/riverrun, in place
#   check   formatting and lints
#   fmt     format
#   test    the tests in Rust
#   fuzz    feed each fuzz target for FUZZ_SECONDS, 20 if not given
#
# What cargo builds stays in .cache/kernel-target: the first build takes two minutes, others seconds.
set -eu

cd "$(dirname "$0")/.."

python=$PWD/.venv/bin/python
extension=src/riverrun/_kernel.abi3.so
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/.cache/kernel-target}"

say() { echo "riverrun: $*"; }

# Prints why Rust cannot be used, nothing if it can.
why_not() {
    found=$(cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
    needed=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"/\1/p' kernel/Cargo.toml)
    if [ -z "$found" ]; then
        echo "there is no Rust compiler (cargo)"
    elif [ "$found" -lt "$needed" ]; then
        echo "cargo 1.$found is too old, it needs 1.$needed"
    fi
}

# In the sources that go into it, something is newer than the kernel that is there.
is_stale() {
    [ ! -e "$extension" ] ||
        [ -n "$(find kernel/Cargo.toml kernel/src -newer "$extension")" ]
}

# The environment and arguments are those of setuptools-rust, so that it finds all this built.
build() {
    [ -d "$CARGO_TARGET_DIR/release" ] ||
        say "building the native kernel (two minutes the first time, more on a busy machine)"
    set -- rustc --release --lib --crate-type cdylib --manifest-path kernel/Cargo.toml
    set -- "$@" --features "python pyo3/extension-module pyo3/abi3-py311"
    [ "$(uname -s)" != Darwin ] || set -- "$@" -- -C link-arg=-undefined -C link-arg=dynamic_lookup
    PYO3_PYTHON=$python PYO3_BUILD_EXTENSION_MODULE=1 cargo "$@" || return 1
    for library in "$CARGO_TARGET_DIR"/release/libriverrun_kernel.so \
        "$CARGO_TARGET_DIR"/release/libriverrun_kernel.dylib; do
        [ ! -e "$library" ] || cp "$library" "$extension.new"
    done
    # Not over it: a process that runs has it in its memory.
    mv "$extension.new" "$extension"
}

case ${1:-} in
usable)
    reason=$(why_not)
    [ -z "$reason" ] && exit 0
    say "no native kernel: $reason"
    exit 1
    ;;
ensure)
    is_stale || exit 0
    reason=$(why_not)
    if [ -n "$reason" ]; then
        say "no native kernel: $reason. All works without, slower; \`riverrun doctor\` says how to get it"
    elif build; then
        exit 0
    else
        say "the native kernel cannot be built, the reason is above. Going on without it" >&2
    fi
    # What is there was built from other sources.
    rm -f "$extension"
    ;;
build)
    reason=$(why_not)
    [ -z "$reason" ] || {
        say "the kernel cannot be built: $reason. See https://rustup.rs" >&2
        exit 1
    }
    build
    ;;
check | fmt | test | fuzz)
    reason=$(why_not)
    if [ -n "$reason" ]; then
        say "the sources of the kernel are not looked at: $reason"
        # In CI that must not go unseen.
        [ "${CI:-}" != true ]
        exit
    fi
    cd kernel
    case $1 in
    check)
        cargo fmt --check
        # With and without Python: each sees code that the other does not.
        PYO3_PYTHON=$python PYO3_BUILD_EXTENSION_MODULE=1 \
            cargo clippy -q --release --all-targets -- -D warnings
        cargo clippy -q --release --all-targets --no-default-features -- -D warnings
        ;;
    fmt) cargo fmt ;;
    fuzz)
        [ -d fuzz ] || {
            say "kernel/fuzz has no targets"
            exit 0
        }
        export PATH="$PATH:$OLDPWD/.cache/cargo-fuzz/bin"
        command -v cargo-fuzz >/dev/null || {
            say "installing cargo-fuzz (some minutes the first time)"
            cargo install -q cargo-fuzz --locked --root "$OLDPWD/.cache/cargo-fuzz"
        }
        # A stable compiler then takes the flags of the sanitizer, which are nightly's.
        export RUSTC_BOOTSTRAP=1
        for target in $(cargo fuzz list); do
            say "fuzzing $target for ${FUZZ_SECONDS:-20} s"
            cargo fuzz run "$target" -- \
                -max_total_time="${FUZZ_SECONDS:-20}" -verbosity=0 -print_final_stats=1
        done
        ;;
    test)
        say "testing the kernel in Rust"
        cargo test -q --no-default-features
        ;;
    esac
    ;;
*)
    echo "usage: sh scripts/kernel.sh usable|ensure|build|check|fmt|test|fuzz" >&2
    exit 2
    ;;
esac
