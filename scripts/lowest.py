"""Print the lower bounds of pyproject.toml as pins: the constraints of `make lowest`."""

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def pins(pyproject: Path = PYPROJECT) -> list[str]:
    """`name==bound` for every `name>=bound` of the dependencies and of the extra `test`."""
    project = tomllib.loads(pyproject.read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    found = [re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)", one) for one in wanted]
    if missing := [one for one, match in zip(wanted, found, strict=True) if match is None]:
        raise SystemExit(f"{pyproject}: {missing[0]!r} has no lower bound of the form name>=1.2")
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    print("\n".join(pins()))
