"""What figures are made of, and when one is drawn again."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

import reports
from reports.draw import draw_all, figures_of, looks_same
from reports.frames import Frames
from reports.plots import cost, curves, factors, history, parallel, pareto, sweeps
from reports.plots.base import FORMATS, STYLE, WIDTH, course, new_figure, squeeze, styles_of
from tests.reports.studies import (
    SPACE,
    cell,
    components,
    epoch,
    final,
    over_datasets,
    planned,
    write,
)


def test_front_by_hand() -> None:
    cost = pd.Series([1.0, 2.0, 2.0, 3.0, np.nan])
    value = pd.Series([0.5, 0.7, 0.6, 0.65, 0.9])
    assert pareto.on_front(cost, value).tolist() == [True, True, False, False, False]
    assert pareto.on_front(cost, -value).tolist() == [True] + [False] * 4
    assert pareto.on_front(cost[:0], value[:0]).tolist() == []


def test_history_and_regret(tmp_path: Path) -> None:
    events = []
    for n, (status, value) in enumerate(
        [("completed", 0.6), ("pruned", 0.9), ("completed", 0.8), ("completed", 0.7)]
    ):
        events += [planned(n, optim__lr=0.1 + n), final(n, status, value)]
    data = history.prepare(reports.load(write(tmp_path / "h", events)))
    assert data["best"].tolist() == [0.6, 0.6, 0.8, 0.8], "a pruned trial is not the best"
    assert data["regret"].tolist() == pytest.approx([0.2, 0.2, 0, 0])


def test_history_is_of_points(tmp_path: Path) -> None:
    """Of three seeds each; one seed's luck is no best, nor is a point whose poor seed failed."""
    points: list[list[float | None]] = [[0.5, 0.6, 0.7], [0.9, 0.5, 0.55], [0.95, None, 0.9]]
    events = []
    for n, (point, seed) in enumerate((p, s) for p in range(3) for s in range(3)):
        value = points[point][seed]
        events += [planned(n, seed=seed, optim__lr=0.1 + point)]
        events += [final(n, "failed" if value is None else "completed", value)]
    data = history.prepare(reports.load(write(tmp_path / "p", events)))
    assert data["number"].tolist() == [0, 1, 2]
    assert data["value"].tolist() == pytest.approx([0.6, 0.65, 0.925])
    assert data["status"].tolist() == ["completed", "completed", "incomplete"]
    assert data["best"].tolist() == pytest.approx([0.6, 0.65, 0.65])


def test_sweep_and_curves(tmp_path: Path) -> None:
    events, number = [], 0
    for order, level in enumerate([1, 10, 100]):
        for seed in (0, 1):
            at = cell("cvpt.num_prompts", str(level), order, order == 0)
            accuracy = 0.5 + 0.1 * order + 0.02 * seed
            events += [planned(number, seed=seed, cells=[at], cvpt__num_prompts=level)]
            events += [epoch(number, 1, accuracy), final(number, "completed", accuracy)]
            number += 1
    found = reports.load(write(tmp_path / "s", events, "ablation"))
    data = sweeps.prepare(found)
    assert data["x"].tolist() == [1, 10, 100]
    assert data["mean"].tolist() == pytest.approx([0.51, 0.61, 0.71])
    (axes,) = sweeps.draw(data, found).axes  # type: ignore[union-attr]
    assert axes.get_xscale() == "log"
    assert list(axes.lines[-1].get_xdata()) == [200, 200], "the paper's best number of prompts"
    lines = curves.prepare(found)
    assert lines["group"].tolist() == ["1", "10", "100"]
    assert lines["mean"].tolist() == pytest.approx([0.51, 0.61, 0.71])


def test_a_figure_is_drawn_again_when_it_would_look_different(tmp_path: Path) -> None:
    data = pd.DataFrame({"x": [0.0, 1.0, np.nan], "name": ["a", "b", "c"], "n": [1, 2, 3]})
    path = tmp_path / "figure"
    assert not looks_same(data, path), "never drawn"
    data.to_parquet(path.with_suffix(".parquet"))
    assert not looks_same(data, path), "the files are gone"
    for kind in FORMATS:
        path.with_suffix(f".{kind}").touch()
    assert looks_same(data, path)
    assert looks_same(data.assign(x=[0.001, 1.0, np.nan]), path), "less than a dot"
    assert not looks_same(data.assign(x=[0.01, 1.0, np.nan]), path)
    assert not looks_same(data.assign(name=["a", "b", "d"]), path)
    assert not looks_same(data.head(2), path)
    data.attrs["drawn_by"] = 1
    assert not looks_same(data, path), "drawn by another version"
    data.to_parquet(path.with_suffix(".parquet"))
    assert looks_same(data, path)


def hunt(folder: Path, values: Sequence[float], *, finished: bool = True) -> Path:
    """A search of such objectives; its last trial may still run."""
    events = []
    for n, value in enumerate(values):
        events += [planned(n, optim__lr=0.01 * (n % 9 + 1), idle=n), epoch(n, 1, value)]
        events += [final(n, "completed", value, duration_s=1.0 + n % 5, flops_per_image=1e8)]
    if not finished:
        events += [planned(len(values)), epoch(len(values), 1, 0.1)]
    return write(folder, events)


VALUES = [0.5 + 0.001 * (n * 7 % 100) for n in range(300)]


def test_a_running_study_redraws_many_points_only_for_what_can_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.draw.DOTS", 100)
    monkeypatch.setattr("reports.draw.plugins.names", lambda package: ("history", "pareto"))
    monkeypatch.setattr("reports.draw.save", lambda figure, path: drawn.append(path.name))
    drawn: list[str] = []

    def again(name: str, values: Sequence[float], finished: bool = False) -> set[str]:
        drawn.clear()
        figures = tmp_path / "figures"
        draw_all(reports.load(hunt(tmp_path / name, values, finished=finished)), figures)
        for module in drawn:
            for kind in FORMATS:
                (figures / f"{module}.{kind}").touch()
        return set(drawn)

    assert {"history", "pareto"} <= again("first", VALUES)
    assert not {"history", "pareto"} & again("like", [*VALUES, 0.55])
    assert {"history", "pareto"} <= again("best", [*VALUES, 0.7]), "a new best is seen"
    assert {"history", "pareto"} <= again("more", [*VALUES, 0.7, *[0.55] * 9]), "3 % more points"
    assert {"history", "pareto"} <= again("end", [*VALUES, 0.7, *[0.55] * 10], finished=True)


def test_outlines_are_lines_and_limits(tmp_path: Path) -> None:
    found = reports.load(hunt(tmp_path / "g", VALUES))
    outline = history.outline(history.prepare(found))
    best = outline["value"].iloc[:-2]
    assert best.is_monotonic_increasing and best.iloc[-1] == pytest.approx(0.599)
    assert outline["value"].iloc[-2:].tolist() == pytest.approx([0.50198, 0.599])
    front = pareto.outline(pareto.prepare(found))
    assert front["front_duration_s"].iloc[0] and front["value"].max() == pytest.approx(0.599)


def test_a_few_new_trials_leave_the_parallel_lines_alone(tmp_path: Path) -> None:
    values = [0.5 + 0.0001 * (n * 7 % 1200) for n in range(1210)]
    before = parallel.prepare(reports.load(hunt(tmp_path / "a", values)))
    after = parallel.prepare(reports.load(hunt(tmp_path / "b", [*values, *[0.51] * 10])))
    assert len(before) == parallel.LINES
    pd.testing.assert_frame_equal(before, after)


def test_a_method_has_one_colour_in_every_figure_also_before_its_first_trial(
    tmp_path: Path,
) -> None:
    """In the space's order, whatever some figure leaves out: here linear failed and tcpa waits."""
    choice = [["vpt"], ["linear"], ["tcpa"]]
    space = SPACE | {"axes": SPACE["axes"] | {"methods": {"choice": choice}}}
    events = [planned(0, methods=["linear"]), final(0, "failed", reason="x")]
    for n, method in enumerate(["vpt", "cvpt", "vpt", "cvpt"], 1):
        events += [planned(n, methods=[method], optim__lr=0.1 * n), epoch(n, 1, 0.5)]
        events += [final(n, "completed", 0.5 + n / 10, duration_s=1.0 * n, flops_per_image=1e8)]
    found = reports.load(write(tmp_path / "c", events, space=space))
    styles = styles_of(found)
    assert list(styles) == ["vpt", "linear", "tcpa", "cvpt"]
    assert len(set(styles.values())) == 4
    for module in (history, pareto, curves, cost):
        figure = module.draw(module.prepare(found), found)
        assert isinstance(figure, Figure)
        shown = colours_of(figure)
        assert {styles["vpt"][0], styles["cvpt"][0]} <= shown, module.TITLE
        assert not {styles["linear"][0], styles["tcpa"][0]} & shown, module.TITLE


def colours_of(figure: Figure) -> set[str]:
    """Every colour of a line, of points and of bars."""
    found: set[str] = set()
    for axes in figure.axes:
        found |= {to_hex(line.get_color()).upper() for line in axes.lines}
        found |= {to_hex(bar.get_facecolor()).upper() for bar in axes.patches}
        for points in axes.collections:
            found |= {to_hex(colour).upper() for colour in points.get_facecolor()}
    return found


def test_levels_of_a_design_have_names_and_colours(tmp_path: Path) -> None:
    """One factor: its levels; one changed at a time: the baseline of all; a factorial: the run."""
    rows = components({"VPT": {0: 0.8, 1: 0.7}, "+R": {0: 0.9, 1: 0.8}})
    assert list(styles_of(reports.load(write(tmp_path / "a", rows, "ablation")))) == ["VPT", "+R"]
    base = [cell("optim.lr", "0.1", 0, True), cell("train.drop", "0.0", 0, True)]
    events = [planned(0, cells=base), planned(1, cells=[cell("optim.lr", "0.2", 1)])]
    one = reports.load(write(tmp_path / "b", events, "ablation"))
    assert list(styles_of(one)) == ["baseline", "lr = 0.2"]
    run = [cell("optim.lr", "0.2", 1), cell("train.drop", "0.1", 1), cell("combination", "x", 3)]
    both = reports.load(write(tmp_path / "d", [planned(0, cells=run)], "ablation"))
    assert list(styles_of(both)) == ["lr = 0.2, drop = 0.1"]
    several = over_datasets({d: {"VPT": [0.7, 0.8], "+R": [0.8, 0.9]} for d in ("dtd", "svhn")})
    for n in range(8):
        several.append(epoch(n, 1, 0.5))
    across = reports.load(write(tmp_path / "e", several, "ablation"))
    lines = curves.draw(curves.prepare(across), across).axes[0].lines  # type: ignore[union-attr]
    looks = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in lines}
    assert looks["VPT on dtd"][0] == looks["VPT on svhn"][0] != looks["+R on dtd"][0]
    assert looks["VPT on dtd"][1] == looks["+R on dtd"][1] != looks["VPT on svhn"][1]


def test_figures_are_of_column_width_with_type_of_seven_points(tmp_path: Path) -> None:
    """Every figure of a search and of an ablation, each with a sentence from its own numbers."""
    number = 0
    for found in (wide_search(tmp_path), wide_ablation(tmp_path), long_names(tmp_path)):
        for name, module in figures_of(found.study.kind).items():
            data = module.prepare(found)
            with rc_context(STYLE):
                figure = module.draw(data, found)
                if isinstance(figure, str):
                    continue
                number += 1
                figure.draw_without_rendering()
            assert figure.get_figwidth() == WIDTH, name
            for text in texts_of(figure):
                assert text.get_fontsize() >= 7, (name, text.get_text())
                box = text.get_window_extent()
                assert -3 <= box.x0 and box.x1 <= figure.bbox.x1 + 3, (name, text.get_text())
            sentence = module.sentence(data, found)
            assert sentence.endswith(".") and "nan" not in sentence, (name, sentence)
    assert number >= 12


def texts_of(figure: Figure) -> list[Text]:
    """Every text that is drawn: a tick beyond its axis is not."""
    found = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        found += axes.texts
        legend = axes.get_legend()
        found += legend.get_texts() if legend else []
        if not axes.axison:
            continue
        found += [axes.xaxis.label, axes.yaxis.label]
        for axis, place in ((axes.xaxis, 0), (axes.yaxis, 1)):
            low, high = sorted(axis.get_view_interval())
            labels = axis.get_ticklabels()
            found += [one for one in labels if low <= one.get_position()[place] <= high]
    return [text for text in found if text.get_text() and text.get_visible()]


def long_names(folder: Path) -> Frames:
    """A confirmation, whose rows bear their settings."""
    events, number = [], 0
    names = ("point 2: vpt, lr 0.026, 20 prompts",
             "point 7: tcpa, lr 0.012, 8 CLS and 24 image prompts, lambda 0.5")  # fmt: skip
    for order, name in enumerate(names):
        for seed in range(3):
            value, at = 0.8 + 0.01 * order + 0.003 * seed, cell("confirm", name, order, order == 0)
            cost = {"duration_s": 1.0 + order, "peak_memory_bytes": 10**9, "flops_per_image": 1.0}
            events += [planned(number, seed=seed, cells=[at]), epoch(number, 1, value / 2)]
            events += [epoch(number, 2, value), final(number, "completed", value, **cost)]
            number += 1
    return reports.load(write(folder / "long", events, "ablation"))


def wide_search(folder: Path) -> Frames:
    """60 trials of two methods, whose accuracy has its peak at a learning rate of 0.01."""
    events = []
    for n in range(60):
        lr = 10 ** (-3 + n / 29.5)
        value = 0.8 - 0.1 * (np.log10(lr) + 2) ** 2 + 0.03 * (n % 2)
        events += [planned(n, methods=[["linear"], ["vpt"]][n % 2], optim__lr=float(lr))]
        events += [epoch(n, e, value * (1 - 0.5**e)) for e in (1, 2, 3)]
        cost = {"duration_s": 1.0 + n % 7, "flops_per_image": 1e8 * (1 + n % 2)}
        events += [final(n, "completed", float(value), peak_memory_bytes=10**9, **cost)]
    return reports.load(write(folder / "search", events))


def wide_ablation(folder: Path) -> Frames:
    """A sweep of a setting over five data sets."""
    events, number = [], 0
    for place, dataset in enumerate(("a", "b", "c", "d", "e")):
        for order, level in enumerate((1, 10, 100)):
            for seed in range(3):
                at = cell("vpt.num_prompts", str(level), order, order == 0) | {"dataset": dataset}
                value = 0.5 + 0.1 * min(order, 1) - 0.02 * (order == 2) + 0.003 * seed * place
                events += [planned(number, seed=seed, cells=[at], vpt__num_prompts=level)]
                events += [epoch(number, 1, value), epoch(number, 2, value)]
                events += [final(number, "completed", value, duration_s=1.0 + order)]
                number += 1
    return reports.load(write(folder / "ablation", events, "ablation"))


def test_sentences_say_what_is_true(tmp_path: Path) -> None:
    found = wide_search(tmp_path)
    said = {
        name: module.sentence(module.prepare(found), found)
        for name, module in figures_of("search").items()
        if name in ("marginals", "curves", "pareto", "cost", "history", "parallel")
    }
    peak = re.search(r"rises with optim.lr to ([\d.]+) and falls after", said["marginals"])
    assert peak and 0.006 < float(peak.group(1)) < 0.016
    assert "vpt has the best mean" in said["curves"]
    assert "83.0 % of vpt" in said["pareto"] and "point 29 of 60" in said["history"]
    assert "methods = vpt" in said["parallel"] and "optim.lr 0.00" in said["parallel"]


def test_equal_costs_and_other_data_sets_are_not_ordered(tmp_path: Path) -> None:
    """None is the slowest, and the highest mean of all data sets says nothing of a level."""
    events = []
    for n, name in enumerate(("vpt", "linear")):
        events += [planned(n, methods=[name]), final(n, "completed", 0.5, duration_s=30.0)]
    found = reports.load(write(tmp_path / "s", events))
    said = cost.sentence(cost.prepare(found), found)
    assert said == "All take about as long: 30 s in the median."
    sets = {
        "a": {"VPT": [0.5, 0.51, 0.52], "+R": [0.6, 0.62, 0.61]},
        "b": {"VPT": [0.9, 0.91, 0.9]},
    }
    both = reports.load(write(tmp_path / "d", over_datasets(sets), "ablation"))
    said = factors.sentence(factors.prepare(both), both)
    assert said.startswith("Each level on each of 2 data sets; told apart from the baseline: ")


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([1, 3, 2], "rises with x to 10 and falls after"),
        ([3, 1, 2], "falls with x to 10 and rises after"),
        ([1, 2, 3], "rises with x"),
        ([3, 2, 1], "falls with x"),
        ([1, 3, 3, 3, 3], "rises with x to 10 and changes little after"),
        ([2, 2, 2], "does not change with x"),
    ],
)
def test_course_of_a_curve(y: list[float], said: str) -> None:
    assert course("x", [1, 10, 100, 1000, 10000][: len(y)], y) == said


@pytest.mark.parametrize(
    "values", [[84.4, 84.0, 83.3, 78.4], [1.0, 1.1, 5.0], [90.0, 10.0], [80.0], [3.0] * 9 + [99.0]]
)
def test_no_marker_is_cut_at_the_end_of_an_axis(values: list[float]) -> None:
    _, axes = new_figure()
    squeeze(axes, pd.Series(values))
    at = axes.transAxes.inverted().transform(axes.transData.transform([(0, v) for v in values]))
    assert at[:, 1].min() > 0.04 and at[:, 1].max() < 0.96


def test_an_axis_holds_all_values_and_shades_where_its_scale_is_another() -> None:
    near = pd.Series(np.linspace(80, 85, 12))
    for far, side in (([3.0], 0), ([200.0], 1), ([], None)):
        figure, axes = new_figure()
        squeeze(axes, pd.concat([near, pd.Series(far)]))
        low, high = axes.get_ylim()
        for value in [*near, *far]:
            assert low < value < high
        place = axes.transAxes.inverted().transform(
            axes.transData.transform([(0, v) for v in near])
        )[:, 1]
        assert np.ptp(place) > 0.6, "the others keep their room"
        assert len(axes.patches) == (side is not None)
