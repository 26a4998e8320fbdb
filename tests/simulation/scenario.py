"""One simulated life of a job, from one seed, and what must be true at its end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec

from riverrun.engine.config import TaskSettings, WorkerSettings
from riverrun.engine.errors import FencedError, LogUnavailableError
from riverrun.engine.failpoints import FAILPOINTS
from riverrun.engine.log import FOREVER_MS, TopicPartition, TopicSpec
from riverrun.engine.memory_log import MemoryLog
from riverrun.engine.memory_storage import MemoryStorage
from riverrun.engine.metrics import Metrics
from riverrun.engine.plan import make_plan
from riverrun.engine.planes import select_plane
from riverrun.engine.reference.plane import ReferencePlane
from riverrun.engine.restore import read_range

from .sessions import LATE, RESULTS, Sessions
from .topology import DISORDER_MS, PARTITIONS, WINDOW_MS, job
from .virtual_loop import LoopClock, VirtualLoop
from .world import Chance, Death, Machine, SimLog, SimWorker

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun.engine.config import Guarantee

START_MS = 1_700_000_000_000
EVENTS_FROM_MS = 1_600_000_000_000
LARGE = 1 << 61
"""Three of them fit into 64 bits."""
KEYS = ("ada", "bob", "cyd", "dan", "eve")
QUIET_S = 3.0
"""How long the output must not change to be taken for complete."""
DEADLINE_S = 600.0
"""Virtual time after the last fault by which everything must be there."""


@dataclass
class Outcome:
    """What a run did, for messages and for tests of the simulation itself."""

    seed: int
    records: int = 0
    sessions: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    pauses: int = 0
    virtual_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)


class Scenario:
    """Runs a job through a random schedule of faults, then compares.

    Args:
        seed: Decides everything.
        room: Directory for snapshots on their way.
        guarantee: What the job promises.
        faults: Whether anything goes wrong at all.
    """

    def __init__(
        self, seed: int, room: Path, guarantee: Guarantee = "exactly_once", *, faults: bool = True
    ) -> None:
        self.rng = random.Random(seed)
        self.outcome = Outcome(seed)
        self._guarantee: Guarantee = guarantee
        self._faults = faults
        self._room = room
        self._chance = Chance(self.rng, self.rng.choice([0.0, 0.005, 0.03]) if faults else 0.0)
        self._objects: dict[str, bytes] = {}
        self._storage = MemoryStorage()
        self._plane = select_plane()
        # A start may be on another plane than the one before, and have no memory to spare.
        others = [select_plane(cached_bytes=0), ReferencePlane()]
        self._planes = [self._plane, *self.rng.choice([[], others])]
        self._sources = self.rng.choice([1, 1, 2])
        asynchronous = self.rng.choice([None, None, "key", "stream"])
        self._sessions = Sessions.by_chance(self.rng)
        self._plan = make_plan(
            job(
                self.rng,
                sources=self._sources,
                asynchronous=asynchronous,
                sessions=self._sessions,
            )
        )
        # Sums of them fit, but a bound for what sums might be does not. Repeated ones would not.
        self._large_left = self.rng.choice([0, 3]) if guarantee == "exactly_once" else 0
        self._machines: list[Machine] = []
        self._sent: list[dict[str, Any]] = []  # {"key", "ts", "amount", "id"}
        self._latest = dict.fromkeys(self._inputs(), EVENTS_FROM_MS)
        self._settings = WorkerSettings(
            task=TaskSettings(
                guarantee=guarantee,
                commit_interval_ms=self.rng.choice([20, 100, 300]),
                snapshot_interval_ms=self.rng.choice([300, 1_500]),
                snapshots_retained=self.rng.choice([1, 2]),
            ),
            session_timeout_ms=3_000,
            offsets_interval_ms=5_000,
        )

    def _inputs(self) -> list[TopicPartition]:
        return [
            TopicPartition(f"in{source}", partition)
            for source in range(self._sources)
            for partition in range(PARTITIONS)
        ]

    def run(self) -> Outcome:
        """Live through it and return what happened."""
        chance = random.Random(self.outcome.seed)
        # Names that the engine makes by chance are a part of what repeats.
        with (
            mock.patch("os.urandom", chance.randbytes),
            mock.patch("riverrun.engine.housekeeping.INTERVAL_MS", 500),
            asyncio.Runner(loop_factory=VirtualLoop) as runner,
        ):
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            runner.run(self._run(loop))
            self.outcome.virtual_s = loop.time()
            for context in loop.errors:
                error = context.get("exception")
                # What a dying process still says is of no interest.
                if not isinstance(error, Death | asyncio.CancelledError):
                    self.outcome.problems.append(f"on the loop: {context['message']}: {error!r}")
        return self.outcome

    async def _run(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._clock = LoopClock(loop, START_MS)
        self._driver = MemoryLog(self._clock, self._storage, max_chunk_bytes=1)
        specs = [
            TopicSpec(f"in{n}", PARTITIONS, retention_ms=FOREVER_MS) for n in range(self._sources)
        ]
        await self._driver.create_topics(specs)
        self._producer = await self._driver.open_writer("p", transactional=True, timeout_ms=0)
        for number in range(self.rng.choice([1, 2, 3])):
            machine = Machine(f"w{number}", self._chance, self._objects, self._room)
            self._machines.append(machine)
            self._launch(machine)
        for _ in range(self.rng.randint(15, 35)):
            await self._act()
            await asyncio.sleep(self.rng.choice([0.0, 0.05, 0.2, 0.8]))
        await self._settle()

    def _launch(self, machine: Machine) -> None:
        log = MemoryLog(self._clock, self._storage, max_chunk_bytes=self.rng.choice([1, 1 << 20]))
        machine.launch(self._make_worker, log)

    def _make_worker(self, log: SimLog, machine: Machine) -> SimWorker:
        return SimWorker(
            self._plan,
            log,
            self.rng.choice(self._planes),
            self._clock,
            Metrics(self._plan.job, machine.name),
            self._settings,
            machine,
            machine.failpoint,
        )

    # --- what happens ----------------------------------------------------------------------------

    async def _act(self) -> None:
        await self._produce(self.rng.randint(1, 8))
        if not self._faults:
            return
        number = self.rng.randrange(len(self._machines))
        machine = self._machines[number]
        if machine.is_dead:
            if self.rng.random() < 0.7:
                self._restart(number, lose_disk=self.rng.random() < 0.3)
            return
        match self.rng.randrange(10):
            case 0:
                self._tell(f"kill {machine.name}")
                machine.kill("kill")
            case 1 | 2 | 3:
                place = self.rng.choice(FAILPOINTS)
                self._tell(f"{machine.name} is to die at {place}")
                machine.arm(place, self.rng.choice([1, 1, 2, 5]))
            case 4 if machine.is_paused:
                self._tell(f"resume {machine.name}")
                machine.resume()
            case 4 | 5:
                self._tell(f"pause {machine.name}")
                self.outcome.pauses += 1
                machine.pause()
            case 6 if machine.worker is not None:
                self._tell(f"stop {machine.name}")
                machine.worker.stop()
            case _:
                pass

    def _restart(self, number: int, *, lose_disk: bool) -> None:
        machine = self._machines[number].heir()
        self._tell(f"start {machine.name}{' on a new disk' if lose_disk else ''}")
        if lose_disk:
            machine.disk.durable.clear()
        self._machines[number] = machine
        self._launch(machine)

    def _tell(self, what: str) -> None:
        self.outcome.story.append(f"{self._loop.time():8.3f} {what}")

    async def _produce(self, count: int) -> None:
        for _ in range(count):
            where = self.rng.choice(self._inputs())
            self._latest[where] += self.rng.choice([0, 10, 150, 600])
            time_ms = self._latest[where] - self.rng.randint(0, DISORDER_MS)
            amount = self.rng.randint(1, 9)
            if self._large_left and self.rng.random() < 0.05:
                self._large_left -= 1
                amount = LARGE
            self._send(where, self.rng.choice(KEYS), time_ms, amount)
        await self._producer.commit(0)

    def _send(self, where: TopicPartition, key: str, time_ms: int, amount: int) -> None:
        record = {"key": key, "ts": time_ms, "amount": amount, "id": len(self._sent)}
        self._sent.append(record)
        codec = self._plane.record_batches
        for batch in codec.encode([None], [msgspec.json.encode(record)], [time_ms], None, 10_000):
            self._producer.append(where.topic, where.partition, batch)

    # --- the end ---------------------------------------------------------------------------------

    async def _settle(self) -> None:
        self._chance.fault = 0.0
        # A last record far ahead in each partition closes all windows before it.
        end_ms = max(self._latest.values()) + 20 * WINDOW_MS
        for where in self._inputs():
            self._send(where, "end", end_ms, 1)
        await self._producer.commit(0)
        self._tell("no more faults")
        for number, machine in enumerate(self._machines):
            machine.disarm()
            machine.resume()
            if machine.is_dead:
                self._restart(number, lose_disk=False)
        before: list[Any] = []
        deadline_s = self._loop.time() + DEADLINE_S
        while self._loop.time() < deadline_s:
            await asyncio.sleep(QUIET_S)
            for number, machine in enumerate(self._machines):
                if machine.is_dead:
                    self._restart(number, lose_disk=False)
            windows, counts, late = await self._output()
            sessions = await self._read(RESULTS)
            now = [len(windows), len(counts), len(late), len(sessions)]
            if now == before and len(counts) >= len(self._sent):
                break
            before = now
        else:
            self.outcome.problems.append("the output never came to rest")
        windows, counts, late = await self._output()
        self._compare(windows, counts, late, end_ms)
        await self._compare_sessions(end_ms)
        for machine in self._machines:
            self.outcome.deaths.update(machine.deaths)
            for error in machine.failures:
                # A supervisor starts the worker again; anything else is a refusal to go on.
                if not isinstance(error, FencedError | LogUnavailableError):
                    self.outcome.problems.append(f"{machine.name} failed: {error!r}")
        self.outcome.records = len(self._sent)
        for machine in self._machines:
            machine.kill("end of the story")

    async def _output(self) -> tuple[list[Any], list[Any], list[Any]]:
        return (
            await self._read("window-results"),
            await self._read("counts"),
            await self._read("late"),
        )

    async def _read(self, topic: str) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        for partition in range(PARTITIONS):
            where = TopicPartition(topic, partition)
            if where not in self._storage.partitions:
                continue
            span = (await self._driver.offsets([where]))[where]
            codec = self._plane.record_batches
            async for records in read_range(self._driver, where, span.start, span.end, codec):
                for key, value in zip(records.keys, records.values, strict=True):
                    assert key is not None
                    assert value is not None
                    found.append((key.decode(), msgspec.json.decode(value)))
        return found

    def _compare(self, windows: list[Any], counts: list[Any], late: list[Any], end_ms: int) -> None:
        expected: dict[tuple[str, int], list[int]] = {}
        totals: Counter[str] = Counter()
        for record in self._sent:
            totals[record["key"]] += 1
            if record["ts"] < end_ms:
                start_ms = record["ts"] - record["ts"] % WINDOW_MS
                entry = expected.setdefault((record["key"], start_ms), [0, 0])
                entry[0] += 1
                entry[1] += record["amount"]
        found: dict[tuple[str, int], list[list[int]]] = {}
        for key, row in windows:
            found.setdefault((key, row["start"]), []).append([row["count"], row["sum"]])
        if self._guarantee == "exactly_once" or not self._faults:
            self._compare_exactly(expected, totals, found, counts, late)
        else:
            self._compare_at_least(expected, found, counts)

    async def _compare_sessions(self, end_ms: int) -> None:
        if self._sessions is None:
            return
        results, late = await self._read(RESULTS), await self._read(LATE)
        self.outcome.sessions = len(results)
        ended = [record for record in self._sent if record["ts"] < end_ms]
        exactly = self._guarantee == "exactly_once" or not self._faults
        self.outcome.problems += self._sessions.problems(ended, results, late, exactly=exactly)

    def _compare_exactly(
        self,
        expected: dict[tuple[str, int], list[int]],
        totals: Counter[str],
        found: dict[tuple[str, int], list[list[int]]],
        counts: list[Any],
        late: list[Any],
    ) -> None:
        problems = self.outcome.problems
        if late:
            problems.append(f"{len(late)} records came late, such as {late[0]}")
        for window, value in expected.items():
            if found.get(window, []) != [value]:
                problems.append(f"window {window}: {value} expected, got {found.get(window)}")
        problems.extend(f"window {window} is not expected" for window in found.keys() - expected)
        for key, total in totals.items():
            numbers = [row["n"] for each, row in counts if each == key]
            if numbers != list(range(1, total + 1)):
                problems.append(f"counts of {key}: 1 to {total} expected, got {numbers}")
        ids = Counter(row["id"] for _, row in counts)
        wrong = [record["id"] for record in self._sent if ids[record["id"]] != 1]
        if wrong:
            problems.append(f"records not counted exactly once: {wrong}")

    def _compare_at_least(
        self,
        expected: dict[tuple[str, int], list[int]],
        found: dict[tuple[str, int], list[list[int]]],
        counts: list[Any],
    ) -> None:
        problems = self.outcome.problems
        for (key, start_ms), (count, total) in expected.items():
            results = found.get((key, start_ms), [])
            if not results or min(results) < [count, total]:
                problems.append(
                    f"window {(key, start_ms)}: at least {[count, total]} expected, got {results}"
                )
        ids = Counter(row["id"] for _, row in counts)
        lost = [record["id"] for record in self._sent if not ids[record["id"]]]
        if lost:
            problems.append(f"records never counted: {lost}")
        if not any(self.outcome.deaths) and not self._faults and max(ids.values()) > 1:
            problems.append("records were repeated although nothing went wrong")
