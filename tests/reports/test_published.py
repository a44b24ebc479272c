"""The table of published results: complete, in range, and consistent where it can be checked."""

import numpy as np
import pytest

from reports.statistics.published import COLUMNS, load_reference
from tcpa_core import plugins
from tcpa_core.config import METHODS

NOT_OURS = {"DMLoRA"}


def test_rows_are_whole_and_said_once() -> None:
    frame = load_reference()
    assert tuple(frame.columns) == COLUMNS
    key = [c for c in COLUMNS if c not in ("value", "caveat", "protocol")]
    assert not frame.duplicated(key).any()
    assert (frame[[c for c in COLUMNS if c not in ("value", "caveat")]] != "").all().all()
    assert np.isfinite(frame["value"]).all()
    fractions = frame[frame["metric"] != "num_trainable_no_head"]["value"]
    assert fractions.between(0.3, 1).all()


def test_methods_are_chains_that_can_be_run() -> None:
    known = {*plugins.names(METHODS), *NOT_OURS}
    chains = {method.split()[0] for method in load_reference()["method"]}
    missing = {name for chain in chains for name in chain.split("+")} - known
    assert missing == set()


@pytest.mark.parametrize("method", sorted({*load_reference()["method"]}))
def test_means_of_the_ten_sets_are_those_printed(method: str) -> None:
    frame = load_reference()
    rows = frame[(frame["benchmark"] == "hta") & (frame["method"] == method)]
    by_set = rows.set_index("dataset")["value"]
    if "mean of 10" not in by_set:
        assert method not in ("full", "vpt", "vpt+tcpa")
        return
    cells = by_set.drop("mean of 10")
    assert len(cells) == 10
    assert cells.mean() == pytest.approx(by_set["mean of 10"], abs=0.0006)


def test_a_cell_of_each_source() -> None:
    frame = load_reference()
    cells = frame.set_index(["source", "benchmark", "dataset", "method", "metric"])["value"]
    tcpa, petl = "arXiv:2505.02406", "V-PETL README"
    assert cells[tcpa, "hta", "cub", "vfpt+tcpa", "accuracy"] == pytest.approx(0.895)
    assert cells[tcpa, "vtab1k", "mean of structured", "damvp+tcpa", "accuracy"] == 0.571
    assert cells[petl, "vtab1k", "mean of 19", "ssf", "num_trainable_no_head"] == 210_000


def test_cells_of_mixed_protocol_say_so() -> None:
    frame = load_reference()
    mixed = frame[frame["protocol"] == "mixed"]
    assert set(mixed["method"]) == {"full", "linear", "vpt"} and (mixed["caveat"] != "").all()
    assert set(mixed["dataset"]) == {"dtd", "cifar100", "svhn", "mean of 10"}


FROM_VPT = ("full", "linear", "partial", "mlp", "sidetune", "bias", "adapter", "vpt")
FINE_GRAINED = ("cub", "nabirds", "dogs", "flowers")


def protocols(source: str, table: str) -> dict[tuple[str, str], str]:
    """(data set, method) -> protocol of a source's accuracies."""
    frame = load_reference()
    rows = frame[(frame["source"] == source) & (frame["table"] == table)]
    rows = rows[rows["metric"] == "accuracy"]
    keys = zip(rows["dataset"], rows["method"], strict=True)
    return dict(zip(keys, rows["protocol"], strict=True))


def test_cells_taken_over_from_vpt_bear_its_protocol() -> None:
    """VPT's program has no best test epoch: its final runs report their last one."""
    cells = protocols("arXiv:2505.02406", "Table 1")
    copied = {(name, method) for name in FINE_GRAINED for method in FROM_VPT}
    assert {key for key, said in cells.items() if said == "last epoch"} == copied
    own = {key for key, said in cells.items() if said == "best test epoch"}
    assert {method for _, method in own if method.endswith("+tcpa")} == {
        "vp+tcpa", "vpt+tcpa", "damvp+tcpa", "autovp+tcpa", "vfpt+tcpa"
    }  # fmt: skip
    two = {key for key, said in cells.items() if said == "last epoch and best test epoch"}
    assert two == {("mean of 10", m) for m in FROM_VPT if m not in ("full", "linear", "vpt")}
    groups = protocols("arXiv:2505.02406", "Table 2")
    last = {method for (_, method), said in groups.items() if said == "last epoch"}
    assert last == {"full", "vpt"}
    assert set(groups.values()) == {"last epoch", "best test epoch"}


@pytest.mark.parametrize("table", ["VTAB-1k", "FGVC"])
def test_rows_of_the_benchmark_taken_over_from_vpt_do_too(table: str) -> None:
    cells = protocols("V-PETL README", table)
    last = {method for (_, method), said in cells.items() if said == "last epoch"}
    assert last == {"full", "linear", "adapter", "vpt", "vpt deep=false"}
    assert set(cells.values()) == {"last epoch", "best test epoch"}


def test_a_mean_that_nobody_printed_says_that_it_is_computed() -> None:
    frame = load_reference()
    computed = frame[frame["caveat"].str.contains("computed")]
    assert set(zip(computed["dataset"], computed["method"], strict=True)) == {
        ("mean of specialized", "cvpt")
    }
    rows = frame[frame["source"].str.startswith("CVPT review") & (frame["method"] == "cvpt")]
    by_set = rows[rows["benchmark"] == "vtab1k"].drop_duplicates("dataset").set_index("dataset")
    values = by_set["value"]
    rest = values["mean of natural"] + values["mean of structured"]
    assert 3 * values["mean of groups"] - rest == pytest.approx(values["mean of specialized"])


def test_what_has_to_agree_is_known_of_every_number() -> None:
    frame = load_reference()
    assert (frame[["backbone", "selection"]] != "").all().all()
    single = frame[~frame["dataset"].str.startswith("mean") & (frame["benchmark"] != "ade20k")]
    assert single["train_images"].notna().all() and (single["img_size"] == 224).all()
    small = single[single["train_images"] == 1000]
    assert set(small["dataset"]) == {"dtd", "cifar100", "svhn"}
    assert set(small["selection"]) == {"last epoch"}
    assert set(small["method"]) == {"full", "linear", "vpt"}
    assert frame[frame["dataset"].str.startswith("mean")]["train_images"].isna().all()
