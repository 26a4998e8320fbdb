"""Topics, offsets and other questions to the cluster, each with a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka.protocol.admin import DeleteRecordsRequest, DescribeConfigsRequest
from aiokafka.protocol.offset import OffsetRequest

from riverrun.engine.errors import (
    LogAuthorizationError,
    LogError,
    LogUnavailableError,
    OffsetOutOfRangeError,
    PartitionCountError,
    TopicMissingError,
)
from riverrun.engine.log import OffsetRange, TopicInfo, TopicPartition, TopicSpec

from .client import ADMIN_LANE, GROUP_KIND, Backoff, Coordinator, Deadline, KafkaClient
from .client import NotAnsweredError as NotAnswered
from .protocol import (
    COORDINATOR_PASSING,
    PASSING,
    REFUSED,
    STALE_COORDINATOR,
    Code,
    CreateTopicsRequest_v4,
    Exact,
    OffsetFetchRequest_v7,
    by_topic,
    code_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# For a question whose asker gave no deadline: longer than a broker's restart, short of for ever.
QUESTION_TIMEOUT_MS = 30_000
# Metadata of a new topic spreads within a second; with growing pauses this is about 3 s.
MISSING_ATTEMPTS_MAX = 7
EARLIEST = -2
LATEST = -1
READ_COMMITTED = 1
TOPIC_RESOURCE = 2
# message.max.bytes of a broker that was not told otherwise.
MAX_BATCH_BYTES_DEFAULT = 1_048_588
BROKER_DEFAULT = -1


class Admin:
    """Questions and orders to the cluster as a whole."""

    def __init__(self, client: KafkaClient, *, timeout_ms: int = QUESTION_TIMEOUT_MS) -> None:
        self._client = client
        self._timeout_ms = timeout_ms

    # --- topics ------------------------------------------------------------------------------

    async def describe_topic(self, name: str) -> TopicInfo | None:
        """Return the topic as it is now, None if there is none.

        Raises:
            LogUnavailableError: No answer within the deadline.
            LogAuthorizationError: Access was refused.
        """
        deadline, backoff = Deadline(self._timeout_ms), Backoff()
        while True:
            try:
                await self._client.refresh((name,), deadline)
                topic = self._client.topic(name)
                code = Code.UNKNOWN_TOPIC_OR_PARTITION if topic is None else topic.error
                if topic is not None and code == Code.NONE:
                    return await self._with_settings(name, len(topic.leaders), deadline)
                if code == Code.UNKNOWN_TOPIC_OR_PARTITION:
                    return None
                if code in REFUSED:
                    raise LogAuthorizationError(f"topic {name!r}: {code_name(code)}")
                if code not in PASSING:
                    raise LogError(f"topic {name!r}: {code_name(code)}")
                reason = code_name(code)
            except NotAnswered as error:
                reason = str(error)
            await self._pause(backoff, deadline, f"describing topic {name!r}", reason)

    async def _with_settings(self, name: str, partitions: int, deadline: Deadline) -> TopicInfo:
        names = ["retention.ms", "max.message.bytes"]
        request = DescribeConfigsRequest([(TOPIC_RESOURCE, name, names)])
        answer = await self._client.send_any(request, deadline)
        resource = answer.resources[0]
        # Without the right to read settings the topic can still be used.
        settings = {entry[0]: entry[1] for entry in resource[4]} if resource[0] == 0 else {}
        retention = settings.get("retention.ms")
        return TopicInfo(
            name=name,
            partitions=partitions,
            retention_ms=None if retention is None else int(retention),
            max_batch_bytes=int(settings.get("max.message.bytes") or MAX_BATCH_BYTES_DEFAULT),
        )

    async def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create those that are missing and wait until their partitions can be used.

        Raises:
            PartitionCountError: A topic exists with another number of partitions.
            LogAuthorizationError: Creation was refused.
            LogUnavailableError: Not done within the deadline.
        """
        if not specs:
            return
        deadline, backoff = Deadline(self._timeout_ms), Backoff()
        wanted = {spec.name: spec for spec in specs}
        missing = dict(wanted)
        created: list[str] = []
        what = f"creating topics {sorted(wanted)}"
        while True:
            try:
                await self._client.refresh(wanted, deadline)
                for name in list(missing):
                    if self._exists(name):
                        del missing[name]
                if not missing:
                    break
                created = sorted(missing)
                reason = await self._create(list(missing.values()), deadline)
            except NotAnswered as error:
                reason = str(error)
            await self._pause(backoff, deadline, what, reason)
        self._check_counts(specs)
        if created:
            # Metadata names leaders before they serve. Whoever asks first would have to wait and
            # retry, so that is done here, once.
            await self.offsets(
                [
                    TopicPartition(name, p)
                    for name in created
                    for p in range(wanted[name].partitions)
                ]
            )

    def _exists(self, name: str) -> bool:
        topic = self._client.topic(name)
        return topic is not None and bool(topic.leaders)

    def _check_counts(self, specs: Sequence[TopicSpec]) -> None:
        for spec in specs:
            topic = self._client.topic(spec.name)
            have = 0 if topic is None else len(topic.leaders)
            if have != spec.partitions:
                raise PartitionCountError(
                    f"topic {spec.name!r} has {have} partitions and should have {spec.partitions}; "
                    "partitions decide which task owns a key, so they cannot be changed under it"
                )

    async def _create(self, specs: Sequence[TopicSpec], deadline: Deadline) -> str:
        entries: list[tuple[Any, ...]] = [
            (
                spec.name,
                spec.partitions,
                BROKER_DEFAULT if spec.replication is None else spec.replication,
                [],
                list(_settings(spec).items()),
            )
            for spec in specs
        ]
        request = Exact(CreateTopicsRequest_v4(entries, int(deadline.left_ms()), False))
        answer = await self._client.send_any(request, deadline)
        reason = "waiting for metadata"
        for name, code, message in answer.topic_errors:
            if code in {Code.NONE, Code.TOPIC_ALREADY_EXISTS}:
                continue
            reason = f"{name}: {message or code_name(code)}"
            if code in REFUSED:
                raise LogAuthorizationError(f"topic {name!r} may not be created: {reason}")
            if code not in PASSING and code != Code.NOT_CONTROLLER:
                raise LogError(f"topic {name!r} cannot be created: {reason}")
        return reason

    # --- offsets -----------------------------------------------------------------------------

    async def offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetRange]:
        """Return the committed range of each partition: ``[log start, last stable offset)``.

        Raises:
            TopicMissingError: A topic or partition does not exist.
            LogUnavailableError: No answer within the deadline.
            LogAuthorizationError: Access was refused.
        """
        starts = await self._ask_leaders(partitions, _ListOffsets(EARLIEST))
        # The end after the start: then the range is never upside down.
        ends = await self._ask_leaders(partitions, _ListOffsets(LATEST))
        return {tp: OffsetRange(starts[tp], ends[tp]) for tp in starts}

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below the given offset of each partition.

        Raises:
            OffsetOutOfRangeError: An offset is beyond the partition's end.
            TopicMissingError: A topic or partition does not exist.
            LogUnavailableError: No answer within the deadline.
            LogAuthorizationError: Access was refused.
        """
        await self._ask_leaders(list(before), _DeleteRecords(before))

    async def _ask_leaders(
        self, partitions: Iterable[TopicPartition], question: _ListOffsets | _DeleteRecords
    ) -> dict[TopicPartition, int]:
        """Ask the leader of each partition until each has answered."""
        deadline, backoff = Deadline(self._timeout_ms), Backoff()
        answers: dict[TopicPartition, int] = {}
        open_questions = {TopicPartition(*partition) for partition in partitions}
        missing = 0
        while open_questions:
            reason = "no leader"
            try:
                if any(self._client.leader(tp) is None for tp in open_questions):
                    await self._client.refresh({tp.topic for tp in open_questions}, deadline)
                    # Only here: a leader that we forgot ourselves says nothing about the topic.
                    missing = missing + 1 if self._some_missing(open_questions) else 0
                for node, led in self._by_leader(open_questions).items():
                    request = question.request(led, deadline)
                    answer = await self._client.send(
                        node, request, lane=ADMIN_LANE, timeout_ms=deadline.left_ms()
                    )
                    for tp, code, value in question.read(answer):
                        if code == Code.NONE:
                            answers[tp] = value
                            open_questions.discard(tp)
                        else:
                            reason = self._check_passing(tp, code)
            except NotAnswered as error:
                reason = str(error)
                for tp in open_questions:
                    self._client.forget_leader(tp)
            if not open_questions:
                break
            if missing >= MISSING_ATTEMPTS_MAX:
                names = ", ".join(sorted(str(tp) for tp in open_questions))
                raise TopicMissingError(f"{names} does not exist")
            await self._pause(backoff, deadline, question.what, reason)
        return answers

    def _by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        grouped: dict[int, list[TopicPartition]] = {}
        for partition in partitions:
            leader = self._client.leader(partition)
            if leader is not None:
                grouped.setdefault(leader, []).append(partition)
        return grouped

    def _some_missing(self, partitions: Iterable[TopicPartition]) -> bool:
        for partition in partitions:
            topic = self._client.topic(partition.topic)
            if topic is not None and topic.error in REFUSED:
                raise LogAuthorizationError(f"{partition}: {code_name(topic.error)}")
            if topic is not None and self._client.leader(partition) is None:
                known = topic.error in PASSING and topic.error != Code.UNKNOWN_TOPIC_OR_PARTITION
                if not known and topic.leaders.get(partition.partition) is None:
                    return True
        return False

    def _check_passing(self, partition: TopicPartition, code: int) -> str:
        if code in REFUSED:
            raise LogAuthorizationError(f"{partition}: {code_name(code)}")
        if code == Code.OFFSET_OUT_OF_RANGE:
            raise OffsetOutOfRangeError(f"{partition}: the offset is beyond its end")
        if code not in PASSING:
            raise LogError(f"{partition}: {code_name(code)}")
        self._client.forget_leader(partition)
        return f"{partition}: {code_name(code)}"

    # --- groups ------------------------------------------------------------------------------

    async def group_offsets(
        self, group: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Return the committed offsets of a group, for those partitions that have one.

        Raises:
            LogUnavailableError: No answer within the deadline.
            LogAuthorizationError: Access was refused.
        """
        deadline, backoff = Deadline(self._timeout_ms), Backoff()
        coordinator = Coordinator(self._client, kind=GROUP_KIND, key=group, lane=ADMIN_LANE)
        topics: list[Any] = [(topic, numbers, {}) for topic, numbers in by_topic(partitions)]
        request = Exact(OffsetFetchRequest_v7(group, topics, True, {}))
        while True:
            try:
                answer = await coordinator.send(request, deadline)
                offsets, code = _read_group_offsets(answer)
                if code == Code.NONE:
                    return offsets
                if code in REFUSED:
                    raise LogAuthorizationError(f"group {group!r}: {code_name(code)}")
                if code in STALE_COORDINATOR:
                    coordinator.moved()
                elif code not in COORDINATOR_PASSING and code != Code.UNSTABLE_OFFSET_COMMIT:
                    raise LogError(f"offsets of group {group!r}: {code_name(code)}")
                reason = code_name(code)
            except NotAnswered as error:
                reason = str(error)
            await self._pause(backoff, deadline, f"reading offsets of group {group!r}", reason)

    async def _pause(self, backoff: Backoff, deadline: Deadline, what: str, reason: str) -> None:
        if deadline.passed():
            raise LogUnavailableError(
                f"{what} at {self._client.bootstrap}: not done within {self._timeout_ms} ms "
                f"({reason})"
            )
        await backoff.pause(deadline)


def _settings(spec: TopicSpec) -> dict[str, str]:
    settings = dict(spec.configs)
    if spec.retention_ms is not None:
        settings["retention.ms"] = str(spec.retention_ms)
    return settings


def _read_group_offsets(answer: Any) -> tuple[dict[TopicPartition, int], int]:
    """Return the offsets and the worst error.

    The top-level error is the one that tells "not the coordinator" and "still loading", with no
    partitions beside it: unread, that means "nothing was ever committed".
    """
    if answer.error_code != Code.NONE:
        return {}, answer.error_code
    offsets: dict[TopicPartition, int] = {}
    for topic, partitions, _ in answer.topics:
        for partition, offset, _, _, code, _ in partitions:
            if code not in {Code.NONE, Code.UNKNOWN_TOPIC_OR_PARTITION}:
                return {}, code
            if offset >= 0:
                offsets[TopicPartition(topic, partition)] = offset
    return offsets, Code.NONE


class _ListOffsets:
    """Ask for the offset at one end of partitions."""

    what = "reading offsets"

    def __init__(self, end: int) -> None:
        self._end = end

    def request(self, partitions: Iterable[TopicPartition], deadline: Deadline) -> OffsetRequest:
        """Return the request for partitions of one leader."""
        topics = [(t, [(p, self._end) for p in numbers]) for t, numbers in by_topic(partitions)]
        return OffsetRequest(-1, READ_COMMITTED, topics)

    def read(self, answer: Any) -> Iterable[tuple[TopicPartition, int, int]]:
        """Yield partition, error code and offset."""
        for topic, partitions in answer.topics:
            for partition, code, _, offset in partitions:
                yield TopicPartition(topic, partition), code, offset


class _DeleteRecords:
    """Ask to delete what is below an offset."""

    what = "deleting records"

    def __init__(self, before: Mapping[TopicPartition, int]) -> None:
        self._before = before

    def request(
        self, partitions: Iterable[TopicPartition], deadline: Deadline
    ) -> DeleteRecordsRequest:
        """Return the request for partitions of one leader."""
        topics = [
            (topic, [(number, self._before[TopicPartition(topic, number)]) for number in numbers])
            for topic, numbers in by_topic(partitions)
        ]
        return DeleteRecordsRequest(topics, int(deadline.left_ms()))

    def read(self, answer: Any) -> Iterable[tuple[TopicPartition, int, int]]:
        """Yield partition, error code and the new log start."""
        for topic, partitions, *_ in answer.topics:
            for partition, low_watermark, code, *_ in partitions:
                yield TopicPartition(topic, partition), code, low_watermark
