"""What an ablation says: which levels differ from their baseline, and what could have been seen."""

from collections.abc import Iterator, Sequence

import pandas as pd

from reports.frames import Frames
from reports.labels import COMBINATION, Row, heading, is_missing, on_val, plural, unspoken
from reports.statistics.paired_tests import ERROR, FEW
from reports.verdicts.words import Said, p_said, quantity

SHOWN = quantity("val_accuracy")
"""Differences are written as those of accuracies: every task's score is a share."""
MOST = 4
"""Levels that have a sentence of their own."""
SETS_NEEDED = 6
"""Data sets from which Wilcoxon's test can tell two levels apart at 5 %."""


def said(found: Frames) -> Said:
    """Headline and sentences of an ablation with at least one value."""
    headline, sentences, winner = _said(found)
    score = unspoken(found.study.score.val)
    return f"{score and f'By {score} on val: '}{headline}", sentences, winner


def _said(found: Frames) -> Said:
    levels = on_val(found.ablation)
    if (levels["dataset"].nunique() > 1) and not found.ranks.empty:
        return _across(found)
    if levels["factor"].nunique() > 1:  # of a factorial: its runs are no factor of it
        levels = levels[levels["factor"] != COMBINATION]
    rows = [row for row in levels.to_dict("records") if not row["is_baseline"] and row["n"]]
    base = _baseline(levels)
    if not base or not rows:
        return _uncompared(levels)
    several = levels["factor"].nunique() > 1
    names = {id(row): _name(row, several) for row in rows}
    tested = [row for row in rows if not is_missing(row["p_holm"])]
    if not tested:
        return _untested(rows, base)
    differing = [row for row in tested if row["p_holm"] < ERROR]
    same = [row for row in tested if row["p_holm"] >= ERROR]
    sentences = [
        f"{names[id(row)]}: {_difference(row)} over {row['n_paired']} seeds, "
        f"{p_said(row['p_holm'])} after Holm over {plural(int(row['family']), 'test')}."
        for row in differing[:MOST]
    ]
    if same:
        most = max(same, key=lambda row: abs(row["diff"]))
        of = "The largest of the others" if differing else "The largest difference"
        of = of if len(same) > 1 else "The difference"
        sentences.append(
            f"{of}, {names[id(most)]} to {base}, is {_difference(most)} over {most['n_paired']} "
            f"seeds, {p_said(most['p_holm'])}: it may be none."
        )
    return _headline(differing, tested, base, names), [*sentences, *_sees(tested)], None


def _headline(
    differing: Sequence[Row], tested: Sequence[Row], base: str, names: dict[int, str]
) -> str:
    if not differing:
        between = f"between {names[id(tested[0])]} and {base}" if len(tested) == 1 else f"to {base}"
        return f"No difference {between} is shown."
    parts = [f"{names[id(row)]} is {_better(row)}" for row in differing[:3]]
    more = f", and {len(differing) - 3} more differ" if len(differing) > 3 else ""
    rest = len(tested) - len(differing)
    others = f"; of {plural(rest, 'other level')} no difference is shown" if rest else ""
    return f"Against {base}, {', '.join(parts)}{more}{others}."


def _better(row: Row) -> str:
    return f"{'better' if row['diff'] > 0 else 'worse'} by {SHOWN.size(abs(row['diff']))}"


def _difference(row: Row) -> str:
    ends = () if is_missing(row["diff_low"]) else (row["diff_low"], row["diff_high"])
    return SHOWN.difference(row["diff"], *ends)


def _sees(tested: Sequence[Row]) -> Iterator[str]:
    """The smallest differences that the design sees, from the least to the most noisy level."""
    sizes = [row["detectable"] for row in tested if not is_missing(row["detectable"])]
    if not sizes:
        return
    low, high = SHOWN.size(min(sizes)), SHOWN.size(max(sizes))
    span = low if low == high else f"{low.split()[0]} to {high}"
    yield f"This design sees differences of {span} (one test at 5 %, with 80 % power)."


def _untested(rows: Sequence[Row], base: str) -> Said:
    """No level has a test: too few seeds, or differences that do not vary."""
    pairs = max(int(row["n_paired"]) for row in rows)
    if pairs < 2:
        why = "One seed shows no spread" if pairs else f"No level shares a seed with {base}"
        headline = f"{why}, so no difference to {base} can be told from chance."
        return headline, [f"{FEW} seeds or more may show one."], None
    equal = f"All differences to {base} are the same on every seed"
    return f"{equal}, so they have neither interval nor test.", [], None


def _uncompared(levels: pd.DataFrame) -> Said:
    """No level is compared with another one."""
    if _baseline(levels):
        return f"Only {_baseline(levels)} has a value yet, so nothing is compared.", [], None
    known = levels[levels["n"] > 0]
    means = [SHOWN.value(known["mean"].min()), SHOWN.value(known["mean"].max())]
    over = f"{plural(len(known), 'level')} lie between {means[0]} and {means[1]} on val."
    return "The design has no baseline level, so no difference is tested.", [over], None


def _baseline(levels: pd.DataFrame) -> str:
    """The level that others are compared with; of several factors the word for all of them."""
    names = levels[levels["is_baseline"].astype(bool) & (levels["n"] > 0)]["level"]
    if levels["factor"].nunique() > 1:
        return "the baseline" if len(names) else ""
    return str(names.iloc[0]) if len(names) else ""


def _name(row: Row, several: bool) -> str:
    name = f"{row['factor']} = {row['level']}" if several else str(row["level"])
    return heading(name, str(row["dataset"]))


def _across(found: Frames) -> Said:
    """A design on several data sets: its levels are compared over them."""
    ranks = on_val(found.ranks)
    ranks = ranks[ranks["factor"] != COMBINATION] if ranks["factor"].nunique() > 1 else ranks
    rows = ranks.to_dict("records")
    several = ranks["factor"].nunique() > 1
    bases = [row["level"] for row in rows if row["is_baseline"]]
    base = "the baseline" if several else str(bases[0]) if bases else ""
    sets = int(max((row["n"] for row in rows), default=0))
    over = f"Over {plural(sets, 'data set')}"
    tested = [row for row in rows if not row["is_baseline"] and not is_missing(row["p_holm"])]
    differing = [row for row in tested if row["p_holm"] < ERROR]
    best = min(rows, key=lambda row: row["mean_rank"])
    ranked = f"Best mean rank: {best['level']}, {best['mean_rank']:.2f} of {len(rows)}."
    if not base or not tested:
        why = "there is no baseline level" if not base else "nothing could be tested"
        return f"{over} no difference is shown: {why}.", [ranked], None
    sentences = [
        f"{_level(row, several)}: {_difference(row)}, {p_said(row['p_holm'])} by Wilcoxon's signed "
        "ranks after Holm."
        for row in (differing or sorted(tested, key=lambda row: row["p_holm"]))[:MOST]
    ]
    few = [f"With fewer than {SETS_NEEDED} data sets the test cannot show any."] * (
        sets < SETS_NEEDED and not differing)  # fmt: skip
    if not differing:
        return f"{over} no difference to {base} is shown.", [*sentences, ranked, *few], None
    parts = [f"{_level(row, several)} is {_better(row)}" for row in differing[:3]]
    return f"{over}, against {base}, {', '.join(parts)}.", [*sentences, ranked], None


def _level(row: Row, several: bool) -> str:
    return f"{row['factor']} = {row['level']}" if several else str(row["level"])
