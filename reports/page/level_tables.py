"""Tables as a person reads them: cells, Markdown and LaTeX booktabs, accuracies in percent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.statistics.ablation import METRICS, PAIRS, TWO_LEVEL, heading

INTERVALS = (
    "± is half of Student's 95 % interval over seeds; Δ is paired by seed, with the 95 % interval "
    "of the paired t test; p is of that test, after Holm over the family that its column names; "
    "* p < 0.05, ** p < 0.01; MDD is the smallest true Δ that this design sees with 80 % power."
)
HINT = "‡"
"""Marks a difference that depends on another factor."""
INTERACTIONS = (
    "An interaction is how much the one factor's change alters the effect of the other's, averaged "
    "over all other factors, by seed: (both - second) - (first - neither)."
)

Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""A level with its rows for val and test."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A published number beside ours."""

    method: str
    source: str
    accuracy: float
    caveat: str = ""
    benchmark: str = ""
    backbone: str = ""
    selection: str = ""

    @property
    def label(self) -> str:
        """The row's name, with all that a reader has to know before comparing."""
        parts = (self.source, self.benchmark, self.backbone, self.selection, self.caveat)
        return f"{self.method} ({'; '.join(part for part in parts if part)})"


def caption(references: Sequence[Reference]) -> str:
    """What the published rows of a table are; empty if it has none."""
    if not references:
        return ""
    benchmarks, backbones, selections = (
        ", ".join(dict.fromkeys(getattr(one, name) for one in references))
        for name in ("benchmark", "backbone", "selection")
    )
    text = (
        f"Published rows are others' test accuracies (benchmark {benchmarks}; {backbones}; "
        f"{selections}), not results of this study."
    )
    caveats: dict[str, list[str]] = {}
    for one in references:
        if one.caveat:
            caveats.setdefault(one.caveat, []).append(one.method)
    return " ".join([text, *(f"{', '.join(who)}: {what}." for what, who in caveats.items())])


def methods_label(value: Any) -> str:
    """'["vpt"]' as "vpt", '["vfpt", "tcpa"]' as "vfpt + tcpa"; another value as it is."""
    if value is None or value is pd.NA or value != value:
        return ""
    text = str(value)
    if not text.startswith("["):
        return text
    return " + ".join(part.strip(" '\"") for part in text.strip("[]").split(","))


def shown(table: pd.DataFrame) -> list[tuple[str, list[Row]]]:
    """Per factor and data set: level with its val and test rows, in the design's order."""
    found = []
    for (factor, dataset), rows in table.groupby(["factor", "dataset"], sort=False):
        by_metric = {m: rows[rows["metric"] == m].to_dict("records") for m in METRICS}
        pairs = zip(*by_metric.values(), strict=True)
        levels = [(str(val["level"]), val, test) for val, test in pairs]
        found.append((heading(str(factor), str(dataset)), levels))
    return found


def ranking(rows: Sequence[Row]) -> dict[str, int]:
    """Level -> 1 for the highest mean, 2 for the second; ties share, a lone level has no place."""
    means = {level: val["mean"] for level, val, _ in rows if val["n"]}
    if len(means) < 2:
        return {}
    distinct = sorted({round(mean, 12) for mean in means.values()}, reverse=True)[:2]
    places = {value: place for place, value in enumerate(distinct, start=1)}
    return {k: places[round(v, 12)] for k, v in means.items() if round(v, 12) in places}


def with_mark(level: str, deviation: Any) -> str:
    """A level's name, with a dagger if its trials differ from what they claim."""
    return f"{level} †" if deviation else level


def deviation_notes(deviations: Mapping[str, Any]) -> list[str]:
    """What the daggers of a table mean, by level."""
    return [f"† deviation, {level}: {text}." for level, text in deviations.items() if text]


def told(rows: Sequence[Row]) -> list[str]:
    """What the marks of a factor's table mean, and its aliases."""
    first = rows[0][1]
    found = deviation_notes({level: val.get("deviation") for level, val, _ in rows})
    found += [f"{HINT} {first['factor']} {first['hint']}."] if first["hint"] else []
    return found + ([f"Aliased with {first['aliases']}."] if first["aliases"] else [])


def family_name(rows: Sequence[Mapping[Any, Any]]) -> str:
    """The tests that Holm adjusted together, as '5 two-level factors'; "": there is none."""
    num_tests, of = int(rows[0]["family"]), rows[0]["family_of"]
    if not num_tests:
        return ""
    name = of if of in (TWO_LEVEL, PAIRS) else "levels"
    return f"{num_tests} {name.removesuffix('s') if num_tests == 1 else name}"


def adjusted_head(rows: Sequence[Mapping[Any, Any]]) -> str:
    """Head of the column of adjusted p, which names its family."""
    family = family_name(rows)
    return f"p (Holm, {family})" if family else "p (Holm)"


def _family_note(rows: Sequence[Row]) -> list[str]:
    family = family_name([val for _, val, _ in rows])
    return [f"p is adjusted by Holm over {family}."] if family else []


def pair_name(row: Mapping[Any, Any], several: bool) -> str:
    """'a × b', or with their levels 'a=1 × b=2'."""
    names = [row["factor"], row["other"]]
    if several:
        names = [f"{n}={v}" for n, v in zip(names, (row["level"], row["other_level"]), strict=True)]
    return " × ".join(names)


def effect_cells(row: Mapping[Any, Any], several: bool) -> tuple[str, ...]:
    """An interaction as text: name, n, effect, p, d_z, aliases.

    Args:
        several: A factor has more than two levels, so that levels are named too.
    """
    effect = with_interval(row["effect"], row["low"], row["high"], row["n"], row["p"]) + stars(row)
    return (
        pair_name(row, several),
        str(row["n"]),
        effect,
        _p(row),
        signed(row["dz"]),
        row["aliases"],
    )


@dataclass(frozen=True, slots=True)
class Effects:
    """The interactions of one data set as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def effect_tables(effects: pd.DataFrame | None) -> list[Effects]:
    """Interactions on val, a table for each data set; aliases where there are any."""
    if effects is None:
        return []
    found = []
    val = effects[effects["metric"] == METRICS[0]]
    for dataset, part in val.groupby("dataset", sort=False):
        rows = part.to_dict("records")
        pairs = part[["factor", "other"]].drop_duplicates()
        texts = [effect_cells(row, len(pairs) < len(part)) for row in rows]
        heads = ("interaction", "n", "effect on val", adjusted_head(rows), "d_z", "aliased with")
        num = len(heads) if part["aliases"].any() else len(heads) - 1
        found.append(
            Effects(heading("interactions", str(dataset)), heads[:num],
                    tuple(text[:num] for text in texts))
        )  # fmt: skip
    return found


def cells(row: Row) -> dict[str, str]:
    """One level as text."""
    level, val, test = row
    is_base = bool(val["is_baseline"])
    return {
        "level": with_mark(level, val.get("deviation")),
        "n": str(val["n"]),
        "val": mean_text(val),
        "test": mean_text(test),
        "difference": _difference(val) + (f" {HINT}" if val["hint"] and not is_base else ""),
        "p": _p(val),
        "effect": signed(val["dz"]),
        "detectable": "-" if is_missing(val["detectable"]) else f"{100 * val['detectable']:.2f}",
    }


def to_markdown(
    table: pd.DataFrame,
    references: Sequence[Reference] = (),
    effects: pd.DataFrame | None = None,
) -> str:
    """Every factor as a Markdown table; best bold, second underlined."""
    parts = []
    for factor, rows in shown(table):
        lines = [f"**{escape_markdown(factor)}**", ""]
        adjusted = adjusted_head([val for _, val, _ in rows])
        lines += [f"| level | n | val | test | Δ val to baseline | {adjusted} | d_z | MDD |"]
        lines += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
        places = ranking(rows)
        for row in rows:
            at = cells(row)
            mark = {1: "**{}**", 2: "<u>{}</u>"}.get(places.get(row[0], 0), "{}")
            lines.append(
                f"| {escape_markdown(at['level'])} | {at['n']} | {mark.format(at['val'])} "
                f"| {at['test']} | {at['difference']}{stars(row[1])} | {at['p']} | {at['effect']} "
                f"| {at['detectable']} |"
            )
        for one in references:
            name = escape_markdown(one.label)
            lines.append(f"| *{name}* | | | *{100 * one.accuracy:.2f}* | | | | |")
        lines += [f"\n{escape_markdown(text)}"] if (text := caption(references)) else []
        lines += [f"\n{escape_markdown(note)}" for note in told(rows)]
        parts.append("\n".join(lines))
    for pairs in effect_tables(effects):
        lines = [f"**{escape_markdown(pairs.title)}**", "", f"| {' | '.join(pairs.columns)} |"]
        lines.append("|---|" + "--:|" * 4 + "---|" * (len(pairs.columns) - 5))
        lines += ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in pairs.rows]
        parts.append("\n".join([*lines, f"\n{INTERACTIONS}"]))
    return "\n\n".join([*parts, INTERVALS]) + "\n" if parts else ""


def to_latex(
    table: pd.DataFrame,
    references: Sequence[Reference] = (),
    effects: pd.DataFrame | None = None,
) -> str:
    """Every factor as a booktabs table; needs the packages booktabs and xcolor."""
    parts = []
    for factor, rows in shown(table):
        lines = [r"\noindent\begin{tabular}{@{}lrrrrrr@{}}", r"\toprule"]
        lines += [
            rf"{escape_tex(factor)} & $n$ & val (\%) & test (\%) & $\Delta$ val & $p$ & $d_z$ \\",
            r"\midrule",
        ]
        places = ranking(rows)
        for row in rows:
            at = {name: tex_cell(text) for name, text in cells(row).items()}
            mark = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(places.get(row[0], 0), "%s")
            star = stars(row[1])
            difference = at["difference"] + (f"$^{{{star}}}$" if star else "")
            fields = (at["level"], at["n"], mark % at["val"], at["test"], difference, at["p"],
                      at["effect"])  # fmt: skip
            lines.append(" & ".join(fields) + r" \\")
        if references:
            lines.append(r"\midrule")
        for one in references:
            text = (f"{one.method} ({one.source})", "", "", f"{100 * one.accuracy:.2f}", "", "", "")
            lines.append(
                " & ".join(rf"\textcolor{{gray}}{{{escape_tex(t)}}}" if t else "" for t in text)
                + r" \\"
            )
        lines += [r"\bottomrule", r"\end{tabular}"]
        notes = [*_family_note(rows), *filter(None, [caption(references)]), *told(rows)]
        lines += [rf"\par\noindent{{\footnotesize {escape_tex(note)}}}" for note in notes]
        parts.append("\n".join(lines))
    for pairs in effect_tables(effects):
        lines = [rf"\noindent\begin{{tabular}}{{@{{}}lrrrr{'l' * (len(pairs.columns) - 5)}@{{}}}}"]
        lines += [r"\toprule", " & ".join(map(escape_tex, pairs.columns)) + r" \\", r"\midrule"]
        lines += [" & ".join(map(tex_cell, row)) + r" \\" for row in pairs.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\par\noindent{{\footnotesize {escape_tex(INTERACTIONS)}}}"]
        parts.append("\n".join(lines))
    head = "% \\usepackage{booktabs,xcolor}\n% " + INTERVALS.replace("%", "percent") + "\n"
    return head + "\n\n\\bigskip\n".join(parts) + "\n" if parts else ""


def frame_markdown(frame: pd.DataFrame, columns: Iterable[str]) -> str:
    """Columns of a frame as a Markdown table, numbers with four digits."""
    names = list(columns)
    lines = ["| " + " | ".join(map(escape_markdown, names)) + " |", "|" + "---|" * len(names)]
    for row in frame[names].to_dict("records"):
        lines.append("| " + " | ".join(escape_markdown(number(row[name])) for name in names) + " |")
    return "\n".join(lines) + "\n"


def number(value: Any) -> str:
    """Any cell as short text; missing values as nothing."""
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def mean_text(row: Mapping[Any, Any], scale: float = 100) -> str:
    """'81.00 ± 2.48', '81.00 (one seed)', '81.00 (all equal)' or '-'."""
    if not row["n"]:
        return "-"
    mean = f"{scale * row['mean']:.2f}"
    if is_missing(row["low"]):
        return f"{mean} (one seed)" if row["n"] == 1 else f"{mean} (all equal)"
    return f"{mean} ± {scale * (row['high'] - row['low']) / 2:.2f}"


def stars(row: Mapping[Any, Any]) -> str:
    """Significance after Holm."""
    p = row["p_holm"]
    return "" if is_missing(p) or p >= 0.05 else "**" if p < 0.01 else "*"


def _difference(row: Mapping[str, Any]) -> str:
    if row["is_baseline"]:
        return "baseline"
    return with_interval(row["diff"], row["diff_low"], row["diff_high"], row["n_paired"], row["p"])


def with_interval(value: Any, low: Any, high: Any, n: int, p: Any, scale: float = 100) -> str:
    """'+1.25 [+0.50, +2.00]'; '+1.25 (all equal)' of n > 1 differences that do not vary; or '-'."""
    if is_missing(value):
        return "-"
    text = signed(value, scale)
    if not is_missing(low):
        return f"{text} [{signed(low, scale)}, {signed(high, scale)}]"
    return f"{text} (all equal)" if n > 1 and is_missing(p) else text


def _p(row: Mapping[Any, Any]) -> str:
    p = row["p_holm"]
    return "-" if is_missing(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: Any, scale: float = 1) -> str:
    """'+1.25', '−0.50' with a true minus sign, or '-' where there is none."""
    return "-" if is_missing(value) else f"{round(scale * value, 2) + 0.0:+.2f}".replace("-", "−")


def is_missing(value: Any) -> bool:
    """Whether a cell of a frame has no value."""
    return value is None or value is pd.NA or value != value


def escape_markdown(text: str) -> str:
    """Any text as it shall read inside a Markdown table."""
    return "".join(f"\\{c}" if c in "\\`*_|<>[]~$" else c for c in _one_line(text))


_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"}, "<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$",
    **{c: f"{{{c}}}" for c in "[]*"},  # after a line's end they would be its arguments
    "†": r"$^\dagger$", "‡": r"$^\ddagger$",
    "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "λ": r"$\lambda$", "τ": r"$\tau$",
}  # fmt: skip


def escape_tex(text: str) -> str:
    """Any text as it shall read in LaTeX."""
    return "".join(_TEX.get(c, c) for c in _one_line(text))


def tex_cell(text: str) -> str:
    """A number of a table in LaTeX; what is not there is a dash."""
    return "--" if text == "-" else escape_tex(text)


def _one_line(text: str) -> str:
    """Line breaks and control characters as blanks."""
    return "".join(c if c.isprintable() else " " for c in text)
