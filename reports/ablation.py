"""Factor and level tables: replicates summarised, compared with the baseline seed by seed."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from reports.stats import FEW, compare_paired, holm, summarise

METRICS = ("val_accuracy", "test_accuracy")

MEANING = {
    "factor": ("", "what was varied"),
    "level": ("", "its value"),
    "order": ("", "place of the level in the design"),
    "is_baseline": ("", "the level that others are compared with"),
    "metric": ("", "column of `trials` that is summarised"),
    "n": ("", "completed replicates"),
    "missing_seeds": ("", "planned replicates without a result"),
    "mean": ("fraction", "over the seeds"),
    "std": ("fraction", "sample standard deviation over the seeds"),
    "low": ("fraction", "Student's 95 % interval of the mean"),
    "high": ("fraction", "same"),
    "n_paired": ("", "seeds shared with the baseline"),
    "diff": ("fraction", "mean paired difference to the baseline"),
    "diff_low": ("fraction", "Student's 95 % interval of the difference"),
    "diff_high": ("fraction", "same"),
    "p": ("", "two-sided paired t test"),
    "p_holm": ("", "p after Holm over the levels of the factor"),
    "dz": ("", "paired Cohen's d"),
}


def ablation_table(trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per factor, level and metric.

    Args:
        trials: Records of trials, with "labels", "seed", "status" and the metrics.
    """
    groups: dict[tuple[str, int, str], dict[str, Any]] = {}
    for trial in trials:
        for cell in (trial.get("labels") or {}).get("cells", []):
            key = (cell["factor"], int(cell["order"]), cell["level"])
            group = groups.setdefault(key, {"baseline": bool(cell["baseline"]), "trials": []})
            group["trials"].append(trial)
    rows = []
    for factor in dict.fromkeys(key[0] for key in groups):
        levels = {key: group for key, group in sorted(groups.items()) if key[0] == factor}
        for metric in METRICS:
            rows += _factor_rows(factor, levels, metric)
    return pd.DataFrame(rows, columns=list(MEANING))


def _factor_rows(factor: str, levels: Mapping[Any, Any], metric: str) -> list[dict[str, Any]]:
    values = {key: _by_point_and_seed(group["trials"], metric) for key, group in levels.items()}
    baseline: dict[Hashable, float] = next(
        (_by_seed(values[key]) for key, group in levels.items() if group["baseline"]), {}
    )
    rows = []
    for (_, order, level), group in levels.items():
        found = values[(factor, order, level)]
        summary = summarise(list(found.values()))
        paired = compare_paired({} if group["baseline"] else _by_seed(found), baseline)
        planned = {int(t["seed"]) for t in group["trials"]}
        missing = sorted(planned - {seed for _, seed in found})
        rows.append(
            {
                "factor": factor,
                "level": level,
                "order": order,
                "is_baseline": group["baseline"],
                "metric": metric,
                "n": summary.n,
                "missing_seeds": ", ".join(map(str, missing)),
                "mean": summary.mean,
                "std": summary.std,
                "low": summary.low,
                "high": summary.high,
                "n_paired": paired.n,
                "diff": paired.diff,
                "diff_low": paired.low,
                "diff_high": paired.high,
                "p": paired.p,
                "dz": paired.dz,
            }  # fmt: skip
        )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows


def _by_point_and_seed(trials: Iterable[Mapping[str, Any]], metric: str) -> dict[Any, float]:
    """(point, seed) -> value of the completed trials."""
    return {
        (t["point"], int(t["seed"])): float(t[metric])
        for t in trials
        if t["status"] == "completed" and t.get(metric) is not None and t[metric] == t[metric]
    }


def _by_seed(values: Mapping[Any, float]) -> dict[Hashable, float]:
    """Seed -> mean over the points of a level (one point, except in factorial designs)."""
    seeds: dict[int, list[float]] = {}
    for (_, seed), value in values.items():
        seeds.setdefault(seed, []).append(value)
    return {seed: sum(v) / len(v) for seed, v in seeds.items()}


def notes(table: pd.DataFrame) -> list[str]:
    """Sentences that a reader of the table needs."""
    if table.empty:
        return []
    found = []
    few = int(table["n"].min())
    if few < 2:
        found.append("A level with n < 2 has no interval: one seed shows no spread.")
    elif few < FEW:
        found.append(f"Some levels have n = {few}: their intervals are very wide.")
    for row in (
        table[table["missing_seeds"] != ""].drop_duplicates(["factor", "level"]).itertuples()
    ):
        found.append(f"{row.factor} = {row.level} lacks seeds {row.missing_seeds}.")
    return found


def to_markdown(table: pd.DataFrame) -> str:
    """Every factor as a Markdown table; accuracies in percent, best bold, differences paired."""
    parts = []
    for factor, rows in shown(table):
        lines = [f"**{_md(factor)}**", ""]
        lines += ["| level | n | val | test | Δ val to baseline (paired, 95 %) | p (Holm) |"]
        lines += ["|---|---|---|---|---|---|"]
        best = best_level(rows)
        for level, val, test in rows:
            mean = _mean(val)
            lines.append(
                f"| {_md(level)} | {val['n']} | {f'**{mean}**' if level == best else mean} "
                f"| {_mean(test)} | {_difference(val)} | {_p(val)} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + ("\n" if parts else "")


def to_latex(table: pd.DataFrame) -> str:
    """Every factor as a booktabs table; needs the package booktabs."""
    parts = []
    for factor, rows in shown(table):
        best, second = best_level(rows), best_level(rows, skip=1)
        lines = [r"\begin{tabular}{lrrrrr}", r"\toprule"]
        lines += [
            rf"{_tex(factor)} & $n$ & val (\%) & test (\%) & $\Delta$ val & $p$ \\",
            r"\midrule",
        ]
        for level, val, test in rows:
            mean = _mean(val).replace("±", r"$\pm$")
            if level == best:
                mean = rf"\textbf{{{mean}}}"
            elif level == second:
                mean = rf"\underline{{{mean}}}"
            cells = [
                _tex(level), str(val["n"]), mean, _mean(test).replace("±", r"$\pm$"),
                _difference(val).replace("−", "$-$"), _p(val).replace("<", "$<$"),
            ]  # fmt: skip
            lines.append(" & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + ("\n" if parts else "")


Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]


def shown(table: pd.DataFrame) -> list[tuple[str, list[Row]]]:
    """Per factor: level with its val and test rows, in the design's order."""
    found = []
    for factor, rows in table.groupby("factor", sort=False):
        by_metric = {m: rows[rows["metric"] == m].to_dict("records") for m in METRICS}
        pairs = zip(*by_metric.values(), strict=True)
        found.append((str(factor), [(val["level"], val, test) for val, test in pairs]))
    return found


def best_level(rows: Sequence[Row], skip: int = 0) -> str | None:
    """The level with the highest mean (`skip` = 1: the second); None with fewer than two."""
    ranked = sorted((r for r in rows if r[1]["n"]), key=lambda r: -r[1]["mean"])
    return ranked[skip][0] if len(ranked) > max(skip, 1 - skip) else None


def cells(row: Row) -> dict[str, str]:
    """One level as text, for a page."""
    level, val, test = row
    return {
        "level": level,
        "n": str(val["n"]),
        "val": _mean(val),
        "test": _mean(test),
        "difference": _difference(val),
        "p": _p(val),
    }


def _mean(row: Mapping[str, Any]) -> str:
    if not row["n"]:
        return "-"
    mean = f"{100 * row['mean']:.2f}"
    return (
        mean
        if row["std"] is None or row["std"] != row["std"]
        else f"{mean} ± {100 * row['std']:.2f}"
    )


def _difference(row: Mapping[str, Any]) -> str:
    if row["is_baseline"]:
        return "baseline"
    if row["diff"] is None or row["diff"] != row["diff"]:
        return "-"
    text = f"{100 * row['diff']:+.2f}"
    if row["diff_low"] is not None and row["diff_low"] == row["diff_low"]:
        text += f" [{100 * row['diff_low']:+.2f}, {100 * row['diff_high']:+.2f}]"
    return text.replace("-", "−")


def _p(row: Mapping[str, Any]) -> str:
    p = row["p_holm"]
    if p is None or p != p:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _md(text: str) -> str:
    for char in "\\`*_|<>[]":
        text = text.replace(char, f"\\{char}")
    return text


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {c: f"\\{c}" for c in "&%$#_{}"} | {"<": "$<$", ">": "$>$"}
    return "".join(special.get(c, c) for c in text)
