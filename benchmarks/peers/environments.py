"""Environments of the engines: a venv or a folder of jars each, made on first use.

Where packages come from is the machine's setting: ``pip`` and ``mvn`` are called as they are.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.engine import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from .catalog import Peer

CACHE = ROOT / ".cache" / "peers"
INSTALL_TIMEOUT_S = 900
REASON_LINES = 3


class PeerNotAvailableError(Exception):
    """An engine cannot be had here; the message says why."""


def home_of(peer: Peer) -> Path:
    """Return the folder of its environment."""
    return CACHE / peer.folder.name


def install(peer: Peer) -> None:
    """Make its environment if it is not there, or was made from other files.

    Raises:
        PeerNotAvailableError: If a tool is missing or fails.
    """
    home, sources = home_of(peer), peer.folder
    files = sorted(path for path in sources.iterdir() if path.suffix in (".txt", ".xml", ".java"))
    wanted = hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
    stamp = home / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    home.mkdir(parents=True, exist_ok=True)
    if (sources / "requirements.txt").exists():
        if not (home / "bin" / "python").exists():
            _call(sys.executable, "-m", "venv", str(home))
        pip = (str(home / "bin" / "python"), "-m", "pip", "install", "--quiet")
        _call(*pip, "--requirement", str(sources / "requirements.txt"))
    if (sources / "pom.xml").exists():
        jars = home / "jars"
        shutil.rmtree(jars, ignore_errors=True)
        mvn = ("mvn", "-B", "-q", "-f", str(sources / "pom.xml"), "dependency:copy-dependencies")
        _call(*mvn, "-DincludeScope=runtime", f"-DoutputDirectory={jars}")
    java = [str(path) for path in files if path.suffix == ".java"]
    if java:
        classes = home / "classes"
        _call("javac", "-cp", f"{home / 'jars'}/*", "-d", str(classes), *java)
    stamp.write_text(wanted)


def command(peer: Peer) -> list[str]:
    """Return what starts a job; which one, and on what, is told by the environment variables."""
    home = home_of(peer)
    if peer.folder.name == "kafka_streams":
        flags = ["-Xms1g", "-Xmx1g", "-XX:ActiveProcessorCount=1", "-XX:+UseSerialGC"]
        flags.append("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        return ["java", *flags, "-cp", f"{home / 'classes'}:{home / 'jars'}/*", "OrdersJob"]
    return [str(home / "bin" / "python"), str(peer.folder / "job.py")]


def variables(peer: Peer) -> dict[str, str]:
    """Return more environment variables for its processes."""
    if peer.name != "flink":
        return dict(peer.variables)
    flags = "-Xms2g -Xmx2g -XX:ActiveProcessorCount=1 -XX:+UseSerialGC"
    # Beside the options of the distribution, which open modules that it needs.
    return {"JVM_ARGS": flags, "BENCH_JARS": str(home_of(peer) / "jars")}


def _call(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise PeerNotAvailableError(f"there is no `{command[0]}` in PATH")
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise PeerNotAvailableError(
            f"`{command[0]}` was not done within {INSTALL_TIMEOUT_S} s"
        ) from None
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise PeerNotAvailableError(" ".join(lines[-REASON_LINES:]) or f"`{command[0]}` failed")
