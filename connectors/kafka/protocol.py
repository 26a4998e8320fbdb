"""Kafka's wire protocol, as far as aiokafka 0.14 does not have it, and the error codes by name.

aiokafka's request classes choose a version by themselves. Where the version matters (fetch
sessions, ``require_stable``, instance ids), ``Exact`` sends one version or refuses.
"""

# aiokafka declares API_KEY and API_VERSION of a response as properties and overrides them by plain
# numbers, everywhere; so do we.
# pyright: reportIncompatibleMethodOverride=false, reportAssignmentType=false

from __future__ import annotations

from enum import IntEnum
from typing import Any, Protocol, cast

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)


class Code(IntEnum):
    """Error codes that we tell apart; aiokafka lacks several of them."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    BROKER_NOT_AVAILABLE = 8
    REPLICA_NOT_AVAILABLE = 9
    MESSAGE_TOO_LARGE = 10
    NETWORK_EXCEPTION = 13
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    RECORD_LIST_TOO_LARGE = 18
    NOT_ENOUGH_REPLICAS = 19
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    CLUSTER_AUTHORIZATION_FAILED = 31
    TOPIC_ALREADY_EXISTS = 36
    NOT_CONTROLLER = 41
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    DUPLICATE_SEQUENCE_NUMBER = 46
    INVALID_PRODUCER_EPOCH = 47
    INVALID_TXN_STATE = 48
    INVALID_PRODUCER_ID_MAPPING = 49
    CONCURRENT_TRANSACTIONS = 51
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    KAFKA_STORAGE_ERROR = 56
    UNKNOWN_PRODUCER_ID = 59
    FETCH_SESSION_ID_NOT_FOUND = 70
    INVALID_FETCH_SESSION_EPOCH = 71
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    OFFSET_NOT_AVAILABLE = 78
    MEMBER_ID_REQUIRED = 79
    FENCED_INSTANCE_ID = 82
    INVALID_RECORD = 87
    UNSTABLE_OFFSET_COMMIT = 88
    THROTTLING_QUOTA_EXCEEDED = 89
    PRODUCER_FENCED = 90
    TRANSACTION_ABORTABLE = 120


def code_name(code: int) -> str:
    """Return the name of an error code, as in messages."""
    try:
        return Code(code).name
    except ValueError:
        return f"error code {code}"


STALE_LEADER = frozenset(
    {
        Code.UNKNOWN_TOPIC_OR_PARTITION,
        Code.LEADER_NOT_AVAILABLE,
        Code.NOT_LEADER_OR_FOLLOWER,
        Code.BROKER_NOT_AVAILABLE,
        Code.REPLICA_NOT_AVAILABLE,
        Code.KAFKA_STORAGE_ERROR,
        Code.FENCED_LEADER_EPOCH,
        Code.UNKNOWN_LEADER_EPOCH,
    }
)
"""Ask again elsewhere: our idea of who leads the partition is old."""

PASSING = STALE_LEADER | {
    Code.REQUEST_TIMED_OUT,
    Code.NETWORK_EXCEPTION,
    Code.OFFSET_NOT_AVAILABLE,
    Code.NOT_ENOUGH_REPLICAS,
    Code.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    Code.THROTTLING_QUOTA_EXCEEDED,
}
"""Errors of a partition that pass by themselves."""

STALE_COORDINATOR = frozenset({Code.COORDINATOR_NOT_AVAILABLE, Code.NOT_COORDINATOR})
COORDINATOR_PASSING = STALE_COORDINATOR | {Code.COORDINATOR_LOAD_IN_PROGRESS}
"""Errors of a coordinator that pass by themselves."""

REFUSED = frozenset(
    {
        Code.TOPIC_AUTHORIZATION_FAILED,
        Code.GROUP_AUTHORIZATION_FAILED,
        Code.CLUSTER_AUTHORIZATION_FAILED,
        Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""Access was refused."""

FENCED = frozenset(
    {Code.INVALID_PRODUCER_EPOCH, Code.PRODUCER_FENCED, Code.INVALID_PRODUCER_ID_MAPPING}
)
"""Another producer owns the transactional id, or the log aborted our transaction for its age."""


class Preparable(Protocol):
    """What a connection can send: aiokafka's ``Request`` or our ``Exact``."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> RequestStruct:
        """Return what goes over the wire, given the versions that the broker speaks."""
        ...


class Exact:
    """A request in one version, for what must not be negotiated down."""

    def __init__(self, request: RequestStruct) -> None:
        self._request = request

    def prepare(self, versions: dict[int, tuple[int, int]]) -> RequestStruct:
        """Return the request.

        Raises:
            IncompatibleBrokerVersion: The broker does not speak this version.
        """
        request = self._request
        lowest, highest = versions.get(request.API_KEY, (0, -1))
        if not lowest <= request.API_VERSION <= highest:
            raise IncompatibleBrokerVersion(
                f"riverrun needs Kafka 2.5 or later: the broker speaks versions {lowest} to "
                f"{highest} of request {request.API_KEY}, we need {request.API_VERSION}"
            )
        return request


_TEXT = String("utf-8")
_COMPACT_TEXT = CompactString("utf-8")


class CreateTopicsResponse_v4(Response):
    """Answer to ``CreateTopicsRequest_v4``."""

    API_KEY = 19
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topic_errors",
            Array(("topic", _TEXT), ("error_code", Int16), ("error_message", _TEXT)),
        ),
    )


class CreateTopicsRequest_v4(RequestStruct):
    """Version 4 is the first to take -1 for "the broker's own replication factor"."""

    API_KEY = 19
    API_VERSION = 4
    RESPONSE_TYPE = CreateTopicsResponse_v4
    SCHEMA = Schema(
        (
            "topics",
            Array(
                ("topic", _TEXT),
                ("num_partitions", Int32),
                ("replication_factor", Int16),
                ("assignments", Array(("partition", Int32), ("replicas", Array(Int32)))),
                ("configs", Array(("name", _TEXT), ("value", _TEXT))),
            ),
        ),
        ("timeout", Int32),
        ("validate_only", Boolean),
    )


class OffsetFetchResponse_v7(Response):
    """Answer to ``OffsetFetchRequest_v7``."""

    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", _COMPACT_TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _COMPACT_TEXT),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class OffsetFetchRequest_v7(RequestStruct):
    """Version 7 has ``require_stable``: offsets of a pending transaction are not read past."""

    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = OffsetFetchResponse_v7
    SCHEMA = Schema(
        ("group", _COMPACT_TEXT),
        (
            "topics",
            CompactArray(
                ("topic", _COMPACT_TEXT),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class HeartbeatResponse_v3(Response):
    """Answer to ``HeartbeatRequest_v3``."""

    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class HeartbeatRequest_v3(RequestStruct):
    """Version 3 carries the instance id, so a replaced member learns that it was replaced."""

    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = HeartbeatResponse_v3
    SCHEMA = Schema(
        ("group", _TEXT), ("generation", Int32), ("member_id", _TEXT), ("instance_id", _TEXT)
    )


class LeaveGroupResponse_v3(Response):
    """Answer to ``LeaveGroupRequest_v3``."""

    API_KEY = 13
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "members",
            Array(("member_id", _TEXT), ("instance_id", _TEXT), ("error_code", Int16)),
        ),
    )


class LeaveGroupRequest_v3(RequestStruct):
    """Version 3 names members by instance id as well, so static members can leave."""

    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = LeaveGroupResponse_v3
    SCHEMA = Schema(
        ("group", _TEXT), ("members", Array(("member_id", _TEXT), ("instance_id", _TEXT)))
    )


class OffsetCommitResponse_v7(Response):
    """Answer to ``OffsetCommitRequest_v7``."""

    API_KEY = 8
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", _TEXT),
                ("partitions", Array(("partition", Int32), ("error_code", Int16))),
            ),
        ),
    )


class OffsetCommitRequest_v7(RequestStruct):
    """Version 7 carries the instance id."""

    API_KEY = 8
    API_VERSION = 7
    RESPONSE_TYPE = OffsetCommitResponse_v7
    SCHEMA = Schema(
        ("group", _TEXT),
        ("generation", Int32),
        ("member_id", _TEXT),
        ("instance_id", _TEXT),
        (
            "topics",
            Array(
                ("topic", _TEXT),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _TEXT),
                    ),
                ),
            ),
        ),
    )


def by_topic(partitions: Any) -> list[tuple[str, list[int]]]:
    """Group ``(topic, partition)`` pairs the way requests want them."""
    grouped: dict[str, list[int]] = {}
    for topic, partition in partitions:
        grouped.setdefault(cast(str, topic), []).append(cast(int, partition))
    return list(grouped.items())
