"""Codecs: how the values of a topic are written."""

from .json import Json as Json
from .scalar import Bytes as Bytes
from .scalar import Integer as Integer
from .scalar import Text as Text
