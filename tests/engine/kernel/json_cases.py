"""Record types and documents for the tests of the kernel's JSON: the odd ones among them."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from typing import TYPE_CHECKING, Any, TypedDict, cast

import msgspec
from hypothesis import strategies as st

if TYPE_CHECKING:
    import random

NAMES = ["a", "b", "user", "amount", "a_rather_long_name_of_a_field", "caf\u00e9"]

# Each name is another one's.
RENAMED = dict(zip(NAMES, NAMES[1:] + NAMES[:1], strict=True))

_integers = st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-1000, 1000)
_floats = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6).map(
    lambda hundredths: hundredths / 100
)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    st.characters(max_codepoint=127), max_size=40
)
_scalars: dict[Any, st.SearchStrategy[Any]] = {
    int: _integers,
    float: _floats,
    str: _texts,
    bool: st.booleans(),
    dt.datetime: st.datetimes(timezones=st.just(dt.UTC)),
    dt.date: st.dates(),
    bytes: st.binary(max_size=40),
}
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _integers | _floats | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)

Case = tuple[Any, st.SearchStrategy[Any]]
"""A type, and what its values are as plain data, or as what plain text stands for."""


def _optional(case: Case) -> Case:
    hint, values = case
    return hint | None, st.none() | values


def _list(case: Case) -> Case:
    hint, values = case
    return list[hint], st.lists(values, max_size=4)


def _record(kind: str, fields: list[tuple[str, Case, bool]]) -> Case:
    # Those without a default come first, or a dataclass cannot be made.
    fields = sorted(fields, key=lambda field: field[2])
    hints: list[Any] = [
        (name, hint | None, None) if has_default and kind != "mapping" else (name, hint)
        for name, (hint, _), has_default in fields
    ]
    if kind == "renamed":
        fields = [(RENAMED[name], case, has_default) for name, case, has_default in fields]
    values = {name: each for name, (_, each), _ in fields}
    if kind == "mapping":
        return _mapping(hints), st.fixed_dictionaries(values)
    required = {name: values[name] for name, _, has_default in fields if not has_default}
    optional = {name: st.none() | values[name] for name, _, has_default in fields if has_default}
    if kind == "dataclass":
        # Without one, the document is the reference's.
        required, optional = required | optional, {}
    if kind == "renamed":
        made = msgspec.defstruct("Made", hints, rename=RENAMED)
    elif kind == "struct":
        made = msgspec.defstruct("Made", hints)
    else:
        made = dataclasses.make_dataclass(
            "Made",
            [
                (name, hint, dataclasses.field(default=default[0])) if default else (name, hint)
                for name, hint, *default in hints
            ],
        )
    return made, st.fixed_dictionaries(required, optional=optional)


def _mapping(hints: list[tuple[str, Any]]) -> Any:
    made: Any = TypedDict  # called with names that no checker knows
    return made("Made", dict(hints))


def _records(kind: str, inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    fields = st.lists(
        st.tuples(st.sampled_from(NAMES), inner, st.booleans()),
        min_size=1,
        max_size=5,
        unique_by=lambda field: field[0],
    )
    return fields.map(lambda found: _record(kind, found))


def record_types(kind: str) -> st.SearchStrategy[Case]:
    """Record types of a kind, ``struct``, ``dataclass`` or ``mapping``, nested ones too.

    A ``renamed`` one is a struct whose documents have other names, and has nothing nested.
    """
    scalars: st.SearchStrategy[Case] = st.sampled_from(list(_scalars.items()))
    if kind == "renamed":
        return _records(kind, scalars | scalars.map(_optional))
    inner = st.recursive(
        scalars,
        lambda deeper: deeper.map(_optional) | deeper.map(_list) | _records(kind, deeper),
        max_leaves=4,
    )
    return _records(kind, inner)


def written(value: Any, chance: random.Random, *, odd: bool) -> str:
    """Return plain data as JSON; ``odd`` for white space, escapes and keys in any order."""
    if isinstance(value, str):
        return _text(value, chance, odd=odd)
    if isinstance(value, dt.datetime):
        return _text(_time(value, chance, odd=odd), chance, odd=odd)
    if isinstance(value, dt.date):
        return _text(value.isoformat(), chance, odd=odd)
    if isinstance(value, bytes):
        return _text(base64.b64encode(value).decode(), chance, odd=odd)
    if isinstance(value, dict):
        members = list(cast("dict[str, Any]", value).items())
        if odd:
            chance.shuffle(members)
        written_members = [
            _space(chance, odd)
            + _text(key, chance, odd=odd)
            + _space(chance, odd)
            + ":"
            + _space(chance, odd)
            + written(each, chance, odd=odd)
            + _space(chance, odd)
            for key, each in members
        ]
        return "{" + (",".join(written_members) or _space(chance, odd)) + "}"
    if isinstance(value, list):
        items = [
            _space(chance, odd) + written(each, chance, odd=odd) + _space(chance, odd)
            for each in cast("list[Any]", value)
        ]
        return "[" + (",".join(items) or _space(chance, odd)) + "]"
    if isinstance(value, float) and odd and chance.random() < 0.3:
        return f"{value:.17E}"
    return json.dumps(value)


def _space(chance: random.Random, odd: bool) -> str:
    return chance.choice(["", "", " ", "\n\t", "\r  "]) if odd else ""


def _time(value: dt.datetime, chance: random.Random, *, odd: bool) -> str:
    text = value.isoformat()
    return text if odd and chance.random() < 0.5 else text.replace("+00:00", "Z")


def _text(value: str, chance: random.Random, *, odd: bool) -> str:
    if not odd:
        return json.dumps(value, ensure_ascii=False)
    if chance.random() < 0.2:
        # Every character as an escape, of surrogates where it takes two.
        units = value.encode("utf-16-be")
        pairs = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
        return '"' + "".join(f"\\u{chance.choice([each, each.upper()])}" for each in pairs) + '"'
    return json.dumps(value, ensure_ascii=chance.random() < 0.5)


def spoiled(document: bytes, chance: random.Random) -> bytes:
    """Return a document with a small change; it may be a good one still."""
    at = chance.randrange(len(document) + 1)
    piece = chance.choice(
        [
            *(
                b"",
                b"0",
                b"-",
                b".",
                b"e5",
                b'"',
                b"\\",
                b"\\ud83d",
                b"null",
                b"9" * 20,
                b"Z",
                b"T",
                b"+02:00",
                b"==",
                b"/",
                b",",
                b"}",
            ),
            *(b"{", b"[", b" ", b"\xff", b"\xc3", b"\x00", b"\x7f", b"true", b"1.5", b":", b"\x0b"),
        ]
    )
    return document[:at] + piece + document[at + chance.randrange(3) :]
