"""What a search says: which setting leads, over which others, and whether that is shown."""

from collections.abc import Iterator

from reports.frames import Frames
from reports.labels import Quantity, method_column
from reports.statistics import contest as contests
from reports.statistics.across_data_sets import dataset_of
from reports.statistics.contest import Contest
from reports.statistics.fronts import on_front
from reports.statistics.paired_tests import compare_paired
from reports.tables import ranking
from reports.verdicts.words import (
    Said,
    could_have_seen,
    difference_text,
    mean_of,
    method_of,
    quantity,
    searched_settings,
    seeds_said,
    tested,
)
from spaces.selection import Standing
from spaces.verdict import FIRST_SEEDS, paired_p

ROWS = 5
"""Names that a sentence lists."""


def said(found: Frames) -> Said:
    """Headline, sentences and winner of a search with at least one value."""
    study, trials = found.study, found.trials
    shown = quantity(study.objectives[0].metric)
    points = ranking(trials, study).points
    contest = contests.of_points(trials, study)
    names = searched_settings(trials, study)
    leader = points[0]
    is_shown = contest.decided.winner == leader.point
    return (
        _headline(found, contest, shown, points),
        [*_sentences(found, contest, names, shown, points)],
        leader.trials[0] if is_shown else None,
    )


def _who(found: Frames, one: Standing) -> str:
    """Whom a headline names: the method where several were searched, else the setting."""
    names = searched_settings(found.trials, found.study)
    if "methods" in found.study.axes:
        return method_of(found.trials, one.trials[0])
    return names[one.trials[0]] or "the only setting"


def _headline(
    found: Frames, contest: Contest, shown: Quantity, points: tuple[Standing, ...]
) -> str:
    leader, who = points[0], _who(found, points[0])
    is_done = found.course is None or found.course.is_finished
    leads = f"{who} leads{'' if is_done else ' so far'} with {shown.said(leader.value)}"
    if len(points) == 1:
        if not is_done:
            return f"{who} has the only value so far: {shown.said(leader.value)}."
        only = "was trained to its end" if _num_completed(found) == 1 else "has a finite value"
        return f"{who} is the only setting that {only}: {shown.said(leader.value)}."
    if contest.decided.winner == leader.point:
        return f"{leads}: every other completed setting is significantly worse."
    if contest.is_tie:
        # rounded, since equal means of other seeds differ in their last bits
        equal = [one for one in points if round(one.value - leader.value, 12) == 0]
        names = list(dict.fromkeys(_who(found, one) for one in equal[:ROWS]))
        if len(names) == 1:
            both = f"{len(equal)} settings of {who}"
        elif len(names) < len(equal):
            both = f"{', '.join(names)} ({len(equal)} settings)"
        else:
            both = f"{', '.join(names[:-1])} and {names[-1]}"
        return f"{both} tie at {shown.said(leader.value)}{'' if is_done else ' so far'}."
    if _is_next_beaten(contest) or not contest.paired:
        return f"{leads}, but not every other setting is shown to be worse."
    return f"{leads}, but its lead over the next setting is not shown."


def _num_completed(found: Frames) -> int:
    """Settings with a completed trial, whatever its value."""
    trials = found.trials[found.trials["status"] == "completed"]
    return int(trials["point"].fillna(trials["trial"]).nunique())


def _is_next_beaten(contest: Contest) -> bool:
    """Whether the next setting is told from the leader, as `spaces.verdict` tells rows apart."""
    paired = contest.paired
    if paired is None or paired.p is None or paired.n < FIRST_SEEDS:
        return False
    return paired.p < contest.level


def _sentences(
    found: Frames,
    contest: Contest,
    names: dict[str, str],
    shown: Quantity,
    points: tuple[Standing, ...],
) -> Iterator[str]:
    trials, leader = found.trials, points[0]
    values = contest.values.get(leader.point, {})
    mean = mean_of(shown, values) if values else shown.value(leader.value)
    of = f" of {leader.num_seeds}" if leader.missing else ""
    seeds = f" over {len(leader.seeds)}{of} seeds" if len(leader.seeds) > 1 or of else ""
    test = tested(trials, list(leader.trials), found.study.score)
    plural = "s" if len(leader.trials) > 1 else ""
    yield (
        f"Selected: {names[leader.trials[0]] or 'the only setting'} "
        f"(trial{plural} {', '.join(leader.trials)}), {shown.on(mean)}{seeds}{test}."
    )
    if leader.missing:
        yield ranking(trials, found.study).note
    if contest.paired and len(points) > 1:
        text = difference_text(shown, contest.paired, contest.level)
        yield f"Next: {names[points[1].trials[0]]} with {shown.value(points[1].value)}; {text}."
    yield from _unbeaten(found, contest, names, shown, points)
    if seen := could_have_seen(shown, contest):
        yield seen
    elif contest.num_seeds < FIRST_SEEDS and len(points) > 1:
        seeds = "One seed shows" if contest.num_seeds == 1 else f"{contest.num_seeds} seeds show"
        yield f"{seeds} too little spread to tell settings apart; {FIRST_SEEDS} fresh seeds may."
    yield from _other_method(found, shown, points)
    yield from _objectives(found)
    yield from _data_sets(found)
    if found.study.is_population:
        yield (
            "Trials changed their settings while they trained, so that no confirmation trains one "
            "again; search with a fresh seed (--set seeds=[1]) and compare the best of both."
        )
    elif len(points) > 1:
        yield f"Not confirmed yet: tcpa confirm {found.study.name}."


def _unbeaten(
    found: Frames,
    contest: Contest,
    names: dict[str, str],
    shown: Quantity,
    points: tuple[Standing, ...],
) -> Iterator[str]:
    """A setting behind the next one that may be as good as the leader: it varies more, or lacks
    seeds because trials failed. Of several the one that comes closest or is better by most."""
    if contest.decided.winner is not None or contest.num_seeds < 2:
        return
    utility, own = found.study.objectives[0].utility, contest.values.get(points[0].point, {})
    leads: dict[Standing, float] = {}
    for one in points[1:]:
        values = contest.values.get(one.point, {})
        both = [seed for seed in own if seed in values]
        if one.point in contest.order[:2] or not both:
            continue
        pairs = [own[seed] for seed in both], [values[seed] for seed in both]
        lead = utility(sum(pairs[0]) - sum(pairs[1])) / len(both)
        is_beaten = len(both) >= FIRST_SEEDS and paired_p(*pairs) < contest.level
        if lead < 0 or (_is_next_beaten(contest) and not is_beaten):
            leads[one] = lead
    if leads:
        one = min(leads, key=leads.__getitem__)
        paired = compare_paired(own, contest.values[one.point])
        lacks = f" (lacks {seeds_said(one.missing)})" if one.missing else ""
        yield (
            f"Not shown to be worse: {names[one.trials[0]]} with {shown.value(one.value)}{lacks}; "
            f"{difference_text(shown, paired, contest.level)}."
        )


def _other_method(found: Frames, shown: Quantity, points: tuple[Standing, ...]) -> Iterator[str]:
    """The best setting of another method, where the next one is of the same."""
    if "methods" not in found.study.axes or len(points) < 2:
        return
    methods = dict(zip(found.trials["trial"], method_column(found.trials), strict=True))
    best = methods[points[0].trials[0]]
    others = [one for one in points[1:] if methods[one.trials[0]] != best]
    if others and others[0] is not points[1]:
        name, value = methods[others[0].trials[0]], shown.value(others[0].value)
        yield f"The best of another method is {name} with {value}."


def _objectives(found: Frames) -> Iterator[str]:
    """What a second objective makes of it."""
    objectives = found.study.objectives
    if len(objectives) < 2:
        return
    first, second = objectives[:2]
    used = found.used[found.used[second.metric].notna()]
    worth = first.sign * used[first.metric].astype(float)
    front = on_front(-second.sign * used[second.metric].astype(float), worth)
    *most, last = (one.metric for one in objectives)
    names = f"{', '.join(most)} and {last}"
    yield (
        f"Of the objectives {names} the first one selects; {int(front.sum())} of {len(used)} "
        f"completed trials are on the Pareto front of {first.metric} and {second.metric}."
    )


def _data_sets(found: Frames) -> Iterator[str]:
    """What a search over several data sets may not be read as."""
    names = list(dict.fromkeys(map(str, dataset_of(found.used).dropna())))
    if len(names) < 2:
        return
    ranks = found.ranks[(found.ranks["factor"] == "methods")]
    best = ranks.sort_values("mean_rank").to_dict("records")[:1]
    whole = "".join(
        f"; over the {row['n']} that all methods have, {row['level']} has the best mean rank "
        f"({row['mean_rank']:.2f})"
        for row in best
    )
    yield (
        f"The study has {len(names)} data sets, whose values cannot be compared with each other: "
        f"the selected setting is the best of one of them{whole}."
    )
