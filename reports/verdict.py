"""What a study says in a few plain sentences: who leads, by how much, and whether that is shown.

The same verdict stands on the page, in the terminal and in trackers. Who wins is decided by
`spaces.verdict` and who is selected by `spaces.selection`, as everywhere.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from reports.frames import Frames
from reports.labels import method_column, plural
from reports.statistics.contest import OPEN
from reports.verdicts import of_ablation, of_confirmation, of_reproduction, of_search
from reports.verdicts.words import Said
from spaces.wording import by_reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a study says in plain sentences."""

    headline: str
    """One sentence."""
    sentences: tuple[str, ...] = ()
    """What stands behind it: values, interval, p, what the design could have seen."""
    warnings: tuple[str, ...] = ()
    """What speaks against trusting it, the gravest first."""
    winner: str | None = None
    """Row or trial of a setting whose lead is shown; None: not decided."""

    @property
    def text(self) -> str:
        """All of it, a sentence a line."""
        return "\n".join([self.headline, *self.sentences, *self.warnings])


def verdict_of(found: Frames, confirmation: Frames | None = None) -> Verdict:
    """What a study says.

    Args:
        confirmation: Of the study that trained the best points of this search again.
    """
    headline, sentences, winner = _nothing(found) or _something(found, confirmation)
    return Verdict(headline, tuple(sentences), tuple(_warnings(found)), winner)


def _something(found: Frames, confirmation: Frames | None) -> Said:
    if found.study.reproduces:
        return of_reproduction.said(found)
    if found.study.kind == "search":
        said = of_search.said(found)
        return said if confirmation is None else of_confirmation.after(found, said, confirmation)
    return (of_confirmation if found.study.compares_rows else of_ablation).said(found)


def _nothing(found: Frames) -> Said | None:
    """What is to be said while no trial has a value; None: one has."""
    if len(found.used):
        return None
    trials, metric = found.trials, found.study.objectives[0].metric
    counts = Counter(trials["status"])
    num_open = sum(counts[status] for status in OPEN)
    if trials.empty:
        return "No completed trial yet: none was planned, so there is nothing to select.", [], None
    if num_open:
        others = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        return f"No completed trial yet: {others}.", [*_reasons(trials)], None
    if counts["completed"]:
        text = f"{plural(counts['completed'], 'trial')} completed, none with a finite {metric}"
        return f"{text}: there is nothing to select.", [*_reasons(trials)], None
    if counts["failed"] == len(trials):
        all_ = f"All {len(trials)} trials failed" if len(trials) > 1 else "The only trial failed"
        return f"{all_}, so there is nothing to select.", [*_reasons(trials)], None
    text = "No trial was trained to its end"
    others = ", ".join(f"{n} {_SAID.get(s, s)}" for s, n in sorted(counts.items()))
    return f"{text}: {others}.", [*_reasons(trials)], None


_SAID = {"pruned": "stopped early"}


def _reasons(trials: pd.DataFrame) -> Iterator[str]:
    """Why trials failed, the most frequent reason first."""
    failed = trials[trials["status"] == "failed"]
    told = zip(failed["trial"], failed["reason"].fillna(""), strict=True)
    for reason, names in by_reason((name, text) for name, text in told if text.strip())[:3]:
        yield f"{plural(len(names), 'trial')} failed: {reason.rstrip('.')}."


def _warnings(found: Frames) -> Iterator[str]:
    """What speaks against trusting the verdict, the gravest first."""
    trials, counts = found.trials, Counter(found.trials["status"])
    grave = dict.fromkeys(w for text in trials["warnings"].unique() for w in json.loads(text))
    yield from (text for text in grave if "random weights" in text)
    if "train.selection" in trials and (trials["train.selection"] == "best_test_epoch").any():
        yield "Epochs were selected on the test split, so test values are too high."
    course = found.course
    if course is not None and not course.is_finished and len(trials):
        num_open = sum(counts[status] for status in OPEN)
        left = f": {num_open} of {len(trials)} trials have not ended" if num_open else ""
        yield f"The study has not finished{left}; this can change."
    yield from _undertrained(trials)
    if counts["failed"] and len(found.used):
        yield f"{counts['failed']} of {len(trials)} trials failed."


def _undertrained(trials: pd.DataFrame) -> Iterator[str]:
    """Methods that were trained to their end once at most."""
    methods, is_done = method_column(trials), trials["status"] == "completed"
    names = [name for name in methods.dropna().unique() if name]
    done = Counter(methods[is_done])
    few = sum(done[name] < 2 for name in names)
    if len(names) < 2 or not few or len(trials) <= len(names):
        return
    pruned = int((trials["status"] == "pruned").sum())
    why = f": {pruned} of {len(trials)} trials were stopped early" if pruned else ""
    were = "were" if few > 1 else "was"
    yield f"{few} of {len(names)} methods {were} never trained to the end more than once{why}."
