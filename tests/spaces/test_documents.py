"""docs/settings.md is what the code says, docs/spaces.md names every key, and examples run."""

import re
from pathlib import Path

import pytest
import yaml

from spaces import reference
from spaces.ablation_section import DESIGNS
from spaces.axes import KINDS
from spaces.axes_section import options_of
from spaces.designs import KEYS
from spaces.draft import _ABLATION, _SEARCH
from spaces.load import space_of
from spaces.read_suite import is_suite, load_suite
from spaces.setting_values import paths
from tcpa_core.config import known_paths
from tcpa_core.errors import ConfigError
from tcpa_core.hints import OTHER_NAMES, nearest_setting

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
EXAMPLES = [
    yaml.safe_load(text)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for text in re.findall(r"^```yaml\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)
]
OPTIONS = {option for kind in KINDS for option in options_of(kind)}
STUDY = {f"{name}.{f}" for name, m in reference.STUDY_SECTIONS.items() for f in m.model_fields}


def test_the_settings_page_is_what_the_code_says() -> None:
    """After a change: tcpa settings --markdown > docs/settings.md."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == reference.markdown()


def test_every_setting_is_listed_with_its_meaning() -> None:
    found = {setting.path: setting for setting in reference.settings()}
    assert found.keys() == known_paths().keys() | STUDY
    assert not [path for path, setting in found.items() if not setting.meaning]


def test_settings_are_found_by_path_section_and_pattern() -> None:
    assert [s.path for s in reference.settings("optim.lr")] == ["optim.lr"]
    assert {s.path for s in reference.settings("vpt")} == {p for p in paths() if p[:4] == "vpt."}
    assert "cvpt.init" in {s.path for s in reference.settings("*.init")}
    with pytest.raises(ConfigError, match=r"'learning_rate'; closest name: 'optim.lr'"):
        reference.settings("learning_rate")


@pytest.mark.parametrize(
    "key",
    sorted({*_SEARCH, *_ABLATION, *KEYS, *DESIGNS, *KINDS, *OPTIONS}
           | STUDY),
)  # fmt: skip
def test_the_page_of_space_files_names_every_key(key: str) -> None:
    assert re.search(rf"`[^`\n]*\b{re.escape(key)}\b[^`\n]*`", PAGE), key


@pytest.mark.parametrize(
    "example",
    [e for e in EXAMPLES if "name" in e and e["name"] != "gain"],  # tests/search/test_new_method.py
    ids=lambda example: example["name"],
)
def test_every_example_of_a_space_or_a_suite_can_be_read(
    example: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(yaml.safe_dump(example, sort_keys=False))
    read = load_suite(str(file)) if is_suite(str(file)) else space_of(example)
    assert read.name == example["name"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("data.image_size", "backbone.img_size"),
        ("learning_rate", "optim.lr"),
        ("train.lr", "optim.lr"),
        ("optim.batch_size", "train.batch_size"),
        ("model.name", "backbone.name"),
        ("dataset.name", "data.name"),
        ("optimizer.name", "optim.name"),
        ("optimizer.wd", "optim.weight_decay"),
        ("cvpt.num_tokens", "cvpt.num_prompts"),
        ("vpt.prompt-length", "vpt.num_prompts"),
        ("tcpa.n_c", "tcpa.num_cls_prompts"),
        ("tcpa.top_k", "tcpa.top_k_image"),
        ("lr_scheduler_type", "optim.schedule"),
        ("scheduler.max_t", "train.epochs"),
        ("scheduler.grace_period", "scheduler.grace_epochs"),
        ("pruner", "scheduler.name"),
        ("data.crop_pct", "data.resize_to"),
        ("adapter.dim", "adapter.bottleneck"),
        ("per_device_train_batch_size", "train.batch_size"),
        ("optim.lrr", "optim.lr"),
        ("tcpa.num_image_promts", "tcpa.num_image_prompts"),
    ],
)
def test_a_hint_means_the_same_before_it_is_spelled_alike(written: str, meant: str) -> None:
    assert nearest_setting(written, [*paths(), *STUDY]) == f"; closest name: {meant!r}"


def test_other_names_lead_to_settings_that_exist_and_are_no_settings_themselves() -> None:
    known = {*paths(), *STUDY, "seeds"}
    words = {name.rpartition(".")[2] for name in known}
    assert {name for name in OTHER_NAMES if name not in known | words} == set()
