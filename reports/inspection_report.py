"""The figures of the TCPA and CVPT papers from trained trials: attention, and prompts used.

The numbers come from `tcpa_core.inspection`, which needs the network; here they are only drawn, so
that reports know no tensors. Trials stand side by side.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from reports.page.markup import frame_markdown
from reports.parquet import write_atomic, write_table
from reports.plots.base import COLOURS, GREY, MARKERS, STYLE, WIDTH, log_axis, save
from reports.tables import BOOL, INT, REAL, SCHEMA_VERSION, TEXT, Column, frame_of

Array = np.ndarray[Any, Any]
Look = Mapping[str, Array]
"""What `tcpa_core.inspection.inspect_trial` returns."""
Looks = Mapping[str, Look]
"""By the label that stands in the figure, such as "vpt" or "vfpt + tcpa"."""

ROLES = {"cls": "CLS token", "image": "image tokens"}
POOLS = {"cls": "CLS pool", "image": "image pool", "shared": "shared pool"}
FEWEST = 6
"""Images below which t-SNE says nothing."""
CLASSES = 10
"""Classes shown in the t-SNE at most: the first ones."""
COLUMNS = (
    Column("label", TEXT, "trial, as in the figures"),
    Column("block", INT, "transformer block, from 1"),
    Column("role", TEXT, "whose attention or pool: cls, image; shared: a pool of both"),
    Column("num_prompts", INT, "prompts of the block"),
    Column("prompt_share", REAL, "share of the softmax that prompts take", "fraction"),
    Column("kept", REAL, "share of the attention that the mask leaves", "fraction"),
    Column("rank", REAL, "effective rank of the image tokens' attention maps"),
    Column("groups", INT, "prompt groups of the pool"),
    Column("never_chosen", INT, "groups that no token of the images chose"),
    Column("has_mask", BOOL, "whether anything was masked"),
)


def write_inspection(looks: Looks, study_dir: Path) -> list[str]:
    """Draw every figure that the trials give, and write the table behind them.

    Args:
        looks: One or more trials on the same data.
        study_dir: Figures go to report/inspection/NAME.svg, .png, .pdf, the numbers to
            tables/inspection.parquet, .csv, .md. Earlier ones are replaced.

    Returns:
        For a terminal: what was written, and sentences on figures that there cannot be.

    Raises:
        StudyError: The folder cannot be written.
    """
    folder = study_dir / "report" / "inspection"
    table = inspection_table(looks)
    write_table(table, study_dir / "tables", "inspection")
    frame = frame_of(table)
    text = frame_markdown(frame, frame.columns)
    path = study_dir / "tables" / "inspection.md"
    write_atomic(path, lambda draft: draft.write_text(text, encoding="utf-8"))
    drawn, said = [], []
    for name, draw in FIGURES.items():
        with matplotlib.rc_context(STYLE):
            figure = draw(looks)
        if isinstance(figure, str):
            said.append(f"{name}: {figure}")
            for kind in ("svg", "png", "pdf"):  # of other trials
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
        else:
            save(figure, folder / name)
            drawn.append(name)
    return [f"figures: {folder} ({', '.join(drawn)})", *said, f"table: {path}"]


def inspection_table(looks: Looks) -> pa.Table:
    """Rows of COLUMNS: a block of a trial by role."""
    rows = [row for label, look in looks.items() for row in _rows(label, look)]
    arrays = [pa.array([row.get(c.name) for row in rows], c.dtype) for c in COLUMNS]
    about = {"tcpa.schema_version": str(SCHEMA_VERSION), "tcpa.table": "inspection"}
    return pa.table(arrays, schema=pa.schema([c.arrow() for c in COLUMNS], about))


def _rows(label: str, look: Look) -> Iterator[dict[str, Any]]:
    for block in range(len(look["rank"])):
        common = {
            "label": label,
            "block": block + 1,
            "num_prompts": int(look["num_prompts"][block]),
        }
        for role in POOLS:
            row: dict[str, Any] = {}
            if f"kept_{role}" in look:
                kept = float(look[f"kept_{role}"][block])
                row |= {"kept": kept, "has_mask": kept < 1 - 1e-9}
                row["prompt_share"] = float(look[f"prompt_share_{role}"][block])
                row["rank"] = float(look["rank"][block]) if role == "image" else None
            if f"usage_{role}" in look:
                shares = look[f"usage_{role}"][block]
                row |= {"groups": len(shares), "never_chosen": int(never_chosen(shares).sum())}
            if row:
                yield {**common, "role": role, **row}


def overlays(role: str, looks: Looks) -> Figure | str:
    """Each trial's attention in the last block over the images: a row an image, a column a trial.

    Colour runs from the lowest to the highest value of a map.
    """
    shown = {n: look for n, look in looks.items() if f"{role}_maps" in look}
    if not shown:
        return f"No trial has maps of the {ROLES[role]}: the backbone has no such token."
    count = min(len(look["images"]) for look in shown.values())
    across = len(shown) + 1
    titles = [_wrapped(label).split("\n") for label in shown]
    wide = max(0.85, 0.066 * max(len(line) for lines in titles for line in lines))
    height = wide * count + 0.15 + 0.12 * max(map(len, titles))
    figure = Figure(figsize=(wide * across, height), layout="constrained")
    panels = figure.subplots(count, across, squeeze=False)
    for row in range(count):
        panels[row][0].imshow(next(iter(shown.values()))["images"][row])
        for axes, look in zip(panels[row][1:], shown.values(), strict=True):
            image = look["images"][row]
            height, width = image.shape[:2]
            axes.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
            axes.imshow(look[f"{role}_maps"][-1, row], cmap="viridis", alpha=0.6,
                        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                        interpolation="bilinear")  # fmt: skip
    for axes, title in zip(panels[0], ["image", *shown], strict=True):
        axes.set_title(_wrapped(title), fontsize=7)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def surfaces(looks: Looks) -> Figure | str:
    """The first image's maps of the last block as surfaces, one scale a role."""
    roles = [r for r in ROLES if any(f"{r}_maps" in look for look in looks.values())]
    figure = Figure(figsize=(1.75 * len(looks), 1.8 * len(roles)))
    for down, role in enumerate(roles):
        maps = {
            n: look[f"{role}_maps"][-1, 0] for n, look in looks.items() if f"{role}_maps" in look
        }
        top = max(float(values.max()) for values in maps.values())
        for across, label in enumerate(looks):
            if label not in maps:
                continue
            place = down * len(looks) + across + 1
            axes: Any = figure.add_subplot(len(roles), len(looks), place, projection="3d")
            values = maps[label]
            y, x = np.mgrid[: values.shape[0], : values.shape[1]]
            axes.plot_surface(x, y, values, cmap="viridis", vmin=0, vmax=top, lw=0, rstride=1,
                              cstride=1, rasterized=True)  # fmt: skip
            axes.set_zlim(0, top)
            axes.invert_yaxis()  # the image's first row at the back, as one reads it
            axes.set_title(f"{_wrapped(label)}\n{ROLES[role]}", fontsize=7, y=0.98)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.tick_params("z", labelsize=5, pad=-1)
            axes.locator_params("z", nbins=4)
    figure.subplots_adjust(0.02, 0.03, 0.93, 0.9, wspace=0.12, hspace=0.25)
    return figure


def embeddings(looks: Looks) -> Figure | str:
    """t-SNE of the features that the head reads, a panel a trial, colour and marker by class."""
    fewest = min(len(look["features"]) for look in looks.values())
    if fewest < FEWEST:
        return f"t-SNE of the features needs {FEWEST} images, there are {fewest}."
    across = min(4, len(looks))
    down = -(-len(looks) // across)
    figure = Figure(figsize=(1.8 * across, 2.0 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (label, look) in zip(panels, looks.items(), strict=False):
        places, labels = embedded(look["features"]), look["labels"].astype(int)
        for one in np.unique(labels)[:CLASSES]:
            at = labels == one
            axes.scatter(
                *places[at].T,
                s=9,
                lw=0,
                color=COLOURS[one % len(COLOURS)],
                marker=MARKERS[(one + one // len(COLOURS)) % len(MARKERS)],
                label=str(one),
            )
        axes.set_title(_wrapped(label))
        _bare(axes)
    for axes in panels[len(looks) :]:
        axes.remove()
    handles, classes = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, classes, loc="outside lower center", ncols=CLASSES, title="class",
                  handletextpad=0, columnspacing=0.6)  # fmt: skip
    return figure


def embedded(features: Array) -> Array:
    """Features (N, F) in the plane (N, 2); the same numbers give the same picture.

    Source:
        L. van der Maaten, G. Hinton: "Visualizing data using t-SNE", JMLR 9 (2008).
    """
    perplexity = min(30.0, (len(features) - 1) / 3)
    if np.ptp(features, axis=0).max() == 0:  # nothing to tell apart
        return np.zeros((len(features), 2))
    found: Array = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(
        features.astype(np.float64)
    )
    return found


def usage(looks: Looks) -> Figure | str:
    """How often each prompt group was chosen, block by block; groups never chosen are crossed."""
    pools = [(label, pool, look[f"usage_{pool}"]) for label, look in looks.items()
             for pool in POOLS if f"usage_{pool}" in look]  # fmt: skip
    if not pools:
        return "No trial matches tokens with prompts, so there is no usage to show."
    across = min(2, len(pools))
    down = -(-len(pools) // across)
    figure = Figure(figsize=(WIDTH * across, 1.8 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (label, pool, shares) in zip(panels, pools, strict=False):
        # the busiest group first in each block: the groups of two blocks are not the same ones
        ordered = -np.sort(-shares, axis=1)
        extent = (0.5, shares.shape[1] + 0.5, len(shares) + 0.5, 0.5)
        image = axes.imshow(100 * ordered, cmap="viridis", aspect="auto", vmin=0, extent=extent)
        dead = never_chosen(shares)
        axes.set_title(
            f"{_wrapped(label)}, {POOLS[pool]}\n{dead.sum()} of {dead.size} never chosen"
        )
        axes.set_xlabel("group, the busiest first")
        axes.set_ylabel("block")
        axes.set_xticks(_ticks(shares.shape[1]))
        axes.set_yticks(_ticks(len(shares)))
        if dead.any():
            layers, groups = np.nonzero(never_chosen(ordered))
            axes.plot(groups + 1, layers + 1, "x", color="white", ms=3, mew=0.6)
        figure.colorbar(image, ax=axes, label="share of choices (%)")
    for axes in panels[len(pools) :]:
        axes.remove()
    return figure


def never_chosen(shares: Array) -> Array:
    """True where a group was never chosen."""
    found: Array = shares == 0
    return found


def by_block(looks: Looks) -> Figure | str:
    """Kept attention mass and effective rank along the blocks."""
    series = {"kept_cls": "attention that the\nCLS token keeps (%)",
              "kept_image": "attention that the\nimage tokens keep (%)",
              "rank": "effective rank"}  # fmt: skip
    shown = {k: t for k, t in series.items() if any(k in look for look in looks.values())}
    figure = Figure(figsize=(2 * WIDTH, 2.1), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, title) in zip(panels, shown.items(), strict=True):
        for place, (label, look) in enumerate(looks.items()):
            if name in look:
                scale = 1 if name == "rank" else 100
                _line(axes, np.arange(1, len(look[name]) + 1), scale * look[name], place, label)
        axes.set_xlabel("block")
        axes.set_xticks(_ticks(max(len(look["rank"]) for look in looks.values())))
        axes.set_ylabel(title)
        if name != "rank":
            axes.set_ylim(min(90.0, axes.get_ylim()[0]), 102)
    _legend(figure)
    return figure


def prompt_share(looks: Looks) -> Figure | str:
    """Share of the attention that prompts take, block by block; 0 where none stand in it."""
    figure, panels = _per_role(looks)
    for role, axes in panels.items():
        for place, (label, look) in enumerate(looks.items()):
            if f"prompt_share_{role}" in look:
                values = 100 * look[f"prompt_share_{role}"]
                _line(axes, np.arange(1, len(values) + 1), values, place, label)
        axes.set_xlabel("block")
        axes.set_xticks(_ticks(max(len(look["rank"]) for look in looks.values())))
    _legend(figure)
    return figure


def share_by_number(looks: Looks) -> Figure | str:
    """Share of the attention that prompts take as their number grows, mean over the blocks."""
    chains: dict[str, list[Look]] = {}
    for label, look in looks.items():
        chains.setdefault(label.split(",")[0], []).append(look)
    numbers = {
        name: sorted((float(look["num_prompts"].mean()), i) for i, look in enumerate(found))
        for name, found in chains.items()
    }
    if not any(len({n for n, _ in found}) > 1 for found in numbers.values()):
        return "No method has trials with different numbers of prompts."
    figure, panels = _per_role(looks)
    for role, axes in panels.items():
        for place, (name, found) in enumerate(chains.items()):
            order = [found[i] for _, i in numbers[name] if f"prompt_share_{role}" in found[i]]
            x = np.array([look["num_prompts"].mean() for look in order])
            y = np.array([100 * look[f"prompt_share_{role}"].mean() for look in order])
            _line(axes, x, y, place, name)
        highest = max(n for found in numbers.values() for n, _ in found)
        if highest > 20:
            axes.set_xscale("symlog", linthresh=1)
            log_axis(axes.xaxis)
        axes.set_xlabel("prompts per block")
    _legend(figure)
    return figure


FIGURES: Mapping[str, Callable[[Looks], Figure | str]] = {
    "attention_cls": partial(overlays, "cls"),
    "attention_image": partial(overlays, "image"),
    "attention_3d": surfaces,
    "features": embeddings,
    "prompt_usage": usage,
    "kept_and_rank": by_block,
    "prompt_share": prompt_share,
    "prompt_share_by_number": share_by_number,
}
"""By file name."""


def _per_role(looks: Looks) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each role that a trial has, from 0 to 100 % of its attention."""
    roles = [r for r in ROLES if any(f"prompt_share_{r}" in look for look in looks.values())]
    figure = Figure(figsize=(WIDTH * len(roles), 2.2), layout="constrained")
    panels = dict(zip(roles, figure.subplots(1, len(roles), squeeze=False)[0], strict=True))
    for role, axes in panels.items():
        axes.set_ylim(-3, 103)
        axes.set_ylabel(f"attention of {ROLES[role]}\non prompts (%)")
    return figure, panels


def _line(axes: Axes, x: Array, y: Array, place: int, label: str) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    axes.plot(x, y, color=colour, marker=marker, ms=3, lw=1, label=label)


def _legend(figure: Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    longest = max(map(len, labels))
    columns = max(1, min(4, int(9 * figure.get_figwidth() / (longest + 6))))
    lines = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.15 * (lines - 1))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def _ticks(count: int) -> Sequence[int]:
    """About six whole numbers from 1 on."""
    step = max(1, -(-count // 6))
    return range(1, count + 1, step)


def _wrapped(label: str) -> str:
    """A label in lines, so that it stands above a small panel."""
    return label.replace(", ", "\n").replace(" + ", " +\n") if len(label) > 12 else label


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(GREY)
