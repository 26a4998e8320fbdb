"""Group membership at request level: join, sync, heartbeat, leave.

aiokafka's coordinator is tied to its consumer and its callbacks; this is the classic protocol with
one protocol name, one background task and no callbacks. Members and tools see standard
``ConsumerProtocol`` metadata: topics, and our ``info`` as user data.

Eager: a new round hands out everything anew and nothing is given back first. Two members may
believe for a moment that a partition is theirs; writers fence each other, so only one commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from aiokafka.protocol.group import (
    JoinGroupRequest,
    MemberAssignment,
    ProtocolMetadata,
    SyncGroupRequest,
)

from riverrun.engine.errors import (
    ConfigError,
    FencedError,
    LogAuthorizationError,
    LogError,
    LogUnavailableError,
    RiverrunError,
)
from riverrun.engine.log import Assignment, Assignor, TopicPartition

from .client import GROUP_KIND, Backoff, Coordinator, Deadline, KafkaClient, NotAnsweredError
from .protocol import (
    COORDINATOR_PASSING,
    REFUSED,
    STALE_COORDINATOR,
    Code,
    Exact,
    HeartbeatRequest_v3,
    LeaveGroupRequest_v3,
    OffsetCommitRequest_v7,
    code_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

PROTOCOL_TYPE = "consumer"
PROTOCOL_NAME = "riverrun"
NO_GENERATION = -1
# Members learn of a new round by their next heartbeat, so this is part of how long it takes.
HEARTBEAT_MAX_MS = 500
# What joining may take beyond the time in which the others must have joined.
JOIN_GRACE_MS = 5_000
LEAVE_TIMEOUT_MS = 2_000
COMMIT_TIMEOUT_MS = 5_000


class _LostError(Exception):
    """The group does not know us (any more) under this member id or generation."""


class KafkaGroupMember:
    """Membership of a group; see ``riverrun.engine.log.GroupMember``.

    When another process joins with our instance id, we are out for good and
    ``next_assignment`` raises ``FencedError``.
    """

    def __init__(
        self,
        client: KafkaClient,
        group: str,
        topics: Sequence[str],
        info: Callable[[], bytes],
        assignor: Assignor,
        *,
        instance_id: str | None,
        session_timeout_ms: int,
    ) -> None:
        """Begin to join in the background."""
        self._client = client
        self._group = group
        self._topics = sorted(topics)
        self._info = info
        self._assignor = assignor
        self._instance_id = instance_id
        self._session_ms = session_timeout_ms
        self._heartbeat_ms = min(HEARTBEAT_MAX_MS, session_timeout_ms / 10)
        # A join waits for the others, and whatever shares its connection waits with it.
        self._lane = client.new_lane("group")
        self._coordinator = Coordinator(client, kind=GROUP_KIND, key=group, lane=self._lane)
        self._member_id = ""
        self._generation = NO_GENERATION
        self._rejoin = asyncio.Event()
        self._newest: Assignment | None = None
        self._failure: RiverrunError | None = None
        self._news = asyncio.Event()
        self._left = False
        self._task = client.spawn(self._be_member(), f"group {group}")

    @property
    def member_id(self) -> str:
        """Who we are in the group; empty before the first join."""
        return self._member_id

    async def next_assignment(self, timeout_ms: int) -> Assignment | None:
        """Return the newest assignment not returned yet; see ``GroupMember.next_assignment``.

        Raises:
            FencedError: Another member took over our instance id.
            LogAuthorizationError: Access to the group was refused.
            ConfigError: The broker does not accept the session timeout.
        """
        if self._newest is None and self._failure is None:
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._news.wait()
            except TimeoutError:
                return None
        self._news.clear()
        newest, self._newest = self._newest, None
        if newest is None and self._failure is not None:
            raise self._failure
        return newest

    def request_rebalance(self) -> None:
        """Ask for a new round, because this member's info has changed."""
        self._rejoin.set()

    # --- the loop ----------------------------------------------------------------------------

    async def _be_member(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self._rejoin.clear()
                await self._join()
                backoff.reset()
                await self._heartbeat_until_rejoin()
                continue
            except _LostError as error:
                log.info("group %r: membership lost: %s; joining again", self._group, error)
                self._forget_membership()
            except NotAnsweredError as error:
                log.warning("group %r: %s", self._group, error)
            except RiverrunError as error:
                self._fail(error)
                return
            except Exception as error:  # a defect, or the assignor's
                log.exception("group %r", self._group)
                self._fail(LogError(f"group {self._group!r}: {error!r}"))
                return
            await asyncio.sleep(backoff.next_ms() / 1000)

    def _publish(self, assignment: Assignment) -> None:
        self._newest = assignment
        self._news.set()

    def _forget_membership(self) -> None:
        if self._generation != NO_GENERATION:
            self._publish(Assignment(self._generation, frozenset()))
        self._member_id = ""
        self._generation = NO_GENERATION

    def _fail(self, error: RiverrunError) -> None:
        self._forget_membership()
        self._failure = error
        self._news.set()

    async def _join(self) -> None:
        """One round: 1. join, 2. as the leader share out, 3. sync, 4. publish.

        Raises:
            NotAnsweredError: No answer; to be tried again.
            LogError: It cannot work.
        """
        deadline = Deadline(self._session_ms + JOIN_GRACE_MS)
        joined = await self._send_join(deadline)
        shares: list[tuple[str, bytes]] = []
        if joined.leader_id == joined.member_id:
            shares = self._share_out(joined.members)
        request = SyncGroupRequest(
            self._group,
            joined.generation_id,
            joined.member_id,
            self._instance_id,  # type: ignore[arg-type]
            shares,
        )
        answer = await self._coordinator.send(request, deadline)
        code = answer.error_code
        if code == Code.REBALANCE_IN_PROGRESS:
            self._rejoin.set()
            return
        self._check(code)
        self._generation = joined.generation_id
        self._publish(Assignment(joined.generation_id, _read_assignment(answer.member_assignment)))

    async def _send_join(self, deadline: Deadline) -> Any:
        metadata = ProtocolMetadata(0, self._topics, self._info()).encode()
        backoff = Backoff()
        while True:
            request = JoinGroupRequest(
                self._group,
                self._session_ms,
                self._session_ms,
                self._member_id,
                self._instance_id,  # type: ignore[arg-type]
                PROTOCOL_TYPE,
                [(PROTOCOL_NAME, metadata)],
            )
            answer = await self._coordinator.send(request, deadline)
            code = answer.error_code
            if code == Code.MEMBER_ID_REQUIRED:
                self._member_id = answer.member_id
                continue
            if code in COORDINATOR_PASSING and not deadline.passed():
                if code in STALE_COORDINATOR:
                    self._coordinator.moved()
                await backoff.pause(deadline)
                continue
            self._check(code)
            self._member_id = answer.member_id
            return answer

    def _share_out(
        self, members: Sequence[tuple[str, str | None, bytes]]
    ) -> list[tuple[str, bytes]]:
        infos = {
            member_id: bytes(cast(Any, ProtocolMetadata.decode(metadata)).user_data or b"")
            for member_id, _, metadata in members
        }
        shares = self._assignor(infos)
        return [(member_id, _encode_assignment(shares.get(member_id, ()))) for member_id in infos]

    async def _heartbeat_until_rejoin(self) -> None:
        """Return when a new round is due.

        A coordinator that does not answer is asked again until it does: if that takes too long it
        has given our partitions away, and says so then.
        """
        while not self._rejoin.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_ms / 1000):
                    await self._rejoin.wait()
            request = HeartbeatRequest_v3(
                self._group, self._generation, self._member_id, self._instance_id
            )
            try:
                answer = await self._coordinator.send(Exact(request), Deadline(self._session_ms))
                if answer.error_code == Code.REBALANCE_IN_PROGRESS:
                    return
                self._check(answer.error_code)
            except NotAnsweredError as error:
                # Nor is a coordinator that moves or loads a reason to make everybody join anew.
                log.warning("group %r: heartbeat: %s", self._group, error)

    def _check(self, code: int) -> None:
        """Raise what an error code means, if it means something."""
        if code == Code.NONE:
            return
        if code in STALE_COORDINATOR:
            self._coordinator.moved()
        if code in COORDINATOR_PASSING:
            raise NotAnsweredError(code_name(code), sent=True)
        if code in {Code.UNKNOWN_MEMBER_ID, Code.ILLEGAL_GENERATION}:
            raise _LostError(code_name(code))
        if code == Code.FENCED_INSTANCE_ID:
            raise FencedError(
                f"group {self._group!r}: another process joined as {self._instance_id!r}; it has "
                "our place now"
            )
        if code in REFUSED:
            raise LogAuthorizationError(f"group {self._group!r}: {code_name(code)}")
        if code == Code.INVALID_SESSION_TIMEOUT:
            raise ConfigError(
                f"group {self._group!r}: the broker does not accept a session timeout of "
                f"{self._session_ms} ms (group.min.session.timeout.ms is 6 s by default)"
            )
        raise LogError(f"group {self._group!r}: {code_name(code)}")

    # --- others ------------------------------------------------------------------------------

    async def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group how far we are; see ``GroupMember.commit_offsets``.

        Without a valid generation nothing is told: the next owner will.
        """
        generation, member_id = self._generation, self._member_id
        if generation == NO_GENERATION or not member_id or not offsets:
            return
        topics: dict[str, list[tuple[int, int, int, str]]] = {}
        for (topic, partition), offset in offsets.items():
            topics.setdefault(topic, []).append((partition, offset, -1, ""))
        request = OffsetCommitRequest_v7(
            self._group, generation, member_id, self._instance_id, list(topics.items())
        )
        deadline, backoff = Deadline(COMMIT_TIMEOUT_MS), Backoff()
        while True:
            try:
                answer = await self._coordinator.send(Exact(request), deadline)
            except NotAnsweredError as error:
                reason = str(error)
            else:
                codes = {code for _, entries in answer.topics for _, code in entries}
                codes.discard(Code.NONE)
                if codes & STALE_COORDINATOR:
                    self._coordinator.moved()
                if not codes & COORDINATOR_PASSING:
                    if codes:
                        names = ", ".join(code_name(code) for code in sorted(codes))
                        log.info("group %r: offsets not taken: %s", self._group, names)
                    return
                reason = ", ".join(code_name(code) for code in sorted(codes))
            if deadline.passed():
                raise LogUnavailableError(
                    f"group {self._group!r}: offsets not told within {COMMIT_TIMEOUT_MS} ms: "
                    f"{reason}"
                )
            await backoff.pause(deadline)

    async def leave(self) -> None:
        """Leave at once, so that others take over. Never raises; the session's end does it too."""
        if self._left:
            return
        self._left = True
        self._task.cancel()
        await asyncio.wait([self._task], timeout=1.0)
        if self._member_id and self._failure is None:
            members = [(self._member_id, self._instance_id)]
            request = Exact(LeaveGroupRequest_v3(self._group, members))
            # A join may be under way on our connection and would be answered first.
            await self._client.drop_lane(self._lane)
            try:
                await self._coordinator.send(request, Deadline(LEAVE_TIMEOUT_MS))
            except (NotAnsweredError, LogError) as error:
                log.info("group %r: leaving was not confirmed: %s", self._group, error)
        self._generation = NO_GENERATION
        await self._client.drop_lane(self._lane)


def _encode_assignment(partitions: Sequence[TopicPartition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for topic, partition in partitions:
        topics.setdefault(topic, []).append(partition)
    return MemberAssignment(0, sorted(topics.items()), b"").encode()


def _read_assignment(encoded: bytes) -> frozenset[TopicPartition]:
    if not encoded:
        return frozenset()
    assignment = cast(Any, MemberAssignment.decode(encoded))
    return frozenset(
        TopicPartition(topic, partition)
        for topic, partitions in assignment.assignment
        for partition in partitions
    )
