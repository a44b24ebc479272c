"""Each mistake is refused with its place, value and remedy, and never with a library's own text."""

from pathlib import Path

import pytest

from spaces.load import load_space
from tcpa_core.errors import ConfigError
from tests.spaces.bad_spaces import BAD_SPACES


@pytest.mark.parametrize(
    ("text", "pattern"), [case[1:] for case in BAD_SPACES], ids=[case[0] for case in BAD_SPACES]
)
def test_a_mistake_is_refused(text: str, pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"(?s){pattern}") as caught:
        load_space(str(path))
    message = str(caught.value)
    assert "pydantic" not in message
    assert "\n" not in message
    assert "bad.yaml" in message


def test_names_of_mistakes_are_distinct() -> None:
    assert len({name for name, _, _ in BAD_SPACES}) == len(BAD_SPACES) >= 60
