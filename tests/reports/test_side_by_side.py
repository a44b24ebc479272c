"""Several studies in one table: on the same data by seeds, across data by ranks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from reports.build_side_by_side import build_side_by_side
from reports.frames import Frames, load
from reports.side_by_side import SideBySide, side_by_side
from tcpa_core.errors import StudyError
from tests.reports.studies import SPACE, components, final, planned, write

NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)


def searched(
    folder: Path, methods: Mapping[str, Mapping[int, float]], data: str = "digits"
) -> Frames:
    """A search in which each method has a best point over seeds, and a worse one."""
    events: list[dict[str, Any]] = []
    number = 0
    for method, seeds in methods.items():
        for lr, less in ((0.01, 0.0), (0.02, 0.3)):
            for seed, accuracy in seeds.items():
                events.append(
                    planned(
                        number,
                        seed=seed,
                        methods=[method],
                        optim__lr=lr,
                        data__name=data,
                        vpt__num_prompts=5,
                    )
                )
                events.append(final(number, "completed", accuracy - less))
                number += 1
    seeds = sorted({seed for found in methods.values() for seed in found})
    axes = {**SPACE["axes"], "vpt.num_prompts": {"choice": [5, 10]}}  # type: ignore[dict-item]
    space = {
        **SPACE,
        "axes": axes,
        "base": {"data.name": data},
        "seeds": seeds,
        "budget": {"trials": number},
    }
    study = write(folder, events, space=space)
    describe(study, fingerprints={"data": f"print of {data}"})
    return load(study)


def describe(study: Path, **more: Any) -> None:
    """Say more in a study's description."""
    path = study / "study.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **more}))


def val(found: SideBySide) -> dict[str, Any]:
    """Rows on val by level."""
    rows = found.levels[found.levels["metric"] == "val_accuracy"]
    return {row["level"]: row for row in rows.to_dict("records")}


A = {0: 0.80, 1: 0.82, 2: 0.81}
B = {0: 0.85, 1: 0.86, 2: 0.88}


def test_best_points_on_the_same_data_are_compared_by_the_seeds_they_share(tmp_path: Path) -> None:
    found = side_by_side(
        [searched(tmp_path / "a", {"vpt": A}), searched(tmp_path / "b", {"tcpa": B})]
    )
    rows = val(found)
    assert list(rows) == ["vpt", "tcpa"] and rows["vpt"]["is_baseline"]
    assert rows["tcpa"]["mean"] == pytest.approx(sum(B.values()) / 3)
    expected = stats.ttest_rel(list(B.values()), list(A.values()))
    assert rows["tcpa"]["p"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (rows["tcpa"]["diff_low"], rows["tcpa"]["diff_high"]) == pytest.approx((low, high))
    assert rows["tcpa"]["trials"] == '["b/00000", "b/00001", "b/00002"]'
    assert found.ranks.empty, "one data set"
    assert [entry.setting for entry in found.entries] == [
        "vpt, lr 0.01, 5 prompts",
        "tcpa, lr 0.01, 5 prompts",
    ]


def test_a_method_that_two_studies_have_bears_their_names(tmp_path: Path) -> None:
    found = side_by_side(
        [searched(tmp_path / "a", {"vpt": A, "linear": A}), searched(tmp_path / "b", {"vpt": B})]
    )
    assert list(val(found)) == ["vpt (a)", "linear", "vpt (b)"]


def test_means_are_over_the_seeds_that_a_study_has(tmp_path: Path) -> None:
    """Its own report says the same; another study's seeds move nothing."""
    alone = {5: 0.9}
    found = side_by_side(
        [searched(tmp_path / "a", {"vpt": A}), searched(tmp_path / "b", {"tcpa": alone})]
    )
    row = val(found)["tcpa"]
    assert row["mean"] == 0.9 and row["n_paired"] == 0
    assert any("tcpa on digits has no seed in common" in note for note in found.notes)
    assert any("n = 1" in note for note in found.notes)


def test_rows_of_a_design_stand_beside_points_of_a_search(tmp_path: Path) -> None:
    design = write(tmp_path / "b", components({"VPT": A, "+R": B}), kind="ablation")
    describe(design, fingerprints={"data": "print of digits"})
    first = searched(tmp_path / "a", {"vpt": A})
    rows = val(side_by_side([first, load(design)]))
    assert list(rows) == ["vpt", "VPT", "+R"]
    assert [row["is_baseline"] for row in rows.values()] == [True, False, False]
    rows = val(side_by_side([load(design), first]))
    assert [level for level, row in rows.items() if row["is_baseline"]] == ["VPT"]


def test_other_data_are_compared_by_ranks(tmp_path: Path) -> None:
    sets = [searched(tmp_path / name, {"vpt": A, "tcpa": B, "linear": {0: 0.5}}, data=name)
            for name in ("one", "two", "three")]  # fmt: skip
    found = side_by_side(sets)
    ranks = found.ranks[found.ranks["metric"] == "val_accuracy"].set_index("level")["mean_rank"]
    assert dict(ranks) == {"tcpa": 1.0, "vpt": 2.0, "linear": 3.0}
    assert list(found.across[0].table) == ["one", "two", "three"]


def test_across_data_a_level_counts_once_with_its_better_study(tmp_path: Path) -> None:
    found = side_by_side([
        searched(tmp_path / "a", {"vpt": A, "tcpa": A}, data="one"),
        searched(tmp_path / "b", {"vpt": B}, data="one"),
        searched(tmp_path / "c", {"vpt": A, "tcpa": B}, data="two"),
    ])  # fmt: skip
    table = found.across[0].table
    assert table.loc["vpt", "one"] == pytest.approx(sum(B.values()) / 3)
    assert "vpt (b)" in val(found) and list(table.index) == ["vpt", "tcpa"]


def test_data_of_one_name_and_other_pictures_are_two_data_sets(tmp_path: Path) -> None:
    first, second = searched(tmp_path / "a", {"vpt": A}), searched(tmp_path / "b", {"vpt": B})
    assert {entry.dataset for entry in side_by_side([first, second]).entries} == {"digits"}
    describe(tmp_path / "b", fingerprints={"data": "0123456789"})
    names = {entry.dataset for entry in side_by_side([first, load(tmp_path / "b")]).entries}
    assert names == {"digits (print of)", "digits (01234567)"}


def test_what_the_studies_do_not_share_is_told(tmp_path: Path) -> None:
    first, second = searched(tmp_path / "a", {"vpt": A}), searched(tmp_path / "b", {"vpt": B})
    alike = side_by_side([first, second])
    assert alike.differing.empty and not any("is not told" in note for note in alike.notes)
    document = second.study.document
    base = {**document["space"]["base"], "train.epochs": 7}
    describe(tmp_path / "b", space={**document["space"], "base": base})
    table = side_by_side([first, load(tmp_path / "b")]).differing
    assert list(table.index) == ["train.epochs"]
    assert table.loc["train.epochs", "b"] == "7"


def test_what_cannot_stand_beside_others_is_refused(tmp_path: Path) -> None:
    first = searched(tmp_path / "a", {"vpt": A})
    with pytest.raises(StudyError, match=r"study 'a' is given 2 times"):
        side_by_side([first, first])
    empty = write(tmp_path / "none", [planned(0), final(0, "failed", reason="no memory")])
    with pytest.raises(StudyError, match=r"'none' has completed no trial.*'tcpa resume none'"):
        side_by_side([first, load(empty)])
    over = write(tmp_path / "over", [planned(0), final(0, "failed"), {"kind": "finished"}])
    with pytest.raises(StudyError, match=r"leave it out, 'tcpa status over' says why"):
        side_by_side([first, load(over)])


def test_the_leading_sentence_has_the_p_of_its_table(tmp_path: Path) -> None:
    """Of a p below 0.001 not "p = 0.001"."""
    rows = {"VPT": {s: 0.5 + NOISE[s] for s in range(5)}, "+R": {s: 0.9 for s in range(5)}}
    write(tmp_path / "a", components(rows), "ablation")
    searched(tmp_path / "b", {"vpt": {0: 0.4}})
    lines = build_side_by_side([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert any("+R has the highest mean" in line and "p < 0.001 after Holm" in line
               for line in lines)  # fmt: skip
    assert not any(line.startswith(":") for line in lines), "data without a name"
