"""State: keyed stores, deltas, snapshots and their storage. Knows nothing of Kafka or asyncio tasks."""

from .delta import Delta as Delta
from .errors import StateError as StateError
from .store import StateReader as StateReader
from .store import StateStore as StateStore
