"""Pydantic models as plain data and back: by the names of their fields, without validation.

A model that is kept or moved has been validated when it was made. Its aliases, validators and
serializers are for documents; between two tasks, or in state, none of them has a part.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Union, cast, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

_AS_THEY_ARE: tuple[Any, ...] = (str, int, float, bool, bytes, type(None), Any)
"""What MessagePack gives back as what it was."""


def is_model(candidate: Any) -> bool:
    """Return whether something is a pydantic model class."""
    return isinstance(candidate, type) and hasattr(candidate, "model_validate")


def to_plain(value: Any) -> Any:
    """Return a pydantic model as a dict by field name: msgspec asks for what it does not know.

    What its fields hold may again be unknown to msgspec, which then asks again.

    Raises:
        TypeError: If it is neither a model nor a type of a model's field.
    """
    kind = cast("Any", type(value))
    if is_model(kind):
        held: dict[str, Any] = value.__dict__
        plain = {name: held[name] for name in kind.model_fields if name in held}
        extra: dict[str, Any] = value.__pydantic_extra__ or {}
        return {**extra, **plain}
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    if kind.__module__.partition(".")[0] in ("pydantic", "pydantic_core", "pathlib", "ipaddress"):
        return str(value)
    raise TypeError(f"a {kind.__name__} is not plain data")


def from_plain(kind: type, plain: Any) -> Any:
    """Return what ``to_plain`` was given: msgspec asks for types it does not know.

    Raises:
        TypeError: If the data is not that of a ``kind``.
    """
    if is_model(kind):
        return _model_maker(kind)(plain)
    return _validated(kind, plain)


@lru_cache(maxsize=256)
def _model_maker(kind: Any) -> Callable[[Any], Any]:
    """Return what makes a model of its fields, as unpickling does: neither checks nor hooks run."""
    fields = kind.model_fields
    makers = {name: _maker(field.annotation) for name, field in fields.items()}
    keeps_extra = kind.model_config.get("extra") == "allow"
    privates: dict[str, Any] = kind.__private_attributes__

    def make(plain: Any) -> Any:
        if not isinstance(plain, dict):
            raise TypeError(f"a {kind.__name__} is not kept as {type(plain).__name__}")
        found = cast("dict[str, Any]", plain)
        values: dict[str, Any] = {}
        for name, maker in makers.items():
            if name in found:
                values[name] = found[name] if maker is None else maker(found[name])
            elif fields[name].is_required():
                raise TypeError(f"the field {name!r} of {kind.__name__} is missing")
            else:
                values[name] = fields[name].get_default(call_default_factory=True)
        extra = {name: each for name, each in found.items() if name not in makers}
        model = kind.__new__(kind)
        model.__setstate__(
            {
                "__dict__": values,
                "__pydantic_fields_set__": makers.keys() & found.keys(),
                "__pydantic_extra__": extra if keeps_extra else None,
                "__pydantic_private__": {n: each.get_default() for n, each in privates.items()}
                or None,
            }
        )
        return model

    return make


def _maker(hint: Any) -> Callable[[Any], Any] | None:
    """Return what makes values of a type out of plain data, None if they are plain."""
    if hint in _AS_THEY_ARE:
        return None
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _maker(args[0])
    if is_model(hint):
        # Asked for when it is needed: models may hold models of their own kind.
        return lambda plain: _model_maker(hint)(plain)
    if origin in (Union, types.UnionType):
        return _union_maker(args)
    if origin in (list, Sequence) and args:
        each = _maker(args[0])
        return None if each is None else lambda plain: list(map(each, plain))
    if origin in (dict, Mapping) and args[0] is str:
        value = _maker(args[1])
        if value is None:
            return None
        return lambda plain: {name: value(item) for name, item in plain.items()}
    return lambda plain: _converted(hint, plain)


def _union_maker(options: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    makers = [(option, _maker(option)) for option in options]
    if all(maker is None for _, maker in makers):
        return None
    (first, *others) = [each for each in makers if each[0] is not type(None)]

    def make(plain: Any) -> Any:
        if plain is None:
            return None
        for option, maker in (first, *others):
            if others and is_model(option) and not _is_of(option, plain):
                continue
            try:
                return _converted(option, plain) if maker is None else maker(plain)
            except (TypeError, ValueError):
                if not others:
                    raise
        raise TypeError(f"a {type(plain).__name__} is none of {options}")

    return make


def _is_of(kind: Any, plain: Any) -> bool:
    """Return whether plain data has the fields of a model, all of them, which are all kept."""
    if not isinstance(plain, dict):
        return False
    names = kind.model_fields.keys()
    found = cast("dict[str, Any]", plain).keys()
    return found >= names if kind.model_config.get("extra") == "allow" else found == names


def _converted(hint: Any, plain: Any) -> Any:
    try:
        return msgspec.convert(plain, hint, dec_hook=from_plain)
    except TypeError:  # a type that msgspec does not take, as some unions
        return _validated(hint, plain)


def _validated(hint: Any, plain: Any) -> Any:
    return _adapter(hint).validate_python(plain)


@lru_cache(maxsize=256)
def _adapter(hint: Any) -> Any:
    from pydantic import TypeAdapter  # Optional, and there if a model is.

    return TypeAdapter(hint)
