"""The ablation's tables as Markdown and LaTeX booktabs: a level a row, accuracies in percent."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports.labels import Row, column_head, heading, is_missing, on_val, pair_name
from reports.page.cell_text import (
    adjusted_p,
    deviation_notes,
    mean_text,
    signed,
    stars,
    with_interval,
    with_mark,
)
from reports.page.markup import escape_markdown, escape_tex, tex_cell
from reports.statistics.ablation import PAIRS, TWO_LEVEL
from reports.statistics.published_comparison import Published

INTERVALS = (
    "± is half of Student's 95 % interval over seeds; Δ is paired by seed, with the 95 % interval "
    "of the paired t test; p is of that test, after Holm over the family that its column names; "
    "* p < 0.05, ** p < 0.01; MDD is the smallest true Δ that this design sees with 80 % power."
)
STARS = "* p < 0.05, ** p < 0.01"
"""What stars stand for; said where there is a test that could earn one."""
UNTESTED = (
    "± is half of Student's 95 % interval over seeds; Δ is paired by seed, with the 95 % interval "
    "of the paired t test; there is no test, so no difference has a star; MDD is the smallest true "
    "Δ that one such test at 5 % sees with 80 % power."
)
HINT = "‡"
"""Marks a difference that depends on another factor."""
INTERACTIONS = (
    "An interaction is how much the one factor's change alters the effect of the other's, averaged "
    "over all other factors, by seed: (both - second) - (first - neither)."
)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a factor, with its rows of the ablation table on val and on test."""

    name: str
    val: Row
    tests: tuple[Row, ...]
    """The score on test, then its variants that were measured."""

    def tested(self) -> list[str]:
        """Cells of the columns of test."""
        return [mean_text(row) for row in self.tests]

    def cells(self) -> dict[str, str]:
        """The level as text, but for its columns of test."""
        val, is_base = self.val, bool(self.val["is_baseline"])
        missing = is_missing(val["detectable"])
        return {
            "level": with_mark(self.name, val.get("deviation")),
            "n": str(val["n"]),
            "val": mean_text(val),
            "difference": _difference(val) + (f" {HINT}" if val["hint"] and not is_base else ""),
            "p": adjusted_p(val),
            "effect": signed(val["dz"]),
            "detectable": "-" if missing else f"{100 * val['detectable']:.2f}",
        }


@dataclass(frozen=True, slots=True)
class LevelTable:
    """The levels of one factor on one data set, in the design's order."""

    title: str
    levels: tuple[Level, ...]

    def places(self) -> list[int]:
        """Of each level: 1 for the highest mean, 2 for the second, else 0; ties share.

        A lone level has no place.
        """
        # rounded, since equal means of other seeds differ in their last bits
        means = [round(one.val["mean"], 12) if one.val["n"] else None for one in self.levels]
        present = [mean for mean in means if mean is not None]
        if len(present) < 2:
            return [0] * len(means)
        best = sorted(set(present), reverse=True)[:2]
        return [best.index(mean) + 1 if mean in best else 0 for mean in means]

    def notes(self) -> list[str]:
        """What the marks of the table mean, and its aliases."""
        first = self.levels[0].val
        found = deviation_notes({one.name: one.val.get("deviation") for one in self.levels})
        found += [f"{HINT} {first['factor']} {first['hint']}."] if first["hint"] else []
        return found + ([f"Aliased with {first['aliases']}."] if first["aliases"] else [])

    @property
    def metrics(self) -> tuple[str, ...]:
        """What the columns of values hold: the score on val, then those on test."""
        first = self.levels[0]
        return tuple(row["metric"] for row in (first.val, *first.tests))

    @property
    def heads(self) -> list[str]:
        """Heads of the columns of values."""
        return [column_head(metric) for metric in self.metrics]

    @property
    def family(self) -> str:
        """The tests that Holm adjusted together; "": there is none."""
        return _family(self.levels[0].val)


def level_tables(table: pd.DataFrame) -> list[LevelTable]:
    """A table for each factor and data set of the ablation table."""
    found = []
    for (factor, dataset), rows in table.groupby(["factor", "dataset"], sort=False):
        # val first, as the table has them
        by_metric = [part.to_dict("records") for _, part in rows.groupby("metric", sort=False)]
        levels = [
            Level(str(val["level"]), val, tuple(tests))
            for val, *tests in zip(*by_metric, strict=True)
        ]
        found.append(LevelTable(heading(str(factor), str(dataset)), tuple(levels)))
    return found


def intervals(table: pd.DataFrame) -> str:
    """What the columns of the ablation table mean; of stars only where some test was made."""
    return INTERVALS if table["p_holm"].notna().any() else UNTESTED


def adjusted_head(family: str) -> str:
    """Head of the column of adjusted p, which names its family."""
    return f"p (Holm, {family})" if family else "p (Holm)"


def _family(row: Row) -> str:
    """The family of a row's test, as '5 two-level factors'; "": there is none."""
    num_tests, of = int(row["family"]), row["family_of"]
    if not num_tests:
        return ""
    name = of if of in (TWO_LEVEL, PAIRS) else "levels"
    return f"{num_tests} {name.removesuffix('s') if num_tests == 1 else name}"


def _difference(row: Row) -> str:
    if row["is_baseline"]:
        return "baseline"
    return with_interval(row["diff"], row["diff_low"], row["diff_high"], row["n_paired"], row["p"])


def caption(published: Sequence[Published]) -> str:
    """What the published rows of a table are; empty if it has none."""
    if not published:
        return ""
    benchmarks, backbones, selections = (
        ", ".join(dict.fromkeys(getattr(one, name) for one in published))
        for name in ("benchmark", "backbone", "selection")
    )
    text = (
        f"Published rows are others' {published[0].measure} (benchmark {benchmarks}; {backbones}; "
        f"{selections}), not results of this study."
    )
    caveats: dict[str, list[str]] = {}
    for one in published:
        if one.caveat:
            caveats.setdefault(one.caveat, []).append(one.method)
    return " ".join([text, *(f"{', '.join(who)}: {what}." for what, who in caveats.items())])


@dataclass(frozen=True, slots=True)
class EffectTable:
    """The interactions of one data set as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def effect_tables(effects: pd.DataFrame | None) -> list[EffectTable]:
    """Interactions on val, a table for each data set; aliases where there are any."""
    if effects is None:
        return []
    found = []
    val = on_val(effects)
    for dataset, part in val.groupby("dataset", sort=False):
        rows = part.to_dict("records")
        pairs = part[["factor", "other"]].drop_duplicates()
        texts = [_effect_cells(row, with_levels=len(pairs) < len(part)) for row in rows]
        adjusted = adjusted_head(_family(rows[0]))
        heads = ("interaction", "n", "effect on val", adjusted, "d_z", "aliased with")
        num = len(heads) if part["aliases"].any() else len(heads) - 1
        found.append(
            EffectTable(heading("interactions", str(dataset)), heads[:num],
                    tuple(text[:num] for text in texts))
        )  # fmt: skip
    return found


def _effect_cells(row: Row, *, with_levels: bool) -> tuple[str, ...]:
    """An interaction as text: name, n, effect, p, d_z, aliases.

    Args:
        with_levels: A factor has more than two levels, so that levels are named too.
    """
    effect = with_interval(row["effect"], row["low"], row["high"], row["n"], row["p"]) + stars(row)
    name = pair_name(row, with_levels=with_levels)
    return name, str(row["n"]), effect, adjusted_p(row), signed(row["dz"]), row["aliases"]


def to_markdown(
    table: pd.DataFrame,
    published: Sequence[Published] = (),
    effects: pd.DataFrame | None = None,
) -> str:
    """Every factor as a Markdown table; best bold, second underlined."""
    parts = []
    for one in level_tables(table):
        lines = [f"**{escape_markdown(one.title)}**", ""]
        # percent goes without saying there
        heads = " | ".join(head.removesuffix(" %") for head in one.heads)
        lines += [
            f"| level | n | {heads} | Δ val to baseline | {adjusted_head(one.family)} | d_z "
            "| MDD |",
            "|---|--:|" + "--:|" * (len(one.heads) + 4),
        ]
        for level, place in zip(one.levels, one.places(), strict=True):
            at = level.cells()
            mark = {1: "**{}**", 2: "<u>{}</u>"}.get(place, "{}")
            lines.append(
                f"| {escape_markdown(at['level'])} | {at['n']} | {mark.format(at['val'])} "
                f"| {' | '.join(level.tested())} | {at['difference']}{stars(level.val)} "
                f"| {at['p']} | {at['effect']} | {at['detectable']} |"
            )
        for result in published:
            name = escape_markdown(result.label)
            cells = [f"*{text}*" if text else "" for text in result.cells(one.metrics[1:])]
            lines.append(f"| *{name}* | | | {' | '.join(cells)} | | | | |")
        lines += [f"\n{escape_markdown(text)}"] if (text := caption(published)) else []
        lines += [f"\n{escape_markdown(note)}" for note in one.notes()]
        parts.append("\n".join(lines))
    for pairs in effect_tables(effects):
        lines = [f"**{escape_markdown(pairs.title)}**", "", f"| {' | '.join(pairs.columns)} |"]
        lines.append("|---|" + "--:|" * 4 + "---|" * (len(pairs.columns) - 5))
        lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in pairs.rows]
        parts.append("\n".join([*lines, f"\n{INTERACTIONS}"]))
    return "\n\n".join([*parts, intervals(table)]) + "\n" if parts else ""


def to_latex(
    table: pd.DataFrame,
    published: Sequence[Published] = (),
    effects: pd.DataFrame | None = None,
) -> str:
    """Every factor as a booktabs table; needs the packages booktabs and xcolor."""
    parts = []
    for one in level_tables(table):
        title = escape_tex(one.title)
        heads = " & ".join(head.replace(" %", r" (\%)") for head in one.heads)
        lines = [
            rf"\noindent\begin{{tabular}}{{@{{}}lr{'r' * len(one.heads)}rrr@{{}}}}",
            r"\toprule",
            rf"{title} & $n$ & {heads} & $\Delta$ val & $p$ & $d_z$ \\",
            r"\midrule",
        ]
        for level, place in zip(one.levels, one.places(), strict=True):
            at = {name: tex_cell(text) for name, text in level.cells().items()}
            mark = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(place, "%s")
            star = stars(level.val)
            difference = at["difference"] + (f"$^{{{star}}}$" if star else "")
            tests = map(tex_cell, level.tested())
            fields = (at["level"], at["n"], mark % at["val"], *tests, difference, at["p"],
                      at["effect"])  # fmt: skip
            lines.append(" & ".join(fields) + r" \\")
        lines += [r"\midrule"] if published else []
        for result in published:
            name, values = f"{result.method} ({result.source})", result.cells(one.metrics[1:])
            fields = (name, "", "", *values, "", "", "")
            grey = (rf"\textcolor{{gray}}{{{escape_tex(t)}}}" if t else "" for t in fields)
            lines.append(" & ".join(grey) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        notes = [f"p is adjusted by Holm over {one.family}; {STARS}."] if one.family else []
        notes += [*filter(None, [caption(published)]), *one.notes()]
        lines += [rf"\par\noindent{{\footnotesize {escape_tex(note)}}}" for note in notes]
        parts.append("\n".join(lines))
    for pairs in effect_tables(effects):
        lines = [rf"\noindent\begin{{tabular}}{{@{{}}lrrrr{'l' * (len(pairs.columns) - 5)}@{{}}}}"]
        lines += [r"\toprule", " & ".join(map(escape_tex, pairs.columns)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(tex_cell, row)) + r" \\" for row in pairs.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\par\noindent{{\footnotesize {escape_tex(INTERACTIONS)}}}"]
        parts.append("\n".join(lines))
    head = "% \\usepackage{booktabs,xcolor}\n% " + intervals(table).replace("%", "percent") + "\n"
    return head + "\n\n\\bigskip\n".join(parts) + "\n" if parts else ""
