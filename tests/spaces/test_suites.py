"""Suites: how a cell's space is laid, in what order cells run, what is refused and where."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from spaces.difference import differences
from spaces.load import load_space, space_of
from spaces.read_suite import is_suite, load_suite
from spaces.shipped import SUITES
from spaces.suite import Suite
from tcpa_core.errors import ConfigError

TEXT = """\
name: two
base: {backbone.name: vit_nano, train.epochs: 2, vpt.prompt_dropout: 0.0}
axes:
  optim.lr: {float: [1e-3, 1e-1], log: true}
datasets:
  digits: {data.name: digits}
  My Folder: {data.name: folder, data.root: pictures, train.epochs: 3}
  dtd: {data.name: vtab1k, data.root: dtd}
groups: {grey: [digits], colour: [My Folder, dtd]}
methods:
  Linear: {chain: [linear]}
  VPT:
    chain: [vpt]
    base: {optim.weight_decay: 0.1}
    axes: {vpt.num_prompts: {choice: [5, 10]}}
    first_points: [{vpt.num_prompts: 10, optim.lr: 0.01}]
    datasets: {dtd: {vpt.num_prompts: 7}}
  TCPA: {space: tcpa_vtab, base: {optim.lr: 0.01}}
baseline: VPT
budget: {trials: 4}
confirm: {top: 2, seeds: 3}
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Suite]:
    """Loads the suite above with texts replaced."""

    def read(*changes: tuple[str, str], **more: Any) -> Suite:
        text = TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "two.yaml"
        path.write_text(text)
        return load_suite(str(path), **more)

    return read


def test_cells_run_column_by_column_with_the_baseline_first(load: Callable[..., Suite]) -> None:
    suite = load()
    names = [one.name for one in suite.cells]
    assert names[:3] == ["digits-vpt", "digits-linear", "digits-tcpa"]
    # the first data set of each group before the second of any
    assert [name.rsplit("-", 1)[0] for name in names[::3]] == ["digits", "my_folder", "dtd"]
    assert [one.method for one in suite.given[:3]] == ["Linear", "VPT", "TCPA"]


def test_later_layers_replace_earlier_ones(load: Callable[..., Suite], tmp_path: Path) -> None:
    cells = {one.name: one.space for one in load().cells}
    vpt, dtd, tcpa = cells["digits-vpt"], cells["dtd-vpt"], cells["my_folder-tcpa"]
    assert set(vpt.axes) == {"optim.lr", "vpt.num_prompts"}
    assert vpt.base["methods"] == ["vpt"] and vpt.base["optim.weight_decay"] == 0.1
    assert vpt.first_points == ({"vpt.num_prompts": 10, "optim.lr": 0.01},)
    # of the method on this data set; a first point loses what no longer varies
    assert dtd.base["vpt.num_prompts"] == 7 and set(dtd.axes) == {"optim.lr"}
    assert dtd.first_points == ({"optim.lr": 0.01},)
    # settings of methods that the row lacks are not its
    assert "vpt.prompt_dropout" not in cells["digits-linear"].base
    # the preset below, the suite's data set and the row above
    preset = load_space("tcpa_vtab", {"data.root": "."})
    assert tcpa.base["train.epochs"] == 3 and tcpa.base["data.name"] == "folder"
    assert tcpa.base["train.batch_size"] == preset.base["train.batch_size"]
    assert tcpa.base["optim.lr"] == 0.01 and set(tcpa.axes) == set(preset.axes) - {"optim.lr"}
    assert tcpa.base["data.root"] == str(tmp_path / "pictures")
    assert tcpa.scheduler.name == "none" and tcpa.budget.trials == 4


def test_each_cell_is_the_search_that_its_own_file_would_be(load: Callable[..., Suite]) -> None:
    for cell in load().cells:
        again = space_of(cell.space.as_dict())
        assert differences(cell.space, again) == []
        assert again.trials == cell.space.trials


def test_the_command_line_counts_for_every_cell(load: Callable[..., Suite], tmp_path: Path) -> None:
    suite = load(overrides={"train.epochs": 9, "budget.trials": 6}, data=tmp_path / "data")
    assert {one.space.most_epochs for one in suite.cells} == {9}
    assert {one.space.budget.trials for one in suite.cells} == {6}
    roots = {one.space.base.get("data.root") for one in suite.cells}
    assert roots == {None, str(tmp_path / "data/pictures"), str(tmp_path / "data/dtd")}
    # of one data set rows have equal epochs now; before, a preset's were its own
    assert suite.unequal() == ""


def test_rows_with_other_epochs_are_told(load: Callable[..., Suite]) -> None:
    text = load(("base: {optim.weight_decay: 0.1}", "base: {train.epochs: 8}")).unequal()
    assert "Linear 2, VPT 8, TCPA 2" in text and "train.epochs" in text


def test_backbones_make_tables_of_their_own(load: Callable[..., Suite]) -> None:
    more = (
        "backbones:\n  Nano: {backbone.name: vit_nano}\n"
        "  Tiny: {backbone.name: vit_tiny_patch16_224}\n"
    )
    suite = load(("datasets:\n", more + "datasets:\n"))
    assert suite.backbones == ("Nano", "Tiny") and len(suite.cells) == 18
    assert suite.cells[0].name == "nano-digits-vpt" and suite.cells[9].backbone == "Tiny"
    assert suite.cells[9].space.base["backbone.name"] == "vit_tiny_patch16_224"


BAD = {
    "unknown key": (
        "baseline:",
        "basline:",
        "no key 'basline' (FILE, line 19); closest name: 'baseline'",
    ),
    "unknown key of a row": (
        "chain: [vpt]",
        "chian: [vpt]",
        "method 'VPT' has no key 'chian' (FILE, line 13); closest name: 'chain'",
    ),
    "unknown setting": (
        "train.epochs: 3",
        "train.epoch: 3",
        "no setting 'train.epoch' (FILE, line 7)",
    ),
    "unknown method": (
        "[vpt]",
        "[vtp]",
        "no method 'vtp' (FILE, line 13)",
    ),
    "no chain": (
        "  Linear: {chain: [linear]}",
        "  Linear: {}",
        "method 'Linear' needs 'chain'",
    ),
    "chain is text": (
        "[linear]",
        "linear",
        "write [linear]",
    ),
    "value out of range": (
        "prompt_dropout: 0.0",
        "prompt_dropout: 2.0",
        "vpt.prompt_dropout must be",
    ),
    "setting of another method": (
        "base: {optim.weight_decay: 0.1}",
        "base: {lora.rank: 2}",
        "belongs to method 'lora', which 'VPT' lacks (FILE, line 14)",
    ),
    "setting of no row": (
        "vpt.prompt_dropout",
        "lora.alpha",
        "which no row has (FILE, line 2)",
    ),
    "axis and fixed": (
        "train.epochs: 2,",
        "train.epochs: 2, optim.lr: 0.1,",
        "optim.lr is an axis (FILE, line 4) and fixed in base (FILE, line 2)",
    ),
    "baseline is no row": (
        "baseline: VPT",
        "baseline: VTP",
        "baseline must be the name of a method, got 'VTP' (FILE, line 19); closest name: 'VPT'",
    ),
    "group of no column": (
        "[digits]",
        "[digit]",
        "no data set 'digit' (FILE, line 9); closest name: 'digits'",
    ),
    "in two groups": (
        "[My Folder, dtd]",
        "[digits, dtd]",
        "stands in 'grey' and in 'colour' (FILE, line 9)",
    ),
    "two rows of one name": (
        "  TCPA:",
        "  vpt: ",
        "'vpt' and 'VPT' would both be 'vpt'",
    ),
    "own settings of no column": (
        "datasets: {dtd:",
        "datasets: {dtdd:",
        "data set 'dtdd', which the suite lacks (FILE, line 17); closest name: 'dtd'",
    ),
    "no budget": (
        "budget: {trials: 4}",
        "budget: {}",
        "budget must limit trials, hours or gpu_hours",
    ),
    "one trial": (
        "trials: 4",
        "trials: 1",
        "must be at least 2, got 1 (FILE, line 20)",
    ),
    "key of budget": (
        "trials: 4",
        "trails: 4",
        "budget has no key 'trails' (FILE, line 20); closest name: 'trials'",
    ),
    "one seed": (
        "seeds: 3",
        "seeds: 1",
        "confirm.seeds must be",
    ),
    "no preset": (
        "tcpa_vtab",
        "tcpa_vatb",
        "no file and no preset 'tcpa_vatb'; closest name: 'tcpa_vtab'",
    ),
    "an ablation as a start": (
        "tcpa_vtab",
        "tcpa_components",
        "space 'tcpa_components' is no search (FILE, line 18)",
    ),
    "methods as a setting": (
        "base: {optim.weight_decay: 0.1}",
        "base: {methods: [vpt]}",
        "a row of a suite says it as 'chain'",
    ),
    "axis that no cell has": (
        "choice: [5, 10]}",
        "choice: [5, 10], when: {optim.name: sgd}}",
        "axis vpt.num_prompts is active in no cell of the suite (FILE, line 15)",
    ),
    "first point outside": (
        "num_prompts: 10, optim.lr",
        "num_prompts: 11, optim.lr",
        "VPT on digits: first point",
    ),
    "name": (
        "name: two",
        "name: Two-Sets",
        "name must be 1 to 56 of a-z, 0-9 and _, got 'Two-Sets' (FILE, line 1)",
    ),
    "nothing": (
        TEXT,
        "",
        "must be a mapping with keys name",
    ),
    "rows as a list": (
        "groups: {grey: [digits], colour: [My Folder, dtd]}\n",
        "groups: [digits]\n",
        "groups must be a mapping",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_sentence_with_its_place(load: Callable[..., Suite], case: str) -> None:
    old, new, sentence = BAD[case]
    with pytest.raises(ConfigError) as caught:
        load((old, new))
    text = str(caught.value)
    for part in sentence.split("FILE"):
        assert part in text
    assert "\n" not in text and len(text) < 900


def test_a_name_that_is_neither_file_nor_suite_is_told() -> None:
    with pytest.raises(ConfigError, match="no suite 'minni'; closest name: 'mini'"):
        load_suite("minni")


@cache
def shipped(name: str) -> Suite:
    return load_suite(name, data=Path("/data"))


@pytest.mark.parametrize("name", SUITES.names())
def test_shipped_suites_can_be_searched_without_their_data(name: str) -> None:
    """Every trial at every corner of every cell is one that can be trained."""
    assert is_suite(name)
    suite = shipped(name)
    assert suite.name == name and len(suite.cells) == len(suite.methods) * len(suite.datasets)
    assert len({one.name for one in suite.cells}) == len(suite.cells)
    assert suite.confirm.seeds >= 3
    assert suite.unequal() == ""
    for one in suite.cells:
        root = one.space.base.get("data.root")
        assert root is None or Path(root).is_relative_to("/data")
        assert one.space.budget == suite.budget and one.space.scheduler.name == "none"


def test_the_shipped_suites_are_those_that_papers_have() -> None:
    assert set(SUITES.names()) == {"fgvc", "hta", "mini", "vtab1k"}
    vtab = shipped("vtab1k")
    assert [len(sets) for sets in vtab.groups.values()] == [7, 4, 8]
    assert len(shipped("hta").datasets) == 10 and len(shipped("fgvc").datasets) == 5
    mini = shipped("mini")
    assert len(mini.methods) >= 6 and len(mini.datasets) >= 4 and mini.confirm.seeds == 3
