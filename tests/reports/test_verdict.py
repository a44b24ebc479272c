"""The sentences of a verdict on studies whose truth is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from reports.frames import Frames, load
from reports.page.best import best, ended
from reports.verdict import Verdict, verdict_of
from tests.reports.studies import SPACE, components, final, over_datasets, planned, write

NOISE = (0.0, 0.004, -0.004, 0.002, -0.002)
"""By seed; settings differ from it by less, so that pairs have some spread."""
FINISHED = {"kind": "finished"}


def values(mean: float, *, seeds: int = 5, own: float = 0.001) -> list[float]:
    """Accuracies by seed around a mean."""
    return [mean + NOISE[s] + own * (-1) ** s for s in range(seeds)]


def search(
    folder: Path,
    points: Mapping[str, Sequence[float | None]],
    *,
    extra: Sequence[Mapping[str, Any]] = (),
    space: Mapping[str, Any] = SPACE,
    metric: str = "val_accuracy",
) -> Frames:
    """A search of methods, each with the accuracy (or loss) of every seed; None: it failed."""
    events: list[dict[str, Any]] = []
    number = 0
    for i, (method, found) in enumerate(points.items()):
        for seed, value in enumerate(found):
            events.append(planned(number, seed=seed, methods=[method], optim__lr=0.01 * (i + 1)))
            if value is None:
                events.append(final(number, "failed", reason="loss is nan"))
            elif metric == "val_accuracy":
                events.append(final(number, "completed", value))
            else:
                events.append(final(number, "completed", 0.5, **{metric: value}))
            number += 1
    seeds = max((len(found) for found in points.values()), default=1)
    whole = {**space, "seeds": list(range(seeds))}
    return load(write(folder, [*events, *(extra or [FINISHED])], space=whole))


def confirmation(
    folder: Path,
    rows: Mapping[str, Sequence[float]],
    *,
    race: bool = True,
    ended: bool = True,
) -> Frames:
    """Of the search s: rows are its points by method, the first is what it had selected."""
    events: list[dict[str, Any]] = []
    for i, (method, found) in enumerate(rows.items()):
        cell = {"factor": "components", "level": f"point {i + 1}", "order": i, "baseline": i == 0}
        for seed, value in enumerate(found, start=5):
            number, lr = len(events) // 2, {"vpt": 0.01, "tcpa": 0.02}[method]
            events.append(planned(number, seed=seed, cells=[cell], methods=[method], optim__lr=lr))
            events.append(final(number, "completed", value))
    number = len(events) // 2
    if not ended:
        events.append(planned(number, seed=99, cells=[], methods=["vpt"], optim__lr=0.01))
    settings = {"vpt": 0.01, "tcpa": 0.02}
    of_rows = {f"point {i + 1}": {"methods": [m], "optim.lr": settings[m]}
               for i, m in enumerate(rows)}  # fmt: skip
    seeds = list(range(5, 5 + max(map(len, rows.values()))))
    design = {"design": "components", "rows": of_rows, "seeds": seeds, "race": race,
              "test": "winner"}  # fmt: skip
    path = write(folder, [*events, *([FINISHED] if ended else [])], "ablation",
                 {"name": folder.name, "ablation": design})  # fmt: skip
    document = yaml.safe_load((path / "study.yaml").read_text())
    document["confirms"] = {"name": "s", "axes": ["methods", "optim.lr"]}
    (path / "study.yaml").write_text(yaml.safe_dump(document))
    return load(path)


def test_a_clear_winner_over_seeds(tmp_path: Path) -> None:
    said = verdict_of(search(tmp_path / "s", {"vpt": values(0.9), "tcpa": values(0.7, own=0.0)}))
    assert said.headline == (
        "vpt leads with 90.0 % on val: every other completed setting is significantly worse."
    )
    assert said.winner == "00000"
    assert said.sentences[0].startswith("Selected: vpt, lr 0.01 (trials 00000, 00001, ")
    assert "Next: tcpa, lr 0.02 with 70.0 %; difference +20.0 [+19.9, +20.2] points" in said.text
    assert "p < 0.001." in said.text and "could have seen: 0.2 points." in said.text


def test_a_lead_that_is_not_shown(tmp_path: Path) -> None:
    near = [0.905, 0.895, 0.885, 0.915, 0.9]
    said = verdict_of(search(tmp_path / "s", {"vpt": values(0.901), "tcpa": near}))
    assert said.headline == (
        "vpt leads with 90.1 % on val, but its lead over the next setting is not shown."
    )
    assert said.winner is None and "Not confirmed yet: tcpa confirm s." in said.sentences


def test_no_confirmation_is_advised_that_would_be_refused(tmp_path: Path) -> None:
    space = {**SPACE, "scheduler": {"name": "pbt"}}
    said = verdict_of(search(tmp_path / "s", {"vpt": [0.9], "tcpa": [0.8]}, space=space))
    assert "tcpa confirm" not in said.text and "search with a fresh seed" in said.text


def test_a_tie(tmp_path: Path) -> None:
    found = search(tmp_path / "s", {"vpt": values(0.9), "linear": values(0.9)})
    assert [row["name"] for row in best(found)["rows"]] == ["vpt", "linear"], "as selected"
    said = verdict_of(found)
    assert said.headline == "vpt and linear tie at 90.0 % on val." and said.winner is None
    assert "the same on every seed, so without an interval" in said.text


def test_one_seed_is_too_few(tmp_path: Path) -> None:
    said = verdict_of(search(tmp_path / "s", {"vpt": [0.9], "tcpa": [0.5]}))
    assert "its lead over the next setting is not shown" in said.headline
    assert "difference +40.0 points on the one seed, so without an interval." in said.text
    assert "One seed shows too little spread to tell settings apart; 3 fresh seeds may." in (
        said.sentences
    )
    assert " p " not in said.text and "could have seen" not in said.text


def test_all_failed_and_nothing_yet(tmp_path: Path) -> None:
    failed = verdict_of(search(tmp_path / "f", {"vpt": [None, None], "tcpa": [None]}))
    assert failed.headline == "All 3 trials failed, so there is nothing to select."
    assert failed.sentences == ("3 trials failed: loss is nan.",) and failed.winner is None
    empty = verdict_of(search(tmp_path / "e", {}))
    assert (
        empty.headline == "No completed trial yet: none was planned, so there is nothing to select."
    )
    begun = load(write(tmp_path / "b", [planned(0), planned(1) | {"trial": "00001"}]))
    said = verdict_of(begun)
    assert said.headline == "No completed trial yet: 2 planned."
    nan = verdict_of(search(tmp_path / "n", {"vpt": [float("nan")]}))
    assert nan.headline == (
        "1 trial completed, none with a finite val_accuracy: there is nothing to select."
    )


def test_a_study_that_runs(tmp_path: Path) -> None:
    left = [planned(7, methods=["vpt"], optim__lr=0.5)]
    said = verdict_of(search(tmp_path / "s", {"vpt": [0.9], "tcpa": [0.5]}, extra=left))
    assert said.headline.startswith("vpt leads so far with 90.0 % on val")
    assert said.warnings[0] == (
        "The study has not finished: 1 of 3 trials have not ended; this can change."
    )


SEARCHED = {"vpt": [0.9], "tcpa": [0.88]}


def test_confirmed(tmp_path: Path) -> None:
    rows = {"vpt": values(0.85), "tcpa": values(0.75, own=0.0)}
    confirming = confirmation(tmp_path / "s_confirm", rows)
    said = verdict_of(search(tmp_path / "s", SEARCHED), confirming)
    assert said.headline == (
        "Confirmed: on fresh seeds point 1 (vpt, lr 0.01) wins with 85.0 ± 0.3 % on val."
    )
    assert said.winner == "point 1: vpt, lr 0.01"
    assert "Difference +10.0 [+9.9, +10.2] points over 5 seeds, p < 0.001" in said.text
    assert "point 1 wins: with 5 seeds, every other row is significantly worse." in said.text
    assert "Not confirmed yet" not in said.text and "90.0 % on val" in said.sentences[0]
    own = verdict_of(confirming)
    assert own.winner == said.winner
    assert own.sentences[0] == "This confirms what s selected."


def test_overturned_by_its_confirmation(tmp_path: Path) -> None:
    rows = {"vpt": values(0.75, own=0.0), "tcpa": values(0.85)}
    confirming = confirmation(tmp_path / "s_confirm", rows)
    said = verdict_of(search(tmp_path / "s", SEARCHED), confirming)
    assert said.headline == (
        "Overturned: on fresh seeds point 2 (tcpa, lr 0.02) wins with 85.0 ± 0.3 % on val; the "
        "search had selected point 1 (vpt, lr 0.01)."
    )
    own = verdict_of(confirming)
    assert own.headline == "point 2 (tcpa, lr 0.02) wins with 85.0 ± 0.3 % on val."
    assert own.sentences[0].startswith("This overturns the search: s had selected point 1")


@pytest.mark.parametrize("race", [True, False])
def test_a_confirmation_that_did_not_decide(race: bool, tmp_path: Path) -> None:
    rows = {"vpt": [0.8, 0.9, 0.85], "tcpa": [0.9, 0.8, 0.84]}
    confirming = confirmation(tmp_path / "s_confirm", rows, race=race)
    said = verdict_of(search(tmp_path / "s", SEARCHED), confirming)
    assert said.headline.startswith("Not confirmed: on fresh seeds point 1 (vpt, lr 0.01) leads")
    assert said.winner is None and "could have seen" in said.text
    assert "Not decided after 3 seeds: point 1, point 2 cannot be told apart" in said.text
    assert verdict_of(confirming).headline.startswith("Not decided: point 1 (vpt, lr 0.01) leads")


def test_a_confirmation_that_runs(tmp_path: Path) -> None:
    rows = {"vpt": values(0.9), "tcpa": values(0.7, own=0.0)}
    confirming = confirmation(tmp_path / "s_confirm", rows, ended=False)
    said = verdict_of(search(tmp_path / "s", SEARCHED), confirming)
    assert said.headline.endswith("it is being confirmed (s_confirm, 1 trial has not ended).")
    assert "wins" not in said.text + verdict_of(confirming).text, "more seeds may decide otherwise"
    assert said.winner is None


def test_the_search_went_on_after_its_confirmation(tmp_path: Path) -> None:
    rows = {"vpt": values(0.85), "tcpa": values(0.75, own=0.0)}
    confirming = confirmation(tmp_path / "s_confirm", rows)
    later = [planned(7, methods=["cvpt"], optim__lr=0.5), final(7, "completed", 0.95), FINISHED]
    said = verdict_of(search(tmp_path / "s", SEARCHED, extra=later), confirming)
    assert "the search has selected another setting since" in said.headline and not said.winner


LOSS = {**SPACE, "objective": {"metric": "val_loss", "goal": "minimize"}}


def test_a_loss_is_said_in_its_own_unit(tmp_path: Path) -> None:
    points = {"vpt": [0.5, 0.51, 0.52], "tcpa": [0.4, 0.5, 0.45]}
    said = verdict_of(search(tmp_path / "s", points, space=LOSS, metric="val_loss"))
    assert said.headline.startswith("tcpa leads with val_loss 0.45 nat, but its lead")
    assert "with 0.51 nat; difference −0.06 [" in said.text and " nat over 3 seeds" in said.text
    assert "%" not in said.text and "points" not in said.text


def test_several_objectives(tmp_path: Path) -> None:
    objectives = [SPACE["objective"], {"metric": "num_trainable", "goal": "minimize"}]
    found = search(tmp_path / "s", SEARCHED, space={**SPACE, "objective": objectives})
    assert (
        "Of the objectives val_accuracy and num_trainable the first one selects; 1 of 2 completed "
        "trials are on the Pareto front of val_accuracy and num_trainable."
    ) in verdict_of(found).sentences


def test_methods_that_were_hardly_trained(tmp_path: Path) -> None:
    left: list[dict[str, Any]] = []
    for n in range(10, 20):
        method = ["vpt", "tcpa", "cvpt"][n % 3]
        left += [planned(n, methods=[method], optim__lr=0.1 * n), final(n, "pruned", 0.3)]
    found = search(tmp_path / "s", {"vpt": [0.9], "tcpa": [0.5]}, extra=[*left, FINISHED])
    assert verdict_of(found).warnings == (
        "3 of 3 methods were never trained to the end more than once: 10 of 12 trials were "
        "stopped early.",
    )


TABLE = {"VPT": [0.80, 0.82, 0.81], "+R": [0.83, 0.80, 0.84], "+R+T": [0.82, 0.85, 0.86]}


def ablation(folder: Path, table: Mapping[str, Sequence[float]]) -> Verdict:
    """Of rows by seed, the first of which is the baseline."""
    rows = {level: dict(enumerate(found)) for level, found in table.items()}
    return verdict_of(load(write(folder, [*components(rows), FINISHED], "ablation")))


def test_an_ablation_that_shows_nothing(tmp_path: Path) -> None:
    """The highest mean is not called the best one."""
    said = ablation(tmp_path / "a", TABLE)
    assert said.headline == "No difference to VPT is shown."
    assert said.sentences[0] == (
        "The largest difference, +R+T to VPT, is +3.3 [−0.5, +7.1] points over 3 seeds, p = 0.13: "
        "it may be none."
    )
    assert said.sentences[1] == (
        "This design sees differences of 5.0 to 9.4 points (one test at 5 %, with 80 % power)."
    )
    assert said.winner is None and "best" not in said.text


def test_an_ablation_with_a_difference(tmp_path: Path) -> None:
    table = {"VPT": values(0.8), "+R": values(0.9, own=0.002), "-H": values(0.7, own=0.0),
             "+T": [0.81, 0.79, 0.8, 0.82, 0.78]}  # fmt: skip
    said = ablation(tmp_path / "a", table)
    assert said.headline == (
        "Against VPT, +R is better by 10.0 points, -H is worse by 10.0 points; of 1 other level "
        "no difference is shown."
    )
    assert said.sentences[0] == (
        "+R: +10.0 [+9.9, +10.2] points over 5 seeds, p < 0.001 after Holm over 3 tests."
    )


def test_an_ablation_of_one_seed(tmp_path: Path) -> None:
    said = ablation(tmp_path / "a", {"VPT": [0.8], "+R": [0.9]})
    assert said.headline == (
        "One seed shows no spread, so no difference to VPT can be told from chance."
    )


def test_differences_that_do_not_vary(tmp_path: Path) -> None:
    said = ablation(tmp_path / "a", {"VPT": [0.5, 0.6, 0.7], "+R": [0.6, 0.7, 0.8]})
    assert said.headline.startswith("All differences to VPT are the same on every seed")


@pytest.mark.parametrize(
    ("gain", "headline"),
    [
        (0.02, "Over 8 data sets, against VPT, +R is better by 2.0 points."),
        (0.0, "Over 8 data sets no difference to VPT is shown."),
    ],
)
def test_an_ablation_over_data_sets(gain: float, headline: str, tmp_path: Path) -> None:
    sets = {
        f"d{i}": {
            "VPT": values(0.5 + 0.05 * i),
            "+R": values(0.5 + 0.05 * i + gain + 0.001 * (-1) ** i),
        }  # fmt: skip
        for i in range(8)
    }
    found = load(write(tmp_path / "d", [*over_datasets(sets), FINISHED], "ablation"))
    assert verdict_of(found).headline == headline


@pytest.mark.parametrize("other", [[0.5, 0.512, 0.501], None])
def test_a_setting_that_lacks_a_seed_is_not_taken_for_worse(
    other: list[float] | None, tmp_path: Path
) -> None:
    """Its trial failed, which says nothing of how good it is; the page ranks it behind."""
    points = {"vpt": [0.80, 0.81, 0.805], "tcpa": [0.95, 0.951, None]}
    found = search(tmp_path / "s", {**points, **({"linear": other} if other else {})})
    said = verdict_of(found)
    assert said.headline == (
        "vpt leads with 80.5 % on val, but not every other setting is shown to be worse."
    )
    assert said.winner is None
    assert (
        "Not shown to be worse: tcpa, lr 0.02 with 95.0 % (lacks seed 2); difference −14.5 ["
        in (said.text)
    )
    rows = [row for row in best(found)["rows"] if row["value"] is not None]
    assert rows[0]["name"] == "vpt" and rows[-1]["name"] == "tcpa"
    assert rows[-1]["lost"] == "1 failed, the best lacks seed 2" and not rows[0]["lost"]


def test_a_third_setting_that_is_not_shown_to_be_worse(tmp_path: Path) -> None:
    noisy = [0.95, 0.75, 0.6, 0.9, 0.76]
    points = {"vpt": values(0.9), "tcpa": values(0.8, own=0.0), "linear": noisy}
    said = verdict_of(search(tmp_path / "s", points))
    assert said.headline.endswith("but not every other setting is shown to be worse.")
    assert "Next: tcpa, lr 0.02 with 80.0 %; difference +10.0 " in said.text
    assert "Not shown to be worse: linear, lr 0.03 with 79.2 %; difference +10.8 [" in said.text


def test_no_setting_has_every_seed(tmp_path: Path) -> None:
    points = {"vpt": [0.80, None, 0.805], "tcpa": [0.75, 0.751, None]}
    said = verdict_of(search(tmp_path / "s", points))
    assert "(trial 00000), 80.0 % on val over 1 of 3 seeds." in said.sentences[0]
    assert said.sentences[1].startswith("No point has a value for all 3 seeds; ")


def test_what_completed_without_a_value_is_not_denied(tmp_path: Path) -> None:
    said = verdict_of(search(tmp_path / "s", {"vpt": [0.8], "tcpa": [float("nan")]}))
    assert said.headline == "vpt is the only setting that has a finite value: 80.0 % on val."


def test_a_name_in_any_script_is_told_as_it_is_written(tmp_path: Path) -> None:
    said = verdict_of(search(tmp_path / "s", {"提示": [0.9], 'é, "b"': [0.5]}))
    assert said.headline.startswith("提示 leads") and 'Next: é, "b", lr 0.02' in said.text


def test_reasons_that_differ_in_numbers_only_are_one(tmp_path: Path) -> None:
    events = []
    for n in range(3):
        events += [planned(n, optim__lr=n), final(n, "failed", reason=f"loss is nan at step {n}")]
    found = load(write(tmp_path / "s", [*events, FINISHED]))
    assert verdict_of(found).sentences == ("3 trials failed: loss is nan at step 0.",)
    assert ended(found) == ["3 trials failed: loss is nan at step 0."]


def test_few_data_sets_give_no_interval(tmp_path: Path) -> None:
    sets = {f"d{i}": {"VPT": values(0.5), "+R": values(0.52 + 0.01 * i)} for i in range(4)}
    said = verdict_of(load(write(tmp_path / "d", [*over_datasets(sets), FINISHED], "ablation")))
    assert "+R: +3.5 points, p = 0.12 by Wilcoxon's signed ranks after Holm." in said.sentences
