"""The table of a bench, whole and in parts: numbers by hand and by scipy, and what is missing."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from reports.bench.cells import look
from reports.bench.columns import BENCH_COLUMNS
from reports.bench.shown import main_table
from reports.bench.tables import MEAN_OF_DATA_SETS, MEAN_OF_GROUPS, TAUS, BenchTables
from reports.build_bench import load_bench, write_tables
from spaces.bench_cells import Bench, Cell
from tests.reports.benches import (
    SEEDS,
    describe,
    write_bench,
    write_confirmation,
    write_search,
)
from tests.reports.studies import SPACE, cell, final, planned, write

HOSTILE = "<img src=x onerror=alert(1)> & $x_1$"
METHODS = {"linear": 0.0, "vfpt + tcpa": 0.09, HOSTILE: 0.05, "late": 0.02}
SETS = ("digits", "dtd", "svhn", "pets", "kitti", "eurosat")
GROUPS = {"natural": ("digits", "dtd", "svhn", "pets"), "structured": ("kitti", "eurosat")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], BenchTables]:
    """Four methods on six data sets; one method has begun on a single one, one cell is a gap."""
    root = tmp_path_factory.mktemp("bench")
    gaps = [("late", name) for name in SETS[1:]] + [(HOSTILE, "eurosat")]
    tables = load_bench(write_bench(root, METHODS, SETS, gaps=gaps, groups=GROUPS))
    return root, write_tables(tables, root), tables


def values(tables: BenchTables, method: str, dataset: str, metric: str = "test") -> list[float]:
    seeds = tables.of("seeds", "vit_b", metric)
    rows = seeds[(seeds["method"] == method) & (seeds["dataset"] == dataset)]
    return list(rows["value"])


def test_a_cell_has_the_fresh_seeds_of_the_point_selected_on_val(built: Any) -> None:
    root, _, tables = built
    cells = tables.frames["cells"].set_index(["method", "dataset"])
    row = cells.loc["vfpt + tcpa", "dtd"]
    assert row["n"] == len(SEEDS) and row["is_fresh"] and row["missing"] == ""
    found = values(tables, "vfpt + tcpa", "dtd")
    assert row["test"] == pytest.approx(np.mean(found))
    low, high = stats.t.interval(0.95, 2, np.mean(found), stats.sem(found))
    assert (row["test_low"], row["test_high"]) == pytest.approx((low, high))
    assert row["val"] == pytest.approx(row["test"] - 0.01)
    assert row["setting"] == "point 1: lr 0.02" and row["score"] == "accuracy"
    # eight trials of the search and six of the confirmation
    assert (row["trials"], row["epochs"], row["cost_s"]) == (14, 28, 8 * 5 + 6 * 20)
    assert row["train_s"] == 20 and row["num_trainable_no_head"] == 2000
    assert set(tables.frames) == set(BENCH_COLUMNS)
    for name, columns in BENCH_COLUMNS.items():
        schema = pq.read_schema(root / "tables" / f"{name}.parquet")
        assert schema.names == [column.name for column in columns]
        assert all(schema.field(one).metadata[b"meaning"] for one in schema.names)


def test_over_data_sets_only_those_count_that_all_compared_methods_have(built: Any) -> None:
    *_, tables = built
    rows = tables.of("methods", "vit_b", "test").set_index("method")
    compared, whole = list(METHODS)[:3], SETS[:5]
    assert (rows.loc[compared, "n"] == 5).all() and rows.loc["late", "n"] == 0
    assert (rows.loc[compared, "left_out"] == "eurosat").all()
    means = np.array([[np.mean(values(tables, m, d)) for d in whole] for m in compared])
    assert list(rows.loc[compared, "mean"]) == pytest.approx(list(means.mean(axis=1)))
    ranks = stats.rankdata(-means, axis=0).mean(axis=1)
    assert list(rows.loc[compared, "mean_rank"]) == pytest.approx(list(ranks))
    friedman = stats.friedmanchisquare(*means)
    assert rows.loc["linear", "friedman_p"] == pytest.approx(friedman.pvalue)
    assert friedman.statistic == 10, "the same order everywhere"
    assert rows.loc["linear", "iman_davenport_p"] == 0
    q = stats.studentized_range.ppf(0.95, 3, np.inf) / np.sqrt(2)
    expected = q * np.sqrt(3 * 4 / (6 * 5))
    assert rows.loc["linear", "critical_difference"] == pytest.approx(expected)
    pooled = np.sort(np.concatenate([values(tables, "linear", d) for d in whole]))
    cut = len(pooled) // 4
    assert rows.loc["linear", "iqm"] == pytest.approx(pooled[cut:-cut].mean())
    assert rows.loc["linear", "is_baseline"] and not rows.loc["vfpt + tcpa", "is_baseline"]
    difference = np.mean([np.subtract(values(tables, "vfpt + tcpa", d), values(tables, "linear", d))
                          for d in whole])  # fmt: skip
    row = rows.loc["vfpt + tcpa"]
    assert row["diff"] == pytest.approx(difference)
    assert row["seeds_low"] < row["diff"] < row["seeds_high"] and pd.isna(row["diff_low"])
    assert list(rows.loc[compared, "on_parameter_front"]) == [True, True, False]
    assert any("too few" in note and "late (1 of 6)" in note for note in tables.notes)
    assert any("leave out eurosat" in note for note in tables.notes)


def test_group_means_by_both_definitions(built: Any) -> None:
    *_, tables = built
    groups = tables.of("groups", "vit_b", "test").set_index(["method", "group"])
    means = {d: np.mean(values(tables, "linear", d)) for d in SETS}
    natural = np.mean([means[d] for d in GROUPS["natural"]])
    structured = np.mean([means[d] for d in GROUPS["structured"]])
    assert groups.loc[("linear", "natural"), "mean"] == pytest.approx(natural)
    assert groups.loc[("linear", MEAN_OF_GROUPS), "mean"] == pytest.approx(
        (natural + structured) / 2
    )
    of_sets = groups.loc[("linear", MEAN_OF_DATA_SETS)]
    assert of_sets["mean"] == pytest.approx(np.mean([*means.values()])) and of_sets["n"] == 6
    gap = groups.loc[(HOSTILE, "structured")]
    assert pd.isna(gap["mean"]) and gap["missing"] == "eurosat"
    assert pd.isna(groups.loc[(HOSTILE, MEAN_OF_GROUPS), "mean"])
    assert groups.loc[(HOSTILE, "natural"), "missing"] == ""


def test_pairs_and_profiles(built: Any) -> None:
    *_, tables = built
    wins = tables.of("wins", "vit_b", "test").set_index(["method", "other"])
    row = wins.loc[(HOSTILE, "linear")]
    assert (row["n"], row["left_out"]) == (5, "eurosat")
    assert row["wins"] + row["ties"] + row["losses"] == 5 == row["ahead"] + row["behind"]
    u = [stats.mannwhitneyu(values(tables, HOSTILE, d), values(tables, "linear", d)).statistic / 9
         for d in SETS[:5]]  # fmt: skip
    assert row["improvement"] == pytest.approx(np.mean(u))
    assert wins.loc[("vfpt + tcpa", "linear"), "n"] == 6
    profiles = tables.of("profiles", "vit_b", "test")
    one = profiles[profiles["method"] == "linear"].assign(tau=TAUS.round(2)).set_index("tau")
    pooled = np.concatenate([values(tables, "linear", d) for d in SETS[:5]])
    assert one.loc[0.6, "share"] == pytest.approx((pooled > 0.6).mean())


def test_the_expected_best_is_of_the_searches(built: Any) -> None:
    root, _, tables = built
    rows = tables.frames["expected_best"]
    one = rows[(rows["method"] == "linear") & (rows["dataset"] == "svhn")]
    journal = (root / "vit_b_0_2" / "journal.jsonl").read_text()
    found = [float(v) for v in re.findall(r'"val_accuracy": ?([0-9.]+)', journal)]
    assert len(found) == 8 and one["value"].iloc[-1] == pytest.approx(max(found))
    assert one["value"].iloc[0] == pytest.approx(np.mean(found)), "the one stopped early counts"
    whole = rows[rows["dataset"] == ""]
    assert set(whole["method"]) == set(METHODS) and len(whole) == 8 * 4


def test_what_is_missing_is_said_and_names_stay_text(built: Any) -> None:
    root, lines, _ = built
    assert lines[0] == "18 of 24 cells of small are whole."
    assert "vfpt + tcpa has the highest mean on test" in lines[1]
    page, markdown, latex = (
        (root / name).read_text() for name in ("report.html", "bench.md", "bench.tex")
    )
    gap = "late on dtd, svhn, pets, kitti, eurosat: not started"
    assert gap in page and gap in markdown and gap in latex
    assert "<img src=x" not in page.replace('<img src="data:', "")
    assert "&lt;img src=x onerror" in page and r"\<img src=x onerror" in markdown
    assert r"$<$img src=x onerror=alert(1)$>$ \& \$x\_1\$" in latex
    assert "Content-Security-Policy" in page and not re.search(r"(src|href)=\"https?:", page)
    assert r"\multicolumn{5}{c}{natural}" in latex, "four data sets and their mean"
    for name in ("bench_ranks", "bench_profiles", "bench_expected_best", "bench_pareto"):
        assert (root / "figures" / f"{name}.svg").is_file()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed")
def test_the_table_is_latex(built: Any, tmp_path: Path) -> None:
    import subprocess

    body = (built[0] / "bench.tex").read_text()
    text = rf"""\documentclass{{article}}\usepackage{{booktabs,graphicx,xcolor}}
\begin{{document}}{body}\end{{document}}"""
    (tmp_path / "t.tex").write_text(text)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_main_table_marks_the_best_of_each_column(built: Any) -> None:
    *_, tables = built
    table = main_table(tables, "vit_b", "test")
    heads = [head.name for head in table.heads]
    assert heads == ["digits", "dtd", "svhn", "pets", "mean", "kitti", "eurosat", "mean", "mean",
                     MEAN_OF_GROUPS, "Δ", "rank", "parameters", "time"]  # fmt: skip
    column = [row[0] for row in table.places]
    means = [np.mean(values(tables, method, "digits")) for method in METHODS]
    assert column[int(np.argmax(means))] == 1 and sorted(column) == [0, 0, 1, 2]
    assert table.cells[3][1] == "-" and table.cells[0][10] == "baseline"


def one(root: Path, **more: Any) -> Cell:
    """A cell whose search has ended; its confirmation is another matter."""
    search = write_search(root / "cell", "vpt", "digits", [0.6, 0.7, 0.5], **more)
    return Cell("VPT", "digits", "vit_b", search, root / "cell_confirm")


def test_every_state_of_a_cell_is_told(tmp_path: Path) -> None:
    assert look(Cell("VPT", "digits", "b", tmp_path / "none")).missing == "not started"
    running = look(one(tmp_path / "a", is_finished=False))
    assert running.missing == "search has not ended: 3 of 3 trials" and running.about["trials"] == 3
    open_ = one(tmp_path / "b")
    assert look(open_).missing == (
        "not confirmed on fresh seeds yet (search: val_accuracy 0.7000, optimistic)"
    )
    assert look(open_).searched == [0.6, 0.7, 0.5] and not look(open_).values
    fresh = {1: 0.5, 2: 0.6}
    assert open_.confirmation is not None
    write_confirmation(open_.confirmation, open_.study, "vpt", "digits", fresh, is_finished=False)
    assert look(open_).missing == "confirmation has not ended: 4 of 4 trials"
    other = one(tmp_path / "c")
    assert other.confirmation is not None
    write_confirmation(other.confirmation, other.study, "vpt", "digits", fresh)
    assert look(other).values["test"] == fresh and look(other, 3).missing == "2 of 3 seeds"
    describe(other.study, id="made anew")
    assert look(other).missing == "cell_confirm confirms another search"
    (other.study / "journal.jsonl").write_bytes(b"no journal\n" * 3)
    assert look(other).missing.startswith("cannot be read: ")


def test_a_cell_without_a_confirmation_has_the_seeds_of_its_search(tmp_path: Path) -> None:
    search = write_search(tmp_path / "s", "vpt", "digits", [0.6, 0.7, 0.5])
    bench = Bench("plain", (Cell("VPT", "digits", "b", search),))
    tables = load_bench(bench)
    (cell_,) = tables.found
    assert cell_.values == {"test": {}, "val": {0: 0.7}} and not cell_.is_fresh
    assert cell_.missing == "its test split was not read"
    assert tables.metrics("b") == ["val"]
    assert any("optimistic on val" in note for note in tables.notes)


def test_a_segmentation_has_its_own_score(tmp_path: Path) -> None:
    """A confirmation has no base: which task it is, its rows say."""
    place = one(tmp_path)
    objective = {"metric": "val_miou", "goal": "maximize"}
    base = {"task.name": "segment", "data.name": "segfolder"}
    events: list[dict[str, Any]] = []
    for number, (value, accuracy) in enumerate(((0.5, 0.7), (0.4, 0.9))):
        params = {"task__name": "segment", "optim__lr": 0.01 * (number + 1)}
        at = [cell("components", f"point {number + 1}", number, number == 0)]
        events.append(planned(number, cells=at, data__name="segfolder", **params))
        events.append(final(number, "completed", accuracy, val_miou=value,
                            test_miou=None if number else 0.45))  # fmt: skip
    events.append({"kind": "finished"})
    search, rows = tmp_path / "search", {"point 1": dict(base), "point 2": dict(base)}
    write(search, events, space={**SPACE, "base": base, "objective": objective})
    assert place.confirmation is not None
    design = {"design": "components", "rows": rows, "seeds": [0], "test": "winner"}
    write(place.confirmation, events, "ablation",
          {"name": "c", "objective": objective, "ablation": design})  # fmt: skip
    for found in (look(Cell("VPT", "camvid", "b", search)),
                  look(Cell("VPT", "camvid", "b", search, place.confirmation))):  # fmt: skip
        assert found.missing == "", found.missing
        assert found.score == "mIoU" and found.values == {"test": {0: 0.45}, "val": {0: 0.5}}
        assert found.searched == [0.5, 0.4] and found.objective == ("val_miou", 1)
        tables = load_bench(Bench("seg", (found.cell,)))
        assert main_table(tables, "b", "test").cells[0][0] == "45.00 (one seed)"


def test_what_other_studies_had_trained_is_no_cost_of_the_cell(tmp_path: Path) -> None:
    taken = {"kind": "reused", "trial": "00000", "study": "old", "study_id": "id-1",
             "source": "00003", "checkpoint": "absent"}  # fmt: skip
    events = [
        planned(0), taken, final(0, "completed", 0.6, duration_s=50.0),
        planned(1, optim__lr=0.05), final(1, "completed", 0.7, duration_s=5.0),
        {"kind": "finished"},
    ]  # fmt: skip
    found = look(Cell("VPT", "digits", "b", write(tmp_path / "s", events, space=SPACE)))
    costs = {name: found.about[name] for name in ("trials", "reused", "epochs", "cost_s")}
    assert costs == {"trials": 1, "reused": 1, "epochs": 2, "cost_s": 5.0}
    assert found.searched == [0.6, 0.7], "what was found counts, whoever trained it"


def test_a_seed_that_failed_is_named(tmp_path: Path) -> None:
    place = one(tmp_path)
    events: list[dict[str, Any]] = []
    for number, status in enumerate(("completed", "failed", "completed")):
        at = [cell("components", "point 1", 0, True)]
        events.append(planned(number, seed=number + 1, cells=at))
        done = status == "completed"
        more = {"test_accuracy": 0.6} if done else {"reason": "the loss is nan"}
        events.append(final(number, status, 0.7 if done else None, **more))
    assert place.confirmation is not None
    write(place.confirmation, [*events, {"kind": "finished"}], "ablation",
          {"name": "c", "ablation": {"design": "components", "seeds": [1, 2, 3]}})  # fmt: skip
    found = look(place, 3)
    assert found.missing == "2 of 3 seeds: seed 2 the loss is nan"
    assert found.values["test"] == {1: 0.6, 3: 0.6}
    table = main_table(load_bench(Bench("b", (place,), num_seeds=3)), "vit_b", "test")
    assert table.cells[0][0] == "60.00 (all equal) ‡"


def test_a_method_more_changes_no_other_cell(tmp_path: Path) -> None:
    sets = ("digits", "dtd")
    write_bench(tmp_path, {"a": 0.0, "b": 0.05}, sets)
    cells = [Cell(m, d, "vit_b", tmp_path / f"vit_b_{i}_{k}", tmp_path / f"vit_b_{i}_{k}_confirm")
             for i, m in enumerate(("a", "b")) for k, d in enumerate(sets)]  # fmt: skip
    before = load_bench(Bench("small", tuple(cells)))
    gone = [Cell("c", d, "vit_b", tmp_path / f"c{d}", tmp_path / f"c{d}_confirm") for d in sets]
    after = load_bench(Bench("small", (*cells, *gone)))
    first = before.frames["cells"]
    pd.testing.assert_frame_equal(first, after.frames["cells"].iloc[: len(first)])
    rows = [one.of("methods", "vit_b", "test").set_index("method")["mean_rank"]
            for one in (before, after)]  # fmt: skip
    assert list(rows[0]) == [2.0, 1.0] == list(rows[1][:2]), "a row without a value ranks nowhere"
    table = main_table(after, "vit_b", "test")
    assert table.names == ("a", "b", "c") and set(table.cells[2]) == {"-"}
    write_tables(after, tmp_path / "written")
    for name in ("report.html", "bench.md", "bench.tex"):
        text = (tmp_path / "written" / name).read_text()
        assert not re.search(r"\bnan\b|<NA>", re.sub(r"base64,[^\"]+", "", text)), name


def test_published_numbers_stand_below_where_all_cells_agree(tmp_path: Path) -> None:
    as_published = {
        "backbone__name": "vit_base_patch16_224.augreg_in21k", "data__root": "/sets/vtab/dtd",
        "data__train_on": "train_and_val", "train__selection": "last_epoch",
    }  # fmt: skip
    cells = []
    for name, more in (("a", {}), ("b", {"train__selection": "best_val"})):
        search = write_search(tmp_path / name, "vpt", "vtab1k", [0.6, 0.7, 0.5])
        confirm = tmp_path / f"{name}_confirm"
        write_confirmation(confirm, search, "vpt", "vtab1k", {1: 0.61, 2: 0.62},
                           **{**as_published, **more})  # fmt: skip
        cells.append(Cell(name, "dtd", "b16", search, confirm))
    alone = load_bench(Bench("p", tuple(cells[:1])))
    published = alone.frames["published"].set_index("method")["value"]
    assert dict(published) == {"full": 0.643, "linear": 0.632, "vpt": 0.658}
    table = main_table(alone, "b16", "test")
    names = [label.split(" (")[0] for label, _ in table.published]
    assert names == ["linear", "vpt", "full"] or set(names) == {"linear", "vpt", "full"}
    assert {row[0] for _, row in table.published} == {"64.30", "63.20", "65.80"}
    assert any("not shown beside ours" in note for note in alone.notes)
    both = load_bench(Bench("p", tuple(cells)))
    assert both.frames["published"].empty, "the other cell selects its epoch otherwise"


def test_what_cells_of_a_column_do_not_share_is_said(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, {"a": 0.0, "b": 0.05}, ("digits",))
    describe(bench.cells[1].study, fingerprints={"data": "of other pictures"})
    write(tmp_path / "short", [planned(0), final(0, "completed", 0.5), {"kind": "finished"}],
          space=SPACE)  # fmt: skip
    cells = (*bench.cells, Cell("c", "digits", "vit_b", tmp_path / "short"))
    notes = " ".join(load_bench(Bench("small", cells)).notes)
    assert "digits: cells differ in the fingerprint of their data (a: print of di" in notes
    assert "unequal numbers of points (a 8, b 8, c 1)" in notes


def test_backbones_have_a_table_each(tmp_path: Path) -> None:
    bench = write_bench(tmp_path, {"a": 0.0, "b": 0.05}, ("digits",), backbones=("vit", "dino"))
    tables = load_bench(bench)
    assert tables.backbones == ["vit", "dino"]
    assert list(tables.of("methods", "dino", "test")["method"]) == ["a", "b"]
    text = json.dumps([main_table(tables, name, "test").title for name in tables.backbones])
    assert text == '["vit, test", "dino, test"]'
