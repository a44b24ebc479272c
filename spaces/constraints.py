"""Relations between numbers, such as `tcpa.top_k_image <= tcpa.num_image_prompts`."""

import re
from dataclasses import dataclass

from tcpa_core.errors import ConfigError

_PATH = r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*"
_NUMBER = r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_RELATION = re.compile(rf"\s*({_PATH})\s*(<=|<|>=|>)\s*({_PATH}|{_NUMBER})\s*")

Side = str | float


@dataclass(frozen=True, slots=True)
class Relation:
    """lower <= upper, or lower < upper if strict. A side is a dotted path or a number."""

    lower: Side
    upper: Side
    strict: bool
    text: str

    def paths(self) -> tuple[str, ...]:
        return tuple(side for side in (self.lower, self.upper) if isinstance(side, str))


def parse_relation(text: object, place: str) -> Relation:
    """Read "PATH OP PATH" or "PATH OP NUMBER", OP one of <=, <, >=, >.

    Raises:
        ConfigError: Anything else; nothing is ever evaluated.
    """
    match = _RELATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(
            f"a constraint must read 'PATH <= PATH' or 'PATH <= NUMBER' (also <, >=, >), got "
            f"{text!r} ({place})."
        )
    left, operator, right = match.groups()
    other: Side = right if re.fullmatch(_PATH, right) else float(right)
    strict = "=" not in operator
    lower, upper = (left, other) if operator.startswith("<") else (other, left)
    return Relation(lower, upper, strict, match.group().strip())
