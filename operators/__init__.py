"""The verbs: the fluent API, and one file per operator."""

from .aggregates import Aggregate as Aggregate
from .aggregates import Count as Count
from .aggregates import First as First
from .aggregates import Last as Last
from .aggregates import Max as Max
from .aggregates import Mean as Mean
from .aggregates import Min as Min
from .aggregates import Sum as Sum
from .durations import duration_ms as duration_ms
from .keyed import KeyedStream as KeyedStream
from .keyed import WindowedStream as WindowedStream
from .keyed import WindowResults as WindowResults
from .map_async import Retry as Retry
from .process import ProcessContext as ProcessContext
from .process import ProcessFunction as ProcessFunction
from .process_state import ListState as ListState
from .process_state import MapState as MapState
from .process_state import ValueState as ValueState
from .stream import Stream as Stream
from .topic import Topic as Topic
from .topic import TypedCodec as TypedCodec
from .topic import Watermark as Watermark
from .topology import Topology as Topology
from .windows import Hopping as Hopping
from .windows import Session as Session
from .windows import Tumbling as Tumbling
