"""The table of published results: complete, in range, and consistent where it can be checked."""

import numpy as np
import pytest

from reports.reference import COLUMNS, load_reference
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
