"""The preset of TCPA's ten data sets plans on each of them as it is downloaded."""

from pathlib import Path

import pytest

from search.planning.plan import plan_space
from search.planning.requested_space import requested_space
from tests.tcpa_core.published_layouts import WRITERS

WITH_LISTS = ("cub", "nabirds", "stanford_dogs")
"""Sets whose val is named by VPT's lists, which come apart."""
SETS = (*WITH_LISTS, "cifar10", "cifar100", "dtd", "flowers102", "food101", "gtsrb", "svhn")


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_planned_as_it_is_downloaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    WRITERS[name](tmp_path / "set")
    settings = {
        "backbone.name": "vit_nano",
        "data.name": name,
        "data.root": str(tmp_path / "set"),
        "data.size_per_class": 2,
    }
    space = requested_space("vfpt_tcpa_hta", settings)
    assert {trial.data.split for trial in space.trials} == {"hta"}
    plan = plan_space(space, space.name, tmp_path / "studies")
    of_split = [text for text in plan.deviations if "data.split" in text and "VPT" in text]
    assert len(of_split) == (name in WITH_LISTS)
    assert any("this copy has pictures of" in text for text in plan.warnings)
