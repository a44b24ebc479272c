"""What a confirmation says, for itself and for the search whose best points it trained again."""

from collections.abc import Iterator

from reports.frames import Frames
from reports.labels import Quantity, unspoken
from reports.statistics import contest as contests
from reports.statistics.contest import Contest
from reports.tables import ranking
from reports.verdicts.words import (
    Said,
    could_have_seen,
    difference_text,
    mean_of,
    quantity,
    tested,
    upper,
)

ROWS = 4
"""Rows that a sentence names."""


def said(found: Frames) -> Said:
    """Headline, sentences and winner of a study of which one row is to be the winner."""
    contest = contests.of_rows(found.trials, found.study)
    shown = quantity(found.study.objectives[0].metric)
    selected, winner = _baseline(found), contest.decided.winner
    leader = contest.order[0]
    leads = f"{told(leader)} leads with {_value(shown, contest, leader)}"
    if contest.num_open:
        headline = f"{leads} so far; {_open(contest)}."
    elif winner is None:
        headline = f"Not decided: {leads}, but that is not shown."
    else:
        headline = f"{told(winner)} wins with {_value(shown, contest, winner)}."
    sentences = [*_rows(found, contest, shown)]
    if found.study.confirms and selected and not contest.num_open:
        sentences.insert(0, _outcome(found.study.confirms["name"], selected, winner))
    return headline, sentences, winner


def _outcome(search: str, selected: str, winner: str | None) -> str:
    if winner is None:
        return f"What {search} selected, {told(selected)}, is neither confirmed nor overturned."
    if winner == selected:
        return f"This confirms what {search} selected."
    return f"This overturns the search: {search} had selected {told(selected)}."


def after(found: Frames, search: Said, confirmation: Frames) -> Said:
    """What a search says with its confirmation.

    Args:
        search: What it says by itself.
    """
    headline, sentences, _ = search
    before = [one for one in sentences if not one.startswith("Not confirmed yet")]
    study, trials = confirmation.study, confirmation.trials
    name = study.name
    contest = contests.of_rows(trials, study)
    shown = quantity(study.objectives[0].metric)
    if not contest.order:
        began = "has no value yet" if contest.num_open or trials.empty else "gave no value"
        return headline, [*before, f"Its confirmation {name} {began}."], None
    selected, winner = _selected_row(found, confirmation), contest.decided.winner
    mean = _value(shown, contest, winner or contest.order[0])
    rows = [*_rows(confirmation, contest, shown)]
    if contest.num_open:
        running = f"{headline[:-1]}; it is being confirmed ({name}, {_open(contest)})."
        return running, [*before[:1], *rows], None
    if winner is None:
        text = f"Not confirmed: on fresh seeds {told(contest.order[0])} leads with {mean}"
        return f"{text}, but that is not shown.", [*before[:1], *rows], None
    if selected is None:
        text = f"{told(winner)} wins the confirmation {name} with {mean}, but"
        return f"{text} the search has selected another setting since.", [*before[:1], *rows], None
    if winner == selected:
        text = f"Confirmed: on fresh seeds {told(winner)} wins with {mean}."
        return text, [*before[:1], *rows], winner
    text = f"Overturned: on fresh seeds {told(winner)} wins with {mean}"
    return f"{text}; the search had selected {told(selected)}.", [*before[:1], *rows], winner


def _rows(found: Frames, contest: Contest, shown: Quantity) -> Iterator[str]:
    """Every row's mean, the difference of the two best, and the decision as in the terminal."""
    trials = found.trials
    names = contests.rows_of(trials)
    parts = []
    for row in contest.order[:ROWS]:
        of_row = [t for t, name in zip(trials["trial"], names, strict=True) if name == row]
        test = tested(trials, of_row, found.study.score)
        parts.append(f"{told(row)} {mean_of(shown, contest.values[row])}{test}")
    more = len(contest.order) - ROWS
    parts += [f"{more} more"] if more > 0 else []
    seeds = f"{contest.num_seeds} fresh seed{'s' * (contest.num_seeds > 1)}"
    fresh = seeds if found.study.confirms else seeds.replace("fresh ", "")
    on = f", {shown.name}" if not shown.split or unspoken(shown.metric) else ""
    yield f"On {fresh} ({found.study.name}{on}): {'; '.join(parts)}."
    if contest.paired:
        yield f"{upper(difference_text(shown, contest.paired, contest.level))}."
    if seen := could_have_seen(shown, contest):
        yield seen
    if contest.num_open:  # more seeds may decide otherwise
        return
    text = contest.decided.text
    yield upper(text) if contest.decided.winner is None else text  # which begins with a name


def told(row: str) -> str:
    """A row's name within a sentence: "point 2 (vpt, lr 0.026)" for "point 2: vpt, lr 0.026"."""
    name, _, settings = row.partition(": ")
    return f"{name} ({settings})" if settings else row


def _value(shown: Quantity, contest: Contest, row: str) -> str:
    mean = mean_of(shown, contest.values[row])
    return shown.on(mean)


def _open(contest: Contest) -> str:
    return f"{contest.num_open} trial{'s have' if contest.num_open > 1 else ' has'} not ended"


def _baseline(found: Frames) -> str:
    """The row that the design compares others with: what the search had selected."""
    rows = found.ablation[found.ablation["is_baseline"].astype(bool)]["level"]
    return str(rows.iloc[0]) if len(rows) else ""


def _selected_row(found: Frames, confirmation: Frames) -> str | None:
    """The row that trains what the search selects now; None: it selects something else by now.

    A comparison of methods has a row for the best of each.
    """
    leader = ranking(found.trials, found.study).selected
    trials = confirmation.trials
    if leader is None or not set(trials["point"].dropna()) & set(found.trials["point"].dropna()):
        return _baseline(confirmation) or None  # points of an older version have other names
    of_point = trials["point"] == leader.point
    return contests.rows_of(trials[of_point])[0] if of_point.any() else None
