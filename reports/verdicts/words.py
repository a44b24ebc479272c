"""Sentences that verdicts of all kinds share."""

from collections.abc import Mapping, Sequence

import pandas as pd

from reports.columns import TRIAL_COLUMNS
from reports.labels import Quantity, is_missing, method_column, methods_label, p_text, plain
from reports.records.study import Study
from reports.statistics.contest import Contest
from reports.statistics.paired_tests import Paired, summarise
from spaces.wording import setting_text
from tcpa_core.record.scores import Score

Said = tuple[str, list[str], str | None]
"""Headline, sentences, and who has won: None where nobody has."""

_UNITS = {column.name: column.unit for column in TRIAL_COLUMNS}


def quantity(metric: str) -> Quantity:
    """A metric with the unit of its column."""
    return Quantity(metric, _UNITS.get(metric, ""))


def searched_settings(trials: pd.DataFrame, study: Study) -> dict[str, str]:
    """The searched settings of each trial in words, by its name."""
    columns = [path for path in study.axes if path in trials]
    found = {}
    for trial, *values in zip(trials["trial"], *(trials[path] for path in columns), strict=True):
        given = zip(columns, values, strict=True)
        found[trial] = setting_text({
            path: methods_label(value) if path == "methods" else plain(value)
            for path, value in given
            if not is_missing(value)
        })  # fmt: skip
    return found


def method_of(trials: pd.DataFrame, trial: str) -> str:
    """The methods of a trial; "" where the study has no such setting."""
    of_trial = method_column(trials)[trials["trial"] == trial]
    return "" if is_missing(of_trial.iloc[0]) else str(of_trial.iloc[0])


def mean_of(shown: Quantity, values: Mapping[int, float]) -> str:
    """Mean over seeds with half of its interval: "84.6 ± 7.1 %"."""
    found = summarise(list(values.values()))
    return shown.mean(list(values.values()), found.low, found.high)


def tested(trials: pd.DataFrame, names: list[str], score: Score) -> str:
    """ ", 83.6 % on test" of some trials; "": their test split was not read."""
    values = trials[score.test][trials["trial"].isin(names)].dropna()
    return f", {quantity(score.test).said(float(values.mean()))}" if len(values) else ""


def difference_text(shown: Quantity, paired: Paired, level: float) -> str:
    """ "difference +1.9 [−7.6, +11.3] points over 5 seeds, p = 0.24"."""
    text = f"difference {shown.difference(paired.diff or 0.0, paired.low, paired.high)}"
    if paired.n == 1:
        return f"{text} on the one seed, so without an interval"
    text += f" over {paired.n} seeds"
    if paired.p is None:
        return f"{text}, the same on every seed, so without an interval"
    return f"{text}, {p_said(paired.p)}" + (
        f", where {level:.3g} is the limit for this many rows and looks" if level < 0.05 else ""
    )


def p_said(p: float) -> str:
    """ "p = 0.24" or "p < 0.001"."""
    text = p_text(p, 2 if p >= 0.1 else 3)
    return f"p {text[0]} {text[1:]}" if text.startswith("<") else f"p = {text}"


def could_have_seen(shown: Quantity, contest: Contest) -> str:
    """What the design could have seen; "": it is not known."""
    if contest.detectable is None:
        return ""
    size = shown.size(contest.detectable)
    return f"Smallest difference that this design could have seen: {size}."


def seeds_said(seeds: Sequence[int]) -> str:
    """ "seed 2" or "seeds 0, 2"."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def upper(text: str) -> str:
    """With a capital, but for names."""
    return text[:1].upper() + text[1:]
