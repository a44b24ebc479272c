"""docs/methods.md has a paragraph for each method, and its counts are those of the code."""

import re
from pathlib import Path

import pytest

from tcpa_core import plugins
from tcpa_core.config import METHODS
from tests.tcpa_core import checks
from tests.tcpa_core.tiny import trial

TEXT = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
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


def test_every_method_has_a_paragraph() -> None:
    assert set(plugins.names(METHODS)) <= PARAGRAPHS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_the_count_of_a_paragraph_is_that_of_the_code(name: str) -> None:
    text = " ".join(PARAGRAPHS[name].split())
    assert f"{checks.count_without_head(COUNTS[name]):,}" in text
