#!/bin/sh
# Create .venv and install riverrun into it, unless that is done already.
#
# Usage: sh scripts/setup.sh run|dev
#   run   riverrun and its runtime dependencies: what `make demo` needs
#   dev   these, the tools for tests and checks, and the native kernel if there is Rust
#
# PYTHON names the interpreter to build on; without it the first one found that is new enough.
set -eu

cd "$(dirname "$0")/.."

level=${1:-dev}
venv=.venv
minimum='import sys; sys.exit(sys.version_info < (3, 11))'

say() { echo "riverrun: $*"; }
fail() {
    echo "riverrun: $*" >&2
    exit 1
}

case $level in
run) target=. ;;
dev) target='.[dev,codecs]' ;;
*) fail "unknown level '$level': use run or dev" ;;
esac

# The stamp names what was installed: a changed pyproject.toml, or a checkout that moved (an
# editable installation holds its path), asks for a new one. What dev installs includes run.
stamp=$({ cat pyproject.toml; pwd; } | cksum | tr ' ' '-')
installed=no
if "$venv/bin/python" -c "$minimum" 2>/dev/null; then
    [ -e "$venv/.installed-dev-$stamp" ] && installed=yes
    [ -e "$venv/.installed-$level-$stamp" ] && installed=yes
else
    found=
    old=
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c "$minimum" 2>/dev/null; then
            found=$candidate
            break
        fi
        old="$old, $candidate is $("$candidate" -V 2>&1)"
    done
    [ -n "$found" ] || fail "needs Python 3.11 or newer and found none${old}." \
        "Install one, or say where it is: make setup PYTHON=/path/to/python3"
    # Debian ships Python without the modules that a virtual environment needs.
    "$found" -c 'import ensurepip, venv' 2>/dev/null || fail "$found cannot make virtual" \
        "environments: on Debian and Ubuntu run 'apt-get install python3-venv', then try again"
    say "creating $venv with $("$found" -V)"
    "$found" -m venv --clear "$venv"
fi

if [ $installed = no ]; then
    say "installing riverrun with its ${level} dependencies into $venv (a minute or two the first time)"
    # On a terminal pip shows what it downloads; in a log only its errors matter.
    quiet=-q
    [ -t 1 ] && quiet=
    # The kernel is built below, where one sees how far it is; here it is left out, as without Rust.
    # shellcheck disable=SC2086  # an empty $quiet must vanish
    CARGO=false "$venv/bin/python" -m pip install --disable-pip-version-check $quiet -e "$target" ||
        fail "the installation failed; the reason is above. Nothing was kept: the next make tries again"
    rm -f "$venv"/.installed-"$level"-*
    : >"$venv/.installed-$level-$stamp"
fi
# The demo does not make a newcomer wait for the compiler.
[ "$level" = run ] || sh scripts/kernel.sh ensure
[ $installed = yes ] || say "$venv is ready"
