"""Kafka behind the log port: reading, transactional writing, groups and topics.

Delivery: exactly once with transactional writers; each batch at least once otherwise.
Position: kept by the engine; the group's offsets are told for lag tools only.
Rebalance: eager; fencing by transactional id protects what a lost member still does.
Needs: Kafka 2.5 or later.
"""

from __future__ import annotations

from .log import KafkaLog
from .security import Secret, Security

__all__ = ["KafkaLog", "Secret", "Security"]
