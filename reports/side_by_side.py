"""Several studies in one table: what each of them ended with, compared as the levels of a design.

Of a search each method's best point counts, of an ablation each of its rows. On the same data they
are compared by the seeds they share; across different data by ranks, where the studies have levels
in common.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from reports.columns import COLUMNS, SCHEMA_VERSION
from reports.frames import Frames
from reports.labels import COMBINATION, NewRow, Row, method_column, on_val
from reports.statistics import ablation
from reports.statistics import across_data_sets as cross
from reports.statistics.paired_tests import compare_paired, holm, summarise
from reports.tables import frame_of, of_columns, ranking
from reports.verdicts.words import searched_settings
from spaces.difference import differences
from spaces.load import space_of
from tcpa_core.errors import StudyError, TcpaError

UNNAMED = "unnamed data"
"""Where the trials of a study do not say on which data they were trained."""
FACTOR = "setting"
"""Of the rows: they are levels of one factor."""
OPTIMISTIC = (
    "Rows of a search are its best points, whose values are the largest of many noisy ones and "
    "therefore optimistic; confirmations on fresh seeds ('tcpa confirm') can be put side by side, "
    "too."
)


class Entry(NamedTuple):
    """A row to be: some trials of one study."""

    study: str
    method: str
    """Method, or row of a design."""
    level: str
    """The same, with the study's name where several studies have it on this data set."""
    dataset: str
    trials: tuple[str, ...]
    setting: str
    """What was searched and found, in words; "": a row of a design."""
    leads: bool
    """Whether its study selected it, or measures by it."""


@dataclass(frozen=True)
class SideBySide:
    """Several studies as tables; the columns are those of a single study's tables."""

    studies: tuple[Frames, ...]
    entries: tuple[Entry, ...]
    """In the order of the rows of `levels`."""
    tables: Mapping[str, pa.Table]
    """By name: levels (as `ablation`), scores, ranks, groups."""
    differing: pd.DataFrame
    """Index: what the studies do not share; a column for each study."""
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Names of the studies, in the order given."""
        return [one.study.name for one in self.studies]

    @cached_property
    def levels(self) -> pd.DataFrame:
        """A row for each entry and metric; differences are to the first study's."""
        return frame_of(self.tables["levels"])

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Levels on each data set; empty where there is one."""
        return frame_of(self.tables["scores"])

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """Means, differences and mean ranks across the data sets."""
        return frame_of(self.tables["ranks"])

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Means over the groups of VTAB."""
        return frame_of(self.tables["groups"])

    @property
    def across(self) -> list[cross.Scores]:
        """The score table as a matrix for each metric."""
        return cross.scores_of(self.scores, self.studies[0].study)


def side_by_side(studies: Sequence[Frames]) -> SideBySide:
    """Put studies side by side.

    Args:
        studies: At least two, of different names. Differences are to what the first one selected,
            or to the baseline of its design.

    Raises:
        StudyError: A study is given twice, has nothing completed, or is of another task.
    """
    for name, n in Counter(one.study.name for one in studies).items():
        if n > 1:
            raise StudyError(f"tcpa report: study {name!r} is given {n} times; name each once.")
    _check_tasks(studies)
    keys = [_data_keys(one) for one in studies]
    shown = _data_names(keys)
    entries = [
        entry
        for one, of_trials in zip(studies, keys, strict=True)
        for entry in _entries(one, [shown[key] for key in of_trials])
    ]
    for one in studies:
        if not any(entry.study == one.study.name for entry in entries):
            raise StudyError(
                f"study {one.study.name!r} has completed no trial, so it has no row in a table "
                "with others; leave it out, "
                + (
                    f"'tcpa status {one.study.name}' says why."
                    if one.course is not None and one.course.is_finished
                    else f"or let it run on: 'tcpa resume {one.study.name}'."
                )
            )
    entries = _told_apart(entries)
    levels = _table(_level_rows(entries, studies), "ablation")
    common = _best_of_each(entries, frame_of(levels))
    sets = dict.fromkeys(entry.dataset for entry in entries)
    scores = _table(_level_rows(common, studies) if len(sets) > 1 else [], "scores")
    matrices = cross.scores_of(frame_of(scores), studies[0].study)
    ranked = [cross.rank_rows(one) for one in matrices]
    groups = [row for one in matrices for row in cross.group_rows(one)]
    differing, about = _differing(studies)
    notes = [f"{one.study.name}: {note}" for one in studies for note in one.study.data_notes()]
    notes += _seed_notes(frame_of(levels))
    notes += [note for _, note in ranked]
    notes += [OPTIMISTIC] if any(one.study.kind == "search" for one in studies) else []
    return SideBySide(
        studies=tuple(studies),
        entries=tuple(entries),
        tables={
            "levels": levels,
            "scores": scores,
            "ranks": _table([row for rows, _ in ranked for row in rows], "ranks"),
            "groups": _table(groups, "groups"),
        },
        differing=differing,
        notes=tuple(dict.fromkeys(filter(None, [*notes, *about]))),
    )


def _check_tasks(studies: Sequence[Frames]) -> None:
    """Refuse studies of different tasks: their scores have no common scale."""
    names = {one.study.score: one.study.name for one in studies}
    if len(names) > 1:
        told = ", ".join(f"{name!r} is judged by {score.label}" for score, name in names.items())
        raise StudyError(
            f"tcpa report: studies of different tasks cannot stand in one table ({told}); give "
            "those of one task at a time."
        )


def _entries(one: Frames, data: Sequence[str]) -> Iterator[Entry]:
    """What a study ended with.

    Args:
        data: Name of each trial's data set.
    """
    name, trials = one.study.name, one.trials
    sets = pd.Series(data, index=trials.index, dtype=object)
    if one.study.kind == "ablation":
        yield from _rows_of_design(name, trials[one.trials["left_out"] == ""], sets)
        return
    selected = ranking(trials, one.study).selected
    methods = method_column(trials)
    words = searched_settings(trials, one.study)
    for (method, dataset), part in trials.groupby([methods, sets], sort=False):
        best = ranking(part, one.study).selected
        if best is not None:
            leads = selected is not None and selected.point == best.point
            level = str(method)
            yield Entry(name, level, level, str(dataset), best.trials, words[best.trials[0]], leads)


def _rows_of_design(name: str, trials: pd.DataFrame, sets: pd.Series) -> Iterator[Entry]:
    cells = [(trial, cell) for trial, text in zip(trials["trial"], trials["cells"], strict=True)
             for cell in json.loads(text)]  # fmt: skip
    # of a factorial its runs: levels are means over several of them
    if any(cell["factor"] == COMBINATION for _, cell in cells):
        cells = [(trial, cell) for trial, cell in cells if cell["factor"] == COMBINATION]
    is_one = len({cell["factor"] for _, cell in cells}) == 1
    dataset_of = dict(zip(trials["trial"], sets[trials.index], strict=True))
    found: dict[tuple[str, str], tuple[list[str], bool]] = {}
    for trial, cell in cells:
        level = cell["level"] if is_one else f"{cell['factor']} = {cell['level']}"
        place = found.setdefault((level, dataset_of[trial]), ([], bool(cell["baseline"])))
        place[0].append(trial)
    seen: set[tuple[str, ...]] = set()
    for (level, dataset), (names, is_baseline) in found.items():
        # the baseline is a level of every factor
        if tuple(names) not in seen:
            seen.add(tuple(names))
            yield Entry(name, level, level, dataset, tuple(names), "", is_baseline)


def _data_keys(one: Frames) -> list[str]:
    """Identity of each trial's data set: its fingerprint, else its name."""
    study = one.study
    whole = str((study.document.get("fingerprints") or {}).get("data") or "")
    names = cross.dataset_of(one.trials)
    paths = {path for data in study.data for path in data.get("settings") or {}}
    present = [path for path in sorted(paths) if path in one.trials]
    keys = []
    for name, params in zip(names, one.trials[present].to_dict("records"), strict=True):
        plain = {str(path): None if pd.isna(value) else value for path, value in params.items()}
        print_ = study.data_of(plain).get("fingerprint") or ("" if "+" in whole else whole)
        keys.append(f"{print_}\n{name}")
    return keys


def _data_names(of_studies: Sequence[Sequence[str]]) -> dict[str, str]:
    """By data key a name for the reader; the same for the same fingerprint, and for no other."""
    keys = dict.fromkeys(key for of_trials in of_studies for key in of_trials)
    by_print: dict[str, str] = {}
    for key in keys:
        print_, _, name = key.partition("\n")
        by_print.setdefault(print_ or name, name or UNNAMED)
    uses = Counter(by_print.values())
    return {
        key: name if uses[name] == 1 else f"{name} ({print_[:8]})"
        for key in keys
        for print_, _, own in [key.partition("\n")]
        for name in [by_print[print_ or own]]
    }


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Levels that several studies have on one data set bear the study's name."""
    uses = Counter((entry.level, entry.dataset) for entry in entries)
    many = {level for (level, _), n in uses.items() if n > 1}
    return [
        entry._replace(level=f"{entry.level} ({entry.study})") if entry.level in many else entry
        for entry in entries
    ]


def _best_of_each(entries: Sequence[Entry], levels: pd.DataFrame) -> list[Entry]:
    """Of a level that several studies have on one data set the one with the higher mean on val."""
    val = on_val(levels)
    means = dict(zip(val["trials"], val["mean"], strict=True))
    best: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        known = best.setdefault((entry.method, entry.dataset), entry)
        if means[_trials_text(entry)] > means[_trials_text(known)]:
            best[entry.method, entry.dataset] = entry
    return [entry._replace(level=entry.method) for entry in best.values()]


def _level_rows(entries: Sequence[Entry], studies: Sequence[Frames]) -> list[NewRow]:
    """Rows in the columns of `ablation`, a family of tests for each data set."""
    trials = {one.study.name: one.trials.set_index("trial") for one in studies}
    parts = {entry: trials[entry.study].loc[list(entry.trials)] for entry in entries}
    found: list[NewRow] = []
    measured = (ablation.compared(one.trials, one.study.score) for one in studies)
    metrics = dict.fromkeys(name for names in measured for name in names)
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        here = [entry for entry in entries if entry.dataset == dataset]
        for metric in metrics:
            found += _rows(here, metric, parts)
    return found


def _rows(
    entries: Sequence[Entry], metric: str, parts: Mapping[Entry, pd.DataFrame]
) -> list[NewRow]:
    """Rows of one data set; a mean is over the seeds that its study has, a difference over those
    that both have."""
    # what the first study there selected, or the baseline of its design
    base = next((entry for entry in entries if entry.leads), entries[0])
    if base.study != entries[0].study:
        base = entries[0]
    by_seed = {entry: _by_seed(parts[entry], metric) for entry in entries}
    paired = [
        compare_paired({} if entry is base else by_seed[entry], by_seed[base]) for entry in entries
    ]
    adjusted = holm([one.p for one in paired])
    renamed = {"n": "n_paired", "low": "diff_low", "high": "diff_high"}
    return [
        {
            "factor": FACTOR,
            "dataset": entry.dataset,
            "level": entry.level,
            "order": order,
            "is_baseline": entry is base,
            "metric": metric,
            **dict.fromkeys(("missing", "left_out", "aliases", "hint"), ""),
            "shift": 0.0,
            "family_of": "levels",
            "family": sum(one.p is not None for one in paired),
            "p_holm": p_holm,
            "deviation": "; ".join(dict.fromkeys(filter(None, parts[entry]["deviation"]))),
            "trials": _trials_text(entry),
            **asdict(summarise(list(by_seed[entry].values()))),
            **{renamed.get(name, name): value for name, value in asdict(difference).items()},
        }
        for order, (entry, difference, p_holm) in enumerate(
            zip(entries, paired, adjusted, strict=True)
        )
    ]


def _seed_notes(levels: pd.DataFrame) -> Iterator[str]:
    val = on_val(levels)
    if (val["n"] < 2).any():
        yield "A row with n = 1 has no interval and no test: one seed shows no spread."
    others = val[~val["is_baseline"].astype(bool)]
    for row in others[others["n_paired"] == 0].to_dict("records"):
        yield (
            f"{row['level']} on {row['dataset']} has no seed in common with the row that others "
            "are compared with, so it has no difference."
        )


def _by_seed(trials: pd.DataFrame, metric: str) -> dict[int, float]:
    values = zip(trials["seed"].fillna(0), trials[metric].astype(float), strict=True)
    return {int(seed): value for seed, value in values if math.isfinite(value)}


def _trials_text(entry: Entry) -> str:
    """As the table of levels names the trials behind a row."""
    return json.dumps([f"{entry.study}/{trial}" for trial in entry.trials])


def _table(rows: Sequence[Row], table: str) -> pa.Table:
    about = {"tcpa.schema_version": str(SCHEMA_VERSION), "tcpa.table": table}
    return of_columns(rows, COLUMNS[table], about)


def _differing(studies: Sequence[Frames]) -> tuple[pd.DataFrame, list[str]]:
    """What the studies do not share, and a sentence where one cannot be read."""
    spaces, notes = {}, []
    for one in studies:
        try:
            spaces[one.study.name] = space_of(dict(one.study.space), one.study.name)
        except TcpaError as err:
            notes.append(f"What {one.study.name} does not share with the others is not told: {err}")
    if len(spaces) < 2:
        return pd.DataFrame(), notes
    (first, space), *others = spaces.items()
    rows: dict[str, dict[str, str]] = {}
    for name, other in others:
        for place, before, now in differences(space, other):
            rows.setdefault(place, {first: before})[name] = now
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(spaces))
    # a study without an entry has what the first one has
    return frame.apply(lambda column: column.fillna(frame[first])), notes
