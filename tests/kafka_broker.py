"""One real Apache Kafka broker for tests, demos and benchmarks, without Docker.

Order of choice: the address in ``RIVERRUN_TEST_KAFKA``; else a JVM that we start from jars that
Maven fetched into ``.cache/kafka-libs``. Run it in the foreground with
``python tests/kafka_broker.py --port 9092``.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ADDRESS_VARIABLE = "RIVERRUN_TEST_KAFKA"
REQUIRED_VARIABLE = "RIVERRUN_REQUIRE_KAFKA"

ROOT = Path(__file__).resolve().parent.parent
SERVER_FILES = ROOT / "tests" / "kafka_server"
LIBS = ROOT / ".cache" / "kafka-libs"
FORMATTED = ROOT / ".cache" / "kafka-formatted"
CLASS_DATA = ROOT / ".cache" / "kafka.jsa"

# Start is dominated by class loading and compilation: shared class data and the first compiler
# alone halve it. The serial collector leaves the other core to the tests.
JVM_FLAGS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)
# What a broker that is measured runs with: all compilers, and a collector with short pauses.
STEADY_JVM_FLAGS = (
    "-server",
    "-Xms512m",
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-Djava.awt.headless=true",
)
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0

# Where servers of tests may listen: from here to where the system takes ports for clients.
PORTS_FROM = 10_000
# Or to here, where clients may have nearly all ports, as on machines with very many of them.
PORTS_UNTIL_MIN = 15_000
PORT_TRIES = 100
# Not the numbers of a seed: two runs of the tests would ask for the same ports.
_ANY = random.SystemRandom()


class KafkaNotAvailableError(Exception):
    """There is no way to get a broker here; the message says what is missing."""


def free_port(count: int = 1) -> int:
    """Return the first of ``count`` TCP ports in a row that nobody has.

    They lie below those that the system gives to clients, where it leaves room: one of these can
    be a client's by the time that a server which was told of it has started.

    Raises:
        OSError: There are none.
    """
    for _ in range(PORT_TRIES):
        first = _ANY.randrange(PORTS_FROM, max(_clients_ports_from(), PORTS_UNTIL_MIN) - count)
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise OSError(f"no {count} free ports in a row were found in {PORT_TRIES} tries")


def _clients_ports_from() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:  # not Linux: the range that IANA names begins there
        return 49_152


def require_libs() -> Path:
    """Return the folder of Kafka's jars, fetching them on first use.

    Raises:
        KafkaNotAvailableError: No Java, no Maven, or the fetch failed.
    """
    if shutil.which("java") is None:
        raise KafkaNotAvailableError(f"no `java` in PATH and {ADDRESS_VARIABLE} is not set")
    if any(LIBS.glob("kafka_2.13-*.jar")):
        return LIBS
    if shutil.which("mvn") is None:
        raise KafkaNotAvailableError(f"no `mvn` in PATH to fetch Kafka's jars into {LIBS}")
    command = [
        "mvn", "-B", "-q", "-f", str(SERVER_FILES / "pom.xml"),
        "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={LIBS}",
    ]  # fmt: skip
    fetched = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if fetched.returncode != 0:
        raise KafkaNotAvailableError(f"mvn could not fetch Kafka's jars:\n{fetched.stdout}")
    return LIBS


class KafkaBroker:
    """A single KRaft broker on free ports of 127.0.0.1, its data in a temporary directory.

    ``start`` after ``stop`` or ``kill`` comes back on the same port with the same data.
    """

    def __init__(
        self,
        port: int | None = None,
        settings: dict[str, str] | None = None,
        jvm_flags: tuple[str, ...] = JVM_FLAGS,
        listeners: str = "",
    ) -> None:
        """Prepare, without starting.

        Args:
            port: Of its plain listener.
            settings: Added to ``server.properties``.
            jvm_flags: Flags of the JVM.
            listeners: More of them, as in ``server.properties``.
        """
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.home = Path(tempfile.mkdtemp(prefix="riverrun-kafka-"))
        self.log_file = self.home / "server.log"
        self._controller_port = free_port()
        self._settings = settings or {}
        self._listeners = listeners
        self._jvm_flags = jvm_flags
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            KafkaNotAvailableError: It cannot be started or is not ready within the deadline.
        """
        libs = require_libs()
        config = self._configure(libs)
        flags = list(self._jvm_flags)
        if _java_major() >= 19:  # before, the archive cannot make itself
            flags += [f"-XX:SharedArchiveFile={CLASS_DATA}", "-XX:+AutoCreateSharedArchive"]
        command = ["java", *flags, f"-Dlog4j2.configurationFile={SERVER_FILES / 'log4j2.xml'}"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-cp", f"{libs}/*", "kafka.Kafka", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in pytest must not kill it before its tests end
                preexec_fn=_unblock_signals,
            )
        self._wait_ready()

    def _configure(self, libs: Path) -> Path:
        config = self.home / "server.properties"
        if config.exists():
            return config
        text = (SERVER_FILES / "server.properties.in").read_text()
        text = text.replace("BROKER_PORT", str(self.port))
        text = text.replace("CONTROLLER_PORT", str(self._controller_port))
        text = text.replace("DATA_DIR", str(self.home / "data"))
        text += "".join(f"{key}={value}\n" for key, value in self._settings.items())
        if self._listeners:
            text += _with_more_listeners(text, self._listeners)
        config.write_text(text)
        # Formatting takes a JVM start of its own: done once, then copied.
        stamp = FORMATTED / next(libs.glob("kafka_2.13-*.jar")).stem
        if not stamp.exists():
            self._format(libs, config)
            staging = Path(tempfile.mkdtemp(dir=ROOT / ".cache"))
            shutil.copytree(self.home / "data", staging / "data")
            stamp.parent.mkdir(parents=True, exist_ok=True)
            try:
                staging.rename(stamp)
            except OSError:  # another run was quicker
                shutil.rmtree(staging)
        else:
            shutil.copytree(stamp / "data", self.home / "data")
        return config

    def _format(self, libs: Path, config: Path) -> None:
        java = ["java", "-cp", f"{libs}/*", "kafka.tools.StorageTool"]
        subprocess.run(
            [*java, "format", "-t", "cml2ZXJydW4tdGVzdHMtMA", "-c", str(config)],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def _wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if _answers(self.address):
                return
            time.sleep(0.1)
        tail = self.log_file.read_text(errors="replace")[-3000:]
        self.kill()
        raise KafkaNotAvailableError(f"Kafka did not start, see {self.log_file}:\n{tail}")

    def stop(self) -> None:
        """Shut it down in order, as an operator would; kill it when that takes too long."""
        self._signal(signal.SIGTERM)
        try:
            if self._process is not None:
                self._process.wait(STOP_DEADLINE_S)
                self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it as a crash would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_DEADLINE_S)
            self._process = None

    def pause(self) -> None:
        """Stop its process from running: connections stay, nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after ``pause``."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def remove(self) -> None:
        """Kill it and delete its data; harmless when repeated."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)


def _with_more_listeners(properties: str, more: str) -> str:
    """Return the line that stands for the one there is: of two, the last one counts."""
    line = next(line for line in properties.splitlines() if line.startswith("listeners="))
    return f"{line},{more}\n"


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _java_major() -> int:
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    return int(shown.split('"')[1].split(".")[0])


def _answers(address: str) -> bool:
    """Return whether a metadata request is answered with at least one broker."""

    async def ask() -> bool:
        from aiokafka.conn import create_conn
        from aiokafka.protocol.metadata import MetadataRequest

        host, port = address.rsplit(":", 1)
        connection = await create_conn(host, int(port), request_timeout_ms=5_000)
        try:
            metadata = await connection.send(MetadataRequest([]))
            return bool(metadata.brokers)
        finally:
            await connection.close()

    try:
        with socket.create_connection(tuple(address.rsplit(":", 1)), 1.0):  # type: ignore[arg-type]
            pass
        return asyncio.run(ask())
    except Exception:  # not up yet, in whatever way
        return False


def main() -> None:
    """Run a broker in the foreground until interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092)
    # Blocked, to be waited for: unblocked, SIGTERM would end us and leave the JVM behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    broker = KafkaBroker(parser.parse_args().port)
    started = time.monotonic()
    broker.start()
    seconds = time.monotonic() - started
    sys.stdout.write(f"Kafka at {broker.address} after {seconds:.1f} s, log {broker.log_file}\n")
    sys.stdout.flush()
    try:
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        broker.remove()


def from_environment() -> str | None:
    """Return the address of a broker that is there already, None if there is none."""
    return os.environ.get(ADDRESS_VARIABLE)


if __name__ == "__main__":
    main()
