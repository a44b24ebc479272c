"""Tables as a person reads them: cells, Markdown and LaTeX booktabs, accuracies in percent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.ablation import METRICS, heading

INTERVALS = (
    "± is half of Student's 95 % interval over seeds; Δ is paired by seed with its 95 % interval; "
    "p is of the paired t test, after Holm over the factor's levels; * p < 0.05, ** p < 0.01; MDD "
    "is the smallest true Δ that this design sees with 80 % power."
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


def _told(rows: Sequence[Row]) -> list[str]:
    return deviation_notes({level: val.get("deviation") for level, val, _ in rows})


def cells(row: Row) -> dict[str, str]:
    """One level as text."""
    level, val, test = row
    return {
        "level": with_mark(level, val.get("deviation")),
        "n": str(val["n"]),
        "val": mean_text(val),
        "test": mean_text(test),
        "difference": _difference(val),
        "p": _p(val),
        "effect": signed(val["dz"]),
        "detectable": "-" if is_missing(val["detectable"]) else f"{100 * val['detectable']:.2f}",
    }


def to_markdown(table: pd.DataFrame, references: Sequence[Reference] = ()) -> str:
    """Every factor as a Markdown table; best bold, second underlined."""
    parts = []
    for factor, rows in shown(table):
        lines = [f"**{escape_markdown(factor)}**", ""]
        lines += ["| level | n | val | test | Δ val to baseline | p (Holm) | d_z | MDD |"]
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
        lines += [f"\n{escape_markdown(note)}" for note in _told(rows)]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, INTERVALS]) + "\n" if parts else ""


def to_latex(table: pd.DataFrame, references: Sequence[Reference] = ()) -> str:
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
        notes = [*filter(None, [caption(references)]), *_told(rows)]
        lines += [rf"\par\noindent{{\footnotesize {escape_tex(note)}}}" for note in notes]
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
    """'81.00 ± 2.48', '81.00 (one seed)' or '-'."""
    if not row["n"]:
        return "-"
    mean = f"{scale * row['mean']:.2f}"
    if is_missing(row["low"]):
        return f"{mean} (one seed)"
    return f"{mean} ± {scale * (row['high'] - row['low']) / 2:.2f}"


def stars(row: Mapping[Any, Any]) -> str:
    """Significance after Holm."""
    p = row["p_holm"]
    return "" if is_missing(p) or p >= 0.05 else "**" if p < 0.01 else "*"


def _difference(row: Mapping[str, Any]) -> str:
    if row["is_baseline"]:
        return "baseline"
    if is_missing(row["diff"]):
        return "-"
    text = signed(row["diff"], 100)
    if not is_missing(row["diff_low"]):
        text += f" [{signed(row['diff_low'], 100)}, {signed(row['diff_high'], 100)}]"
    return text


def _p(row: Mapping[str, Any]) -> str:
    p = row["p_holm"]
    return "-" if is_missing(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def signed(value: Any, scale: float = 1) -> str:
    """'+1.25', '−0.50' with a true minus sign, or '-' where there is none."""
    return "-" if is_missing(value) else f"{scale * value:+.2f}".replace("-", "−")


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
    "†": r"$^\dagger$", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$",
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
