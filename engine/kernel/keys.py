"""Columns of keys as the kernel takes them."""

from __future__ import annotations

import polars as pl

from riverrun.engine.batch import KEY
from riverrun.engine.reference.state_keys import state_keys_of

_KEY_TYPES = (pl.String(), pl.Int64(), pl.Boolean(), pl.Binary())


def keys_and_form(keys: pl.Series) -> tuple[pl.Series, str]:
    """Return keys as the kernel takes them, and whether they are state keys: ``key`` or ``state``.

    Raises:
        TypeError: A key is null, or of a type that has no stable bytes.
    """
    if keys.dtype in _KEY_TYPES and not keys.null_count():
        return keys, "key"
    return pl.Series(KEY, state_keys_of(keys), dtype=pl.Binary), "state"
