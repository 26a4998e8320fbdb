"""State: keyed stores, deltas, snapshots and their storage. Knows nothing of Kafka or tasks."""

from .delta import Delta as Delta
from .directory import HeldTask as HeldTask
from .directory import StateDirectory as StateDirectory
from .encoding import decode_delta as decode_delta
from .encoding import encode_delta as encode_delta
from .errors import BlobStoreError as BlobStoreError
from .errors import SnapshotCorruptError as SnapshotCorruptError
from .errors import SnapshotMissingError as SnapshotMissingError
from .errors import StateDirectoryFullError as StateDirectoryFullError
from .errors import StateDirectoryInUseError as StateDirectoryInUseError
from .errors import StateError as StateError
from .errors import StoreCorruptError as StoreCorruptError
from .memory import MemoryStore as MemoryStore
from .overlay import OverlayLimits as OverlayLimits
from .overlay import OverlayStore as OverlayStore
from .rocksdb import RocksDbStore as RocksDbStore
from .rocksdb import StoreOptions as StoreOptions
from .store import StateReader as StateReader
from .store import StateStore as StateStore
