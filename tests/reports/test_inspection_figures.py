"""Figures of trained trials, from numbers made up here."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure

from reports.draw import figures_of
from reports.inspection_report import inspection_table, write_inspection
from reports.plots import kept_and_rank, prompt_share_by_number, prompt_usage
from reports.plots.features import embedded
from reports.plots.prompt_usage import never_chosen

FIGURES = tuple(figures_of("inspection"))
BLOCKS, SIDE, IMAGES = 3, 4, 30


def look(prompts: int = 5, share: float = 0.4, *, cls: bool = True, pool: bool = False) -> Any:
    """What an inspection of a trial could have found."""
    random = np.random.default_rng(prompts)
    found = {
        "images": random.random((4, 16, 16, 3)),
        "rank": np.array([9.0, 6.0, 3.0]),
        "num_prompts": np.full(BLOCKS, prompts),
        "features": random.normal(size=(IMAGES, 8)),
        "labels": np.arange(IMAGES) % 10,
    }
    for role in ("cls", "image") if cls else ("image",):
        found[f"{role}_maps"] = random.random((BLOCKS, 4, SIDE, SIDE))
        found[f"prompt_share_{role}"] = np.full(BLOCKS, share)
        found[f"kept_{role}"] = np.array([1.0, 0.9, 0.8])
    if pool:
        found["usage_image"] = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    return found


def test_every_figure_is_drawn_and_the_table_has_the_numbers(tmp_path: Path) -> None:
    looks = {"vpt": look(), "vfpt + tcpa": look(pool=True), "vpt, num_prompts=50": look(50)}
    said = write_inspection(looks, tmp_path)
    for name in FIGURES:
        for kind in ("svg", "png", "pdf"):
            path = tmp_path / "report" / "inspection" / f"{name}.{kind}"
            assert path.stat().st_size > 1000, name
    assert said[0].endswith(f"({', '.join(FIGURES)})") and len(said) == 2
    table = pd.read_parquet(tmp_path / "tables" / "inspection.parquet")
    assert len(table) == 3 * BLOCKS * 2
    row = table[(table["label"] == "vfpt + tcpa") & (table["block"] == 2)].set_index("role")
    assert row.loc["image", ["kept", "rank", "groups", "never_chosen"]].tolist() == [0.9, 6, 3, 2]
    assert pd.isna(row.loc["cls", "groups"]) and row.loc["cls", "prompt_share"] == 0.4
    schema = pq.read_schema(tmp_path / "tables" / "inspection.parquet")
    assert schema.field("kept").metadata[b"unit"] == b"fraction"
    assert "| vpt, num\\_prompts=50 | 1 | cls |" in (
        tmp_path / "tables" / "inspection.md").read_text()  # fmt: skip


def test_what_there_cannot_be_is_a_sentence_and_no_old_file_stays(tmp_path: Path) -> None:
    write_inspection({"tcpa": look(pool=True)}, tmp_path)
    alone = look(cls=False) | {"features": np.zeros((3, 8)), "labels": np.zeros(3)}
    said = "\n".join(write_inspection({"vpt": alone}, tmp_path))
    assert "attention_cls: No trial has maps of the CLS token" in said
    assert "features: t-SNE of the features needs 6 images, there are 3." in said
    assert "prompt_usage: No trial matches tokens" in said
    assert "prompt_share_by_number: No method has trials" in said
    left = {path.stem for path in (tmp_path / "report" / "inspection").iterdir()}
    assert left == {"attention_image", "attention_3d", "kept_and_rank", "prompt_share"}


def test_the_share_grows_along_a_line_for_each_method() -> None:
    looks = {f"vpt, num_prompts={n}": look(n, s) for n, s in ((50, 0.7), (10, 0.3), (200, 0.9))}
    looks |= {f"cvpt, num_prompts={n}": look(n, 0.0) for n in (10, 200)}
    figure = prompt_share_by_number.draw(prompt_share_by_number.prepare(looks), looks)
    assert isinstance(figure, Figure)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["vpt"].get_xdata()) == [10, 50, 200]
    assert list(lines["vpt"].get_ydata()) == pytest.approx([30, 70, 90])
    assert list(lines["cvpt"].get_ydata()) == [0, 0]
    assert figure.axes[0].get_xlabel() == "prompts per block"


def test_dead_groups_are_counted() -> None:
    assert never_chosen(np.array([0.0, 0.2])).tolist() == [True, False]
    trials = {"tcpa": look(pool=True)}
    figure = prompt_usage.draw(prompt_usage.prepare(trials), trials)
    assert isinstance(figure, Figure)
    assert "3 of 9 never chosen" in figure.axes[0].get_title()


def test_lines_along_the_blocks() -> None:
    trials = {"tcpa": look(), "no cls": look(cls=False)}
    figure = kept_and_rank.draw(kept_and_rank.prepare(trials), trials)
    assert isinstance(figure, Figure)
    first, second, third = (axes.get_ylabel() for axes in figure.axes)
    assert "CLS token keeps" in first and "image tokens keep" in second
    assert third == "effective rank"
    assert [len(axes.lines) for axes in figure.axes] == [1, 2, 2]
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx([100, 90, 80])


def test_embedding_is_the_same_each_time_and_knows_equal_features() -> None:
    features = np.random.default_rng(0).normal(size=(12, 5))
    assert (embedded(features) == embedded(features)).all()
    assert (embedded(np.ones((12, 5))) == 0).all()


def test_a_pool_of_both_roles_has_its_own_rows() -> None:
    shared = look() | {"usage_shared": np.array([[1.0, 0.0]] * BLOCKS)}
    rows = inspection_table({"tcpa": shared}).to_pylist()
    assert [row["role"] for row in rows[:3]] == ["cls", "image", "shared"]
    assert rows[2]["never_chosen"] == 1 and rows[2]["kept"] is None
