from __future__ import annotations

import datetime as dt
import decimal
import enum
import pathlib
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from riverrun.engine.models import from_plain, is_model, to_plain


class Colour(enum.Enum):
    RED = "red"


class Inner(pydantic.BaseModel):
    number: int = pydantic.Field(alias="Number")


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    lives: int


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    user: str = pydantic.Field(alias="User")
    at: dt.datetime = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    local: dt.datetime = dt.datetime(2024, 1, 2)  # noqa: DTZ001 - without zone, by intent
    day: dt.date = dt.date(2024, 1, 2)
    price: decimal.Decimal = decimal.Decimal("1.10")
    colour: Colour = Colour.RED
    names: set[str] = {"a"}
    pair: tuple[int, str] = (1, "a")
    path: pathlib.Path = pathlib.Path("/a")
    secret: pydantic.SecretStr = pydantic.SecretStr("s")
    inner: Inner | None = None
    inners: list[Inner] = []
    by_name: dict[str, Inner] = {}
    pet: Cat | Dog | None = None
    anything: Any = None


class Checked(pydantic.BaseModel):
    count: int

    @pydantic.field_validator("count")
    @classmethod
    def add(cls, count: int) -> int:
        return count + 1

    @pydantic.field_serializer("count")
    def as_text(self, count: int) -> str:
        return f"<{count}>"

    def model_post_init(self, context: Any) -> None:
        self.count += 100


def there_and_back(model: pydantic.BaseModel) -> Any:
    data = msgspec.msgpack.encode(model, enc_hook=to_plain)
    return msgspec.msgpack.decode(data, type=type(model), dec_hook=from_plain)


@pytest.mark.parametrize(
    "model",
    [
        Model(User="ada"),
        Model.model_validate({"User": "ada", "more": [1, {"a": 2}]}),
        Model(
            User="ada",
            inner=Inner(Number=1),
            inners=[Inner(Number=2)],
            by_name={"a": Inner(Number=3)},
            pet=Dog(kind="dog", lives=1),
            anything=[1, "a"],
        ),
        Model(User="ada", pet=Cat(kind="cat", lives=9)),
    ],
)
def test_models_come_back_as_they_were(model: Model) -> None:
    assert there_and_back(model) == model


def test_validators_do_not_run_again() -> None:
    model = Checked(count=1)
    assert model.count == 102
    assert there_and_back(model).count == 102


def test_a_field_that_was_not_kept_has_its_default() -> None:
    assert from_plain(Model, {"user": "ada"}) == Model(User="ada")


@pytest.mark.parametrize("plain", [{}, [], 1, {"user": "ada", "inner": 7}])
def test_other_data_is_no_model(plain: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        from_plain(Model, plain)


def test_what_is_no_model_is_told() -> None:
    with pytest.raises(TypeError, match="not plain data"):
        to_plain(object())
    assert not is_model(dict)
