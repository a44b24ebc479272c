"""Values that check themselves: what is wrong with one, and where it stands."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError, ValidationInfo

from spaces.reader import Document, Keys
from tcpa_core.errors import ConfigError
from tcpa_core.validation import first_problem

T = TypeVar("T")


class Refused(ValueError):
    """What is wrong with a value, in the words of its class, which does not know where it stands.

    Args:
        text: What is asked for, and what is there.
        keys: Of the part that is wrong, from the value on.
        ending: What follows the place: what to do about it.
    """

    def __init__(self, text: str, *keys: str, ending: str = ".") -> None:
        super().__init__(text)
        self.keys, self.ending = keys, ending


def check_flag(name: str, value: object) -> bool:
    """Refuse what is neither true nor false.

    Raises:
        Refused: In these words.
    """
    if type(value) is not bool:
        raise Refused(f"{name} must be true or false, got {value!r}", name)
    return value


def _flag(value: object, info: ValidationInfo) -> bool:
    return check_flag(str(info.field_name), value)


Flag = Annotated[bool, BeforeValidator(_flag)]


def build(
    kind: TypeAdapter[T], values: Mapping[str, Any], subject: str, document: Document, keys: Keys
) -> T:
    """Build a value that checks itself.

    Args:
        kind: What is built.
        values: What stands in the file, single settings checked.
        subject: What messages begin with, such as "axis optim.lr: ".
        document: The file, for places.
        keys: Where the value stands in it.

    Raises:
        ConfigError: The value is refused, with its place.
    """
    try:
        return kind.validate_python(values)
    except ValidationError as err:
        cause = err.errors()[0].get("ctx", {}).get("error")
        if not isinstance(cause, Refused):  # a type that no class has words of its own for
            problem = first_problem(err)
            name = ".".join(str(part) for part in problem.where[1:])
            cause = Refused(f"{name} {problem.rule}, got {problem.value!r}")
        place = document.place(*keys, *cause.keys)
        raise ConfigError(f"{subject}{cause} ({place}){cause.ending}") from err
