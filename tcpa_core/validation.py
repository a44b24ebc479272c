"""What pydantic refuses, in the parts that our messages are made of."""

from dataclasses import dataclass

from pydantic import ValidationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first thing that is wrong with a value or a section."""

    where: tuple[int | str, ...]
    """Keys that lead to it from where the check began."""
    value: object
    """What was given."""
    rule: str
    """What it must be: "must be greater than 0"."""
    options: tuple[str, ...]
    """Names that are possible, where it is one of a closed set."""
    is_unknown_key: bool
    sentence: str | None
    """The message of a validator of ours, which names the path itself; None: a rule of pydantic's
    is broken."""


def first_problem(err: ValidationError) -> Problem:
    """The first of the problems that pydantic found."""
    found = err.errors()[0]
    context = found.get("ctx", {})
    # pydantic writes "Input should be ...", which a sentence of ours goes on from.
    rule = found["msg"][0].lower() + found["msg"][1:].replace("a valid tuple", "a list")
    expected = str(context.get("expected", ""))  # "'a', 'b' or 'c'"
    return Problem(
        where=found["loc"],
        value=found["input"],
        rule=rule.replace("input should be", "must be"),
        options=tuple(part.strip("' ") for part in expected.replace(" or ", ", ").split(",")),
        is_unknown_key=found["type"] == "extra_forbidden",
        sentence=str(context["error"]) if found["type"] == "value_error" else None,
    )
