#!/bin/sh
# Run the tests: those in Rust, then all in Python on each data plane. A failure on one plane does
# not hide what the other one does; pytest's closing line ends the output.
#
# Usage: PLANE=kernel|reference sh scripts/run_tests.sh [PYTEST ARGUMENTS]
#   without PLANE both, or the reference plane alone where no kernel can be built
set -eu

cd "$(dirname "$0")/.."

python=.venv/bin/python
why='from riverrun.engine.planes import why_reference as why; print(why() or "")'

planes=${PLANE:-}
if [ -z "$planes" ]; then
    reason=$("$python" -c "$why")
    planes="kernel reference"
    if [ -n "$reason" ]; then
        echo "riverrun: no native kernel, so the tests run on the reference plane alone: $reason"
        planes=reference
    fi
fi

failed=
# What selects tests in Python is about these.
case "$planes $#" in
*kernel*" 0") sh scripts/kernel.sh test || failed="kernel (Rust)" ;;
esac
for plane in $planes; do
    echo "riverrun: tests on the $plane plane"
    code=0
    RIVERRUN_PLANE=$plane RIVERRUN_REQUIRE_KAFKA=1 "$python" -m pytest "$@" || code=$?
    # 2: interrupted.
    [ $code -ne 2 ] || exit 2
    [ $code -eq 0 ] || failed="${failed:+$failed, }$plane"
done
[ -z "$failed" ] || {
    echo "riverrun: tests failed: $failed" >&2
    exit 1
}
