"""The first problem of a refused value, in the parts of our messages."""

from typing import Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from tcpa_core.settings import Settings
from tcpa_core.validation import Problem, first_problem


class Inner(Settings):
    size: int = Field(default=1, ge=1)
    kind: Literal["a", "b", "c"] = "a"
    name: str = "x"

    @field_validator("name")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError(f"inner.name must be short, got {value!r}")
        return value


class Outer(Settings):
    inner: Inner = Inner()


def problem_of(**inner: object) -> Problem:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": inner})
    return first_problem(caught.value)


def test_a_rule_is_said_in_our_words() -> None:
    found = problem_of(size=0)
    assert (found.where, found.value) == (("inner", "size"), 0)
    assert found.rule == "must be greater than or equal to 1"
    assert found.sentence is None and not found.is_unknown_key


def test_a_closed_set_gives_its_names() -> None:
    found = problem_of(kind="d")
    assert found.rule == "must be 'a', 'b' or 'c'"
    assert found.options == ("a", "b", "c")


def test_a_validator_of_ours_writes_the_whole_sentence() -> None:
    assert problem_of(name="long one").sentence == "inner.name must be short, got 'long one'"


def test_an_unknown_key_is_told_from_a_wrong_value() -> None:
    found = problem_of(sise=3)
    assert found.is_unknown_key and found.where == ("inner", "sise")


def test_of_several_problems_the_first_is_told() -> None:
    assert problem_of(size=0, kind="d").where == ("inner", "size")
