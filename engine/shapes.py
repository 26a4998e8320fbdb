"""Shapes: whether a record's JSON document is nothing but its fields by their names.

Only such records may be written from columns, or travel as columns: what a class does beyond that
(other names, tags, fields left out or added) is known to its instances alone.
"""

from __future__ import annotations

import typing
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, cast, get_args, get_type_hints

import msgspec

from .models import is_model


def is_plain(record_type: type | None) -> bool:
    """Return whether documents of a class are its fields by name; nested classes included."""
    return record_type is None or _is_plain(record_type)


@lru_cache(maxsize=256)
def _is_plain(hint: Any) -> bool:
    if not isinstance(hint, type) or get_args(hint):
        return all(_is_plain(arg) for arg in get_args(hint) if _is_hashable(arg))
    found = cast("type[Any]", hint)
    if issubclass(found, msgspec.Struct):
        config = found.__struct_config__
        if config.tag is not None or config.omit_defaults or config.array_like:
            return False
        if found.__struct_encode_fields__ != found.__struct_fields__:
            return False
    elif is_model(found):
        return _is_plain_model(found)
    elif typing.is_typeddict(found):
        # Where annotations are text, the class itself does not know which fields are optional.
        hints = get_type_hints(found, include_extras=True).values()
        if found.__optional_keys__ or any(
            typing.get_origin(h) is typing.NotRequired for h in hints
        ):
            return False
    elif not hasattr(found, "__dataclass_fields__"):
        return True
    return all(_is_plain(each) for each in get_type_hints(found).values() if _is_hashable(each))


def _is_plain_model(model: Any) -> bool:
    if model.model_config.get("extra") == "allow" or model.model_computed_fields:
        return False
    if model.__pydantic_root_model__ or model.model_config.get("json_encoders"):
        return False
    written = model.__pydantic_decorators__
    if written.field_serializers or written.model_serializers:
        return False
    for field in model.model_fields.values():
        renamed = field.alias or field.serialization_alias or field.validation_alias
        rewritten = any("Serializer" in type(each).__name__ for each in field.metadata)
        # Pydantic writes bytes as text.
        if renamed or rewritten or field.exclude or field.annotation is bytes:
            return False
        if _is_hashable(field.annotation) and not _is_plain(field.annotation):
            return False
    return True


def _is_hashable(hint: Any) -> bool:
    return isinstance(hint, Hashable)
