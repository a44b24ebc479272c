"""Each dependency has a lower bound that `make lowest` can install."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from scripts.lowest import pins


def parts(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3]]


def test_what_is_installed_is_not_below_the_bounds() -> None:
    names = dict(pin.split("==") for pin in pins())
    assert {"torch", "timm", "ray", "optuna", "mlflow", "pytest"} <= names.keys()
    below = {
        name: version(name) for name, low in names.items() if parts(version(name)) < parts(low)
    }
    assert not below


def test_a_dependency_without_a_bound_is_named(tmp_path: Path) -> None:
    text = '[project]\ndependencies = ["a>=1", "b"]\noptional-dependencies = {test = []}\n'
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(SystemExit, match="'b' has no lower bound"):
        pins(tmp_path / "pyproject.toml")
