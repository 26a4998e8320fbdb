"""Which record types the kernel may read documents of, and how it is told about them.

Only those whose rows are nothing but their fields: what a class checks or computes beyond that,
msgspec and the class itself know.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union, get_args, get_origin

import msgspec

from riverrun.engine.shapes import is_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from riverrun.engine.schema import Schema

FIELDS_MAX = 64
"""Most fields of one object."""

DEPTH_MAX = 16
"""How deep declared types may be nested; the kernel takes twice that."""

Kind: TypeAlias = tuple[str, bool, Any]
"""Shape, whether it may be null, and the kind of the items or the fields of the object."""

Field: TypeAlias = tuple[str, Kind, bool]
"""Name in documents, kind, and whether it is null in a document without it."""

_SHAPES: dict[Any, str] = {
    int: "int",
    float: "float",
    str: "text",
    bytes: "bytes",
    bool: "bool",
    dt.datetime: "time",
    dt.date: "date",
}


def fields_of(schema: Schema) -> list[Field] | None:
    """Return what the kernel is told of a schema, None if it may not read its documents.

    There is one for each column, in order.
    """
    if schema.record_type is None or None in schema.fields.values():
        return None
    names = _names_in_documents(schema)
    if names is None:
        return None
    fields = _record_fields(schema.record_type, DEPTH_MAX, in_mapping=False)
    if fields is None or [name for name, _, _ in fields] != list(schema.fields):
        return None
    return [(name, kind, missing) for name, (_, kind, missing) in zip(names, fields, strict=True)]


def _names_in_documents(schema: Schema) -> Sequence[str] | None:
    if is_plain(schema.record_type):
        return list(schema.fields)
    struct = schema.record_type
    # Of nested ones msgspec makes rows, by the names in documents, which columns do not have.
    if not isinstance(struct, msgspec.StructMeta) or any(
        dtype.is_nested() for dtype in schema.columns.values()
    ):
        return None
    config = struct.__struct_config__
    if config.tag is not None or config.omit_defaults or config.array_like:
        return None
    return struct.__struct_encode_fields__


def _record_fields(record_type: Any, depth: int, *, in_mapping: bool) -> list[Field] | None:
    defaults = _defaults(record_type)
    # Rows of mappings are the plain data that is in columns, all the way down.
    if defaults is None or (in_mapping and not typing.is_typeddict(record_type)):
        return None
    hints = typing.get_type_hints(record_type, include_extras=True)
    fields: list[Field] = []
    for name, default in defaults.items():
        if "\0" in name:  # where Arrow's names end
            return None
        kind = _kind(hints[name], depth - 1, in_mapping=typing.is_typeddict(record_type))
        if kind is None:
            return None
        _, is_nullable, _ = kind
        fields.append((name, kind, default is None and is_nullable))
    return fields if 0 < len(fields) <= FIELDS_MAX else None


def _kind(hint: Any, depth: int, *, in_mapping: bool) -> Kind | None:
    if depth <= 0:
        return None
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if any(isinstance(each, msgspec.Meta) for each in args[1:]):
            return None
        return _kind(args[0], depth, in_mapping=in_mapping)
    if origin in (Union, types.UnionType):
        (first, *others) = [arg for arg in args if arg is not type(None)]
        inner = None if others else _kind(first, depth, in_mapping=in_mapping)
        return None if inner is None else (inner[0], True, inner[2])
    if origin is list:
        items = _kind(args[0], depth - 1, in_mapping=in_mapping)
        return None if items is None else ("list", False, items)
    if hint in _SHAPES:
        return (_SHAPES[hint], False, None)
    if not isinstance(hint, type):
        return None
    fields = _record_fields(hint, depth, in_mapping=in_mapping)
    return None if fields is None else ("object", False, fields)


def _defaults(record_type: Any) -> Mapping[str, Any] | None:
    """Return the default by field, NODEFAULT of one that has none; None if a class does more."""
    if typing.is_typeddict(record_type):
        hints = typing.get_type_hints(record_type)
        return dict.fromkeys(hints, msgspec.NODEFAULT) if type(record_type) is not type else None
    if hasattr(record_type, "__post_init__"):
        return None
    if hasattr(record_type, "__struct_fields__"):
        return _struct_defaults(record_type)
    return _dataclass_defaults(record_type)


def _struct_defaults(struct: type[Any]) -> Mapping[str, Any] | None:
    kind: Any = type(struct)  # as Any, or checkers would take the class for its own kind
    makes_itself = struct.__init__ is msgspec.Struct.__init__ and kind is msgspec.StructMeta
    if not makes_itself or struct.__struct_config__.forbid_unknown_fields:
        return None
    return {each.name: each.default for each in msgspec.structs.fields(struct)}


def _dataclass_defaults(kind: Any) -> Mapping[str, Any] | None:
    parameters = kind.__dict__.get("__dataclass_params__")
    if parameters is None or not parameters.init or type(kind) is not type:
        return None
    if kind.__new__ is not object.__new__:
        return None
    if not parameters.frozen and kind.__setattr__ is not object.__setattr__:
        return None
    fields = dataclasses.fields(kind)
    names = {each.name for each in fields}
    # Those that are only for `__init__` are no fields, and msgspec knows nothing of them.
    declared = kind.__dict__["__dataclass_fields__"].values()
    if any(not each.init for each in fields) or any(
        each.name not in names and "InitVar" in str(each.type) for each in declared
    ):
        return None
    # An instance that msgspec makes has no default of its own, and is written without it.
    return dict.fromkeys((each.name for each in fields), msgspec.NODEFAULT)
