"""The connections of one process to a Kafka cluster, and what it knows of the cluster.

aiokafka's connection and protocol classes are used; its client, consumer and producer are not.
Reasons against ``AIOKafkaClient``: one lock serialises all connecting, so a dead broker delays the
healthy ones; its metadata requests create topics; once all known brokers are gone it never asks
the bootstrap addresses again.

A broker works on one request of a connection at a time, so whatever may wait (a long poll, a
join, a replicated write) has a *lane*: a connection of its own per broker.
"""

# aiokafka's connection module has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import aiokafka.errors as kafka_errors
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest

from riverrun.engine.errors import LogAuthorizationError, LogUnavailableError

from .answers import AnswerProtocol
from .protocol import REFUSED, Code, Preparable, code_name
from .security import Security

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from riverrun.engine.log import TopicPartition

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_MS = 5_000
# A connection that has not answered for so long is replaced; callers' own deadlines are shorter
# and only give up on their answer, since others use the connection too.
ANSWER_TIMEOUT_MS = 20_000
# Below the broker's own connections.max.idle.ms (10 min), so that it is we who close.
IDLE_MS = 540_000
BACKOFF_FIRST_MS = 20
BACKOFF_MAX_MS = 1_000

ADMIN_LANE = "admin"

GROUP_KIND = 0
TRANSACTION_KIND = 1

_AUTHENTICATION_ERRORS = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.AuthenticationMethodNotSupported,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)


class NotAnsweredError(Exception):
    """A request got no answer.

    Attributes:
        sent: Whether it may have reached the broker: then it may have been carried out.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Deadline:
    """A point in time until which somebody is ready to wait."""

    __slots__ = ("_at_s", "timeout_ms")

    def __init__(self, timeout_ms: float) -> None:
        self.timeout_ms = timeout_ms
        self._at_s = asyncio.get_running_loop().time() + timeout_ms / 1000

    def left_ms(self) -> float:
        """Return the milliseconds left, 0 if none."""
        return max(0.0, (self._at_s - asyncio.get_running_loop().time()) * 1000)

    def passed(self) -> bool:
        """Return whether no time is left."""
        return self.left_ms() <= 0.0


class Backoff:
    """Growing pauses between attempts."""

    __slots__ = ("_first_ms", "_max_ms", "_next_ms", "attempts")

    _chance: ClassVar = random.Random()

    def __init__(
        self, *, first_ms: float = BACKOFF_FIRST_MS, max_ms: float = BACKOFF_MAX_MS
    ) -> None:
        self._first_ms = first_ms
        self._next_ms = first_ms
        self._max_ms = max_ms
        self.attempts = 0

    def next_ms(self) -> float:
        """Return how long to pause before the next attempt; a bit random, against herds."""
        self.attempts += 1
        pause_ms = self._next_ms
        self._next_ms = min(self._max_ms, pause_ms * 2)
        return pause_ms * self._chance.uniform(0.8, 1.2)

    def reset(self) -> None:
        """Start anew, after a success."""
        self._next_ms = self._first_ms
        self.attempts = 0

    async def pause(self, deadline: Deadline) -> None:
        """Wait before the next attempt, not longer than until ``deadline``."""
        await asyncio.sleep(min(self.next_ms(), deadline.left_ms()) / 1000)


class TopicMetadata(NamedTuple):
    """What the cluster says of a topic.

    Attributes:
        error: ``Code.NONE`` or why there is nothing to say.
        leaders: Node that leads each partition, -1 for none at the moment.
    """

    error: int
    leaders: dict[int, int]


class KafkaClient:
    """Connections, metadata and coordinator lookup. Belongs to one event loop."""

    def __init__(
        self, bootstrap: str, security: Security | None = None, *, client_id: str = "riverrun"
    ) -> None:
        """Prepare, without connecting: ``bootstrap`` is ``host:port``, or several with commas."""
        self.bootstrap = bootstrap
        self._security = security or Security()
        self._client_id = client_id
        self._brokers: dict[int, tuple[str, int]] = {}
        self._topics: dict[str, TopicMetadata] = {}
        # {(node, lane): connection}; nodes below 0 are bootstrap addresses
        self._connections: dict[tuple[int, str], AIOKafkaConnection] = {}
        self._locks: dict[tuple[int, str], asyncio.Lock] = {}
        self._bootstrap_nodes: dict[int, tuple[str, int]] = {}
        self._lanes_given: dict[str, int] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._chance = random.Random()
        self._closed = False

    async def start(self, timeout_ms: int) -> None:
        """Connect to the cluster and learn its brokers.

        Raises:
            LogUnavailableError: Nobody answers within the time.
            LogAuthorizationError: The credentials were refused, or the certificate is not trusted.
        """
        hosts = collect_hosts(self.bootstrap, randomize=False)
        self._bootstrap_nodes = {-1 - i: (host, port) for i, (host, port, _) in enumerate(hosts)}
        deadline, backoff = Deadline(timeout_ms), Backoff()
        reason = ""
        while True:
            try:
                await self.refresh((), deadline)
                return
            except NotAnsweredError as error:
                # Of the last attempt only that there was no time for it, as a rule.
                if not reason or not deadline.passed():
                    reason = str(error)
            if deadline.passed():
                raise LogUnavailableError(
                    f"no Kafka broker answers at {self.bootstrap} within {timeout_ms} ms "
                    f"({reason}). Is the address right, the broker running, and "
                    f"{self._security.protocol} what it speaks there (--kafka-security-protocol)?"
                )
            await backoff.pause(deadline)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` in the background, at the longest until ``close``."""
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def close(self) -> None:
        """End what runs in the background and close all connections. Never raises."""
        self._closed = True
        background = list(self._background)
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background, timeout=1.0)
        closing = [_hang_up(connection) for connection in self._connections.values()]
        self._connections.clear()
        waiting = [future for future in closing if future is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=1.0)

    # --- requests ----------------------------------------------------------------------------

    async def send(self, node: int, request: Preparable, *, lane: str, timeout_ms: float) -> Any:
        """Send ``request`` to ``node`` and return the decoded response.

        Raises:
            NotAnsweredError: It could not be sent or no answer came within the time.
            LogAuthorizationError: The credentials were refused.
        """
        if timeout_ms <= 0:
            raise NotAnsweredError("no time is left", sent=False)
        deadline = Deadline(timeout_ms)
        connection = await self._connection(node, lane, deadline)
        where = f"{connection.host}:{connection.port}"
        try:
            answer = connection.send(request)
        except kafka_errors.KafkaConnectionError as error:
            raise NotAnsweredError(str(error), sent=False) from error
        except (kafka_errors.IncompatibleBrokerVersion, NotImplementedError) as error:
            raise LogUnavailableError(f"broker {where}: {error}") from error
        ours = asyncio.timeout(deadline.left_ms() / 1000)
        try:
            async with ours:
                return await answer
        except TimeoutError as error:
            if not ours.expired():
                # The connection's own limit: it hangs, and so would whoever comes next.
                _hang_up(connection)
            raise NotAnsweredError(f"broker {where} did not answer in time", sent=True) from error
        except (kafka_errors.KafkaError, OSError) as error:
            raise NotAnsweredError(f"broker {where}: {error}", sent=True) from error

    async def _connection(self, node: int, lane: str, deadline: Deadline) -> AIOKafkaConnection:
        key = (node, lane)
        found = self._connections.get(key)
        if found is not None and found.connected():
            return found
        address = self._brokers.get(node) or self._bootstrap_nodes.get(node)
        if self._closed or address is None:
            raise NotAnsweredError(f"broker {node} is not known any more", sent=False)
        timeout_s = min(deadline.left_ms(), CONNECT_TIMEOUT_MS) / 1000
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(timeout_s), lock:
                found = self._connections.get(key)
                if found is not None and found.connected():
                    return found
                connection = await create_conn(
                    *address,
                    client_id=self._client_id,
                    request_timeout_ms=ANSWER_TIMEOUT_MS,
                    max_idle_ms=IDLE_MS,
                    **self._security.connection_arguments(),
                )
                if self._closed:
                    _hang_up(connection)
                    raise NotAnsweredError("the client is closed", sent=False)
                AnswerProtocol.install(connection)
                self._connections[key] = connection
                return connection
        except _AUTHENTICATION_ERRORS as error:
            raise LogAuthorizationError(
                f"Kafka at {address[0]}:{address[1]} refused our credentials: {error}"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise LogAuthorizationError(
                f"the certificate of Kafka at {address[0]}:{address[1]} is not trusted: "
                f"{error.verify_message.rstrip('.')}. Is the address one that it is for, and is "
                "who signed it among those to trust (--kafka-ca-file)?"
            ) from error
        except (OSError, kafka_errors.KafkaError) as error:  # TimeoutError is an OSError
            reason = str(error) or "no answer in time"
            raise NotAnsweredError(
                f"cannot connect to {address[0]}:{address[1]}: {reason}", sent=False
            ) from error

    def new_lane(self, kind: str, *, limit: int | None = None) -> str:
        """Return the name of the next lane of a kind, going round after ``limit`` of them."""
        given = self._lanes_given.get(kind, 0)
        self._lanes_given[kind] = given + 1
        return f"{kind}-{given if limit is None else given % limit}"

    async def drop_lane(self, lane: str) -> None:
        """Close the connections of a lane that nobody else uses."""
        for key in [key for key in self._connections if key[1] == lane]:
            _hang_up(self._connections.pop(key))
        for key in [key for key in self._locks if key[1] == lane]:
            if not self._locks[key].locked():
                del self._locks[key]

    # --- metadata ----------------------------------------------------------------------------

    def leader(self, partition: TopicPartition) -> int | None:
        """Return the node that leads ``partition`` as last heard, None if not known."""
        topic = self._topics.get(partition.topic)
        node = None if topic is None else topic.leaders.get(partition.partition)
        return None if node is None or node < 0 else node

    def topic(self, name: str) -> TopicMetadata | None:
        """Return what was last heard of a topic, None if it was never asked for."""
        return self._topics.get(name)

    def forget_leader(self, partition: TopicPartition) -> None:
        """Distrust what is known of ``partition`` until the next refresh."""
        topic = self._topics.get(partition.topic)
        if topic is not None:
            topic.leaders.pop(partition.partition, None)

    async def refresh(self, topics: Iterable[str], deadline: Deadline) -> None:
        """Ask the cluster for its brokers and the given topics. Never creates a topic.

        Raises:
            NotAnsweredError: No broker answered.
        """
        request = MetadataRequest(sorted(set(topics)), allow_auto_topic_creation=False)
        response = await self.send_any(request, deadline)
        if response.brokers:
            self._brokers = {b[0]: (b[1], b[2]) for b in response.brokers}
        for error, name, _, partitions in (entry[:4] for entry in response.topics):
            leaders = {partition[1]: partition[2] for partition in partitions}
            self._topics[name] = TopicMetadata(error, leaders)

    async def send_any(self, request: Preparable, deadline: Deadline) -> Any:
        """Send ``request`` to whichever broker answers.

        Raises:
            NotAnsweredError: None did.
            LogAuthorizationError: None did, and one refused our credentials or is not trusted.
        """
        connected = [n for (n, _), c in self._connections.items() if c.connected() and n >= 0]
        known = [node for node in self._brokers if node not in connected]
        self._chance.shuffle(connected)
        self._chance.shuffle(known)
        failure: Exception = NotAnsweredError("no broker is known", sent=False)
        for node in dict.fromkeys([*connected, *known, *self._bootstrap_nodes]):
            # A share of the time for each, so that a silent broker leaves some for the others.
            share_ms = max(min(deadline.left_ms(), 500.0), deadline.left_ms() / 2)
            try:
                return await self.send(node, request, lane=ADMIN_LANE, timeout_ms=share_ms)
            except LogAuthorizationError as error:
                failure = error
            except NotAnsweredError as error:
                if not isinstance(failure, LogAuthorizationError):
                    failure = error
        raise failure

    async def coordinator(self, kind: int, key: str, deadline: Deadline) -> int:
        """Return the node that coordinates a group or transactional id.

        Raises:
            NotAnsweredError: It could not be found within the time.
            LogAuthorizationError: Access was refused.
        """
        backoff = Backoff()
        while True:
            try:
                found = await self.send_any(FindCoordinatorRequest(key, kind), deadline)
            except NotAnsweredError as error:
                reason = str(error)
            else:
                if found.error_code == Code.NONE:
                    node: int = found.coordinator_id
                    self._brokers.setdefault(node, (found.host, found.port))
                    return node
                if found.error_code in REFUSED:
                    raise LogAuthorizationError(f"{code_name(found.error_code)} for {key!r}")
                reason = code_name(found.error_code)
            if deadline.passed():
                raise NotAnsweredError(f"no coordinator for {key!r}: {reason}", sent=False)
            await backoff.pause(deadline)


def _hang_up(connection: Any) -> asyncio.Future[None] | None:
    """Close a connection; whoever waits for an answer on it gets an error at once."""
    closing: asyncio.Future[None] | None = connection.close()
    return closing


class Coordinator:
    """Where the coordinator of one group or transactional id is; asked again when it moved."""

    def __init__(self, client: KafkaClient, *, kind: int, key: str, lane: str) -> None:
        self._client = client
        self._kind = kind
        self._key = key
        self._lane = lane
        self._node: int | None = None

    async def send(self, request: Preparable, deadline: Deadline) -> Any:
        """Send ``request`` to the coordinator.

        Raises:
            NotAnsweredError: It could not be sent or no answer came within the time.
        """
        if self._node is None:
            self._node = await self._client.coordinator(self._kind, self._key, deadline)
        try:
            return await self._client.send(
                self._node, request, lane=self._lane, timeout_ms=deadline.left_ms()
            )
        except NotAnsweredError:
            self._node = None
            raise

    def moved(self) -> None:
        """Look it up again before the next request."""
        self._node = None
