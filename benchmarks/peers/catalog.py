"""The engines that are measured beside riverrun: version, guarantee, configuration, sizes.

Each has a folder here with its jobs and what its environment is made of, and an environment of its
own under ``.cache/peers``. What is said of an engine in the results is said here, once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).resolve().parent
JOBS = ("filter", "window")
RIVERRUN = "riverrun"

ALL_RESULTS = "all results can be read"
ALL_COMMITTED = "the end of the input is committed"
ENDED = "the process has ended by itself"


@dataclass(frozen=True, slots=True)
class Size:
    """How many records an engine drains.

    Attributes:
        long: Records of the drain that is measured.
        short: Records of the drain that is subtracted from it.
    """

    long: int
    short: int


@dataclass(frozen=True, slots=True)
class Peer:
    """One engine.

    Attributes:
        name: Its name on the command line, and of its folders.
        title: Its name in the results.
        package: The line of the requirements or the artifact whose version is its version.
        guarantee: What its jobs run with: the strongest that it has.
        setting: How it is configured, in a few words.
        records: What it drains per job: some twenty seconds of work for an engine of its speed.
        short_share: Share of them in the short drain. A fifth where a compiler warms up first.
        end: How the end of a drain is seen.
        updates: Whether ``window`` puts out updates, the last of which counts, or final results.
        variables: More environment variables for its job.
        folder_name: Where its job is, if not in a folder of its name.
    """

    name: str
    title: str
    package: str
    guarantee: str
    setting: str
    records: Mapping[str, int]
    short_share: float = 0.1
    end: str = ALL_RESULTS
    updates: bool = False
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    folder_name: str = ""

    @property
    def folder(self) -> Path:
        """Where its jobs are."""
        return FOLDER / (self.folder_name or self.name)

    def size(self, job: str, *, quick: bool) -> Size:
        """Return what it drains; with ``quick`` half of that."""
        long = self.records[job] // (2 if quick else 1)
        return Size(long, int(long * self.short_share))

    def version(self) -> str:
        """Return the version that is pinned."""
        for name in ("requirements.txt", "pom.xml"):
            path = self.folder / name
            if path.exists() and (found := pinned(path.read_text("utf-8"), self.package)):
                return found
        raise AssertionError(f"{self.package} is pinned nowhere in {self.folder}")


def pinned(text: str, package: str) -> str | None:
    """Return the version of a package in requirements or in a POM, None if it is not there."""
    line = re.compile(
        rf"^{re.escape(package)}(?:\[[\w,]+\])?==(\S+)"
        rf"|<artifactId>{re.escape(package)}</artifactId>\s*<version>([^<]+)</version>",
        re.MULTILINE,
    )
    found = line.search(text)
    return None if found is None else found[1] or found[2]


PEERS = (
    Peer(
        name="kafka_streams",
        title="Kafka Streams",
        package="kafka-streams",
        guarantee="exactly once (`exactly_once_v2`), commits each 100 ms",
        setting="Java, one stream thread, RocksDB with a cache of 64 MB, Jackson",
        records={"filter": 6_000_000, "window": 3_000_000},
        short_share=0.2,
        end=ALL_COMMITTED,
        updates=True,
    ),
    Peer(
        name="kafka_streams_500ms",
        title="Kafka Streams, 500 ms",
        package="kafka-streams",
        guarantee="exactly once (`exactly_once_v2`), commits each 500 ms",
        setting="as above, committing as seldom as riverrun while it catches up",
        records={"filter": 6_000_000, "window": 6_000_000},
        short_share=0.2,
        end=ALL_COMMITTED,
        updates=True,
        variables={"BENCH_COMMIT_MS": "500"},
        folder_name="kafka_streams",
    ),
    Peer(
        name="flink",
        title="PyFlink SQL",
        package="apache-flink",
        guarantee="exactly once (checkpoints each second, transactional sink)",
        setting="mini cluster, parallelism 1, state on the heap, object reuse",
        records={"filter": 6_000_000, "window": 6_000_000},
        short_share=0.2,
    ),
    Peer(
        name="pathway",
        title="Pathway",
        package="pathway",
        guarantee="at least once (persistence in the file system)",
        setting="one thread, `exactly_once_behavior` windows",
        records={"filter": 4_000_000, "window": 1_000_000},
    ),
    Peer(
        name="bytewax",
        title="Bytewax",
        package="bytewax",
        guarantee="at least once (recovery store, snapshots each 10 s)",
        setting="one worker, batches of 1,000, msgspec for JSON; ends at the end of the input",
        records={"filter": 3_000_000, "window": 800_000},
        end=ENDED,
    ),
    Peer(
        name="quix",
        title="Quix Streams",
        package="quixstreams",
        guarantee="exactly once, commits each 5 s",
        setting="RocksDB with changelog, windows closed by partition",
        records={"filter": 1_500_000, "window": 600_000},
    ),
    Peer(
        name="faust",
        title="Faust",
        package="faust-streaming",
        guarantee="at least once",
        setting="table in memory with changelog, orjson, an update per record",
        records={"filter": 120_000, "window": 80_000},
        updates=True,
    ),
)
NAMES = (RIVERRUN, *(peer.name for peer in PEERS))
