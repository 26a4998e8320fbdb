#!/bin/sh
# Say what to install where the tests' Apache Kafka could not be started.
#
# The tests start a broker of their own from the jars that Maven fetches once. RIVERRUN_TEST_KAFKA
# names a running one instead.
set -eu

[ -z "${RIVERRUN_TEST_KAFKA:-}" ] || exit 0

missing=
for tool in java mvn; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
# Kafka 4 runs on Java 17 and newer. An unreadable version is given the benefit of the doubt.
case $missing in
*java*) ;;
*)
    version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-17}" -ge 17 ] || missing="$missing java>=17 (found $version)"
    ;;
esac
[ -z "$missing" ] && exit 0

cat >&2 <<TEXT
riverrun: these tests run against a real Apache Kafka, and to start one this machine lacks:$missing
  Debian and Ubuntu:  apt-get install openjdk-17-jdk-headless maven
  macOS:              brew install openjdk@17 maven
  a broker you have:  RIVERRUN_TEST_KAFKA=host:port make test
TEXT
exit 1
