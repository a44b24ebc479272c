"""docs/methods.md has a paragraph for each method, and its counts are those of the code."""

import re
from pathlib import Path

import pytest

from tcpa_core import plugins
from tcpa_core.config import METHODS
from tcpa_core.methods import base
from tcpa_core.methods.base import Method
from tests.tcpa_core import checks
from tests.tcpa_core.tiny import trial

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "methods.md").read_text()
PARAGRAPHS = dict(re.findall(r"^\*\*`(\w+)`\*\*: (.*?)(?:\n\n|\Z)", TEXT, re.S | re.M))
COUNTS = {
    "vpt": trial(["vpt"]),
    "e2vpt": trial(["e2vpt"]),
    "gated": trial(["gated"], gated__num_prompts=100),
    "sa2vp": trial(["sa2vp"]),
    "cvpt": trial(["cvpt"]),
    "tcpa": trial(["tcpa"]),
    "vp": trial(["vp"]),
    "autovp": trial(["autovp"]),
    "lion": trial(["lion"]),
    "full": trial(["full"]),
    "bias": trial(["bias"]),
    "adapter": trial(["adapter"], adapter__bottleneck=8),
    "adaptformer": trial(["adaptformer"]),
    "lora": trial(["lora"]),
    "ssf": trial(["ssf"]),
    "mlp": trial(["mlp"]),
    "sidetune": trial(["sidetune"]),
}


def test_new_method_names_every_hook() -> None:
    text = (DOCS / "new_method.md").read_text()
    named = set(re.findall(r"`(\w+)`", text))
    hooks = {name for name in vars(Method) if not name.startswith("_")}
    assert len(hooks) > 25 and hooks <= named


def test_new_method_names_only_what_authors_can_import() -> None:
    text = (DOCS / "new_method.md").read_text()
    assert set(re.findall(r"\bbase\.(\w+)", text)) - {"py"} <= set(base.__all__)
    helpers = re.search(r"initialisers\s+\((.*?)\), `(\w+)`.*?`(\w+)` and `(\w+)`", text, re.S)
    assert helpers is not None
    assert set(re.findall(r"\w+", helpers[1])) | set(helpers.groups()[1:]) <= set(base.__all__)


def test_every_method_has_a_paragraph() -> None:
    assert set(plugins.names(METHODS)) <= PARAGRAPHS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_the_count_of_a_paragraph_is_that_of_the_code(name: str) -> None:
    text = " ".join(PARAGRAPHS[name].split())
    assert f"{checks.count_without_head(COUNTS[name]):,}" in text
