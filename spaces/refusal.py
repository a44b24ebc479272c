"""Values that check themselves: what is wrong with one, and where it stands."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError, ValidationInfo

from spaces.reader import Document, Keys
from tcpa_core.errors import ConfigError

T = TypeVar("T")


class Refused(ValueError):
    """What is wrong with a value, in the words of its class, which does not know where it stands.

    Args:
        text: What is asked for, and what is there.
        keys: Of the part that is wrong, from the value on.
        remedy: What to do about it.
    """

    def __init__(self, text: str, *keys: str, remedy: str = "") -> None:
        super().__init__(text)
        self.keys, self.remedy = keys, remedy


def _true_or_false(value: Any, info: ValidationInfo) -> Any:
    if type(value) is not bool:
        name = str(info.field_name)
        raise Refused(f"{name} must be true or false, got {value!r}", name)
    return value


Flag = Annotated[bool, BeforeValidator(_true_or_false)]


def build(
    kind: TypeAdapter[T], values: Mapping[str, Any], subject: str, document: Document, keys: Keys
) -> T:
    """Build a value that checks itself.

    Args:
        kind: What is built.
        values: What stands in the file, single settings checked.
        subject: What messages begin with.
        document: The file, for places.
        keys: Where the value stands in it.

    Raises:
        ConfigError: The value is refused, with its place.
    """
    try:
        return kind.validate_python(values)
    except ValidationError as err:
        problem = err.errors()[0]
        cause = problem.get("ctx", {}).get("error")
        if not isinstance(cause, Refused):  # a type that no class has words of its own for
            name = ".".join(str(part) for part in problem["loc"][1:])
            cause = Refused(f"{name}: {problem['msg']}, got {problem['input']!r}")
        remedy = f"; {cause.remedy}" if cause.remedy else ""
        place = document.place(*keys, *cause.keys)
        raise ConfigError(f"{subject}: {cause} ({place}){remedy}.") from err
