"""Write a trained trial as a folder, with all that its study knows of it on the card."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reports.statistics.paired_tests import summarise
from search.study.folder import StudyDir
from search.terminal import bytes_text
from search.verbs.trained import Source
from spaces.selection import Results
from tcpa_core.exports.card import Facts, Measured
from tcpa_core.record.scores import CALLED
from tcpa_core.record.state import StudyState, TrialState
from tcpa_core.training.export import Exported, export_trial

UNFINISHED = {"pruned": "was stopped early", "failed": "failed", "running": "had not ended"}
"""What is said of a trial that did not train to its end, by its status."""


def export(
    source: Source,
    out: Path,
    *,
    format: str,
    weights: Path | None = None,
    grey_bits: int | None = None,
) -> Iterator[str]:
    """Write the folder.

    Yields:
        What to tell the user.

    Raises:
        ConfigError: The trial cannot have the format, or the folder has other things in it.
        TcpaError: The trial cannot be loaded.
    """
    found = exported(source, out, format=format, weights=weights, grey_bits=grey_bits)
    sizes = ", ".join(f"{name} {bytes_text(size)}" for name, size in found.files.items())
    yield f"{out}: {sizes}"
    yield (
        f"read back: logits differ from the trial's by at most {found.difference:.1e} on "
        f"{found.pictures}"
    )
    yield from found.notes


def exported(
    source: Source,
    out: Path,
    *,
    format: str,
    weights: Path | None,
    grey_bits: int | None,
) -> Exported:
    """Write the folder, as `export`."""
    facts = facts_of(source.study, source.trial) if source.study else None
    return export_trial(
        source.path, out, format=format, facts=facts, weights=weights, grey_bits=grey_bits
    )


def facts_of(study: StudyDir, trial: str) -> Facts:
    """What a study knows of one of its trials."""
    state, document = study.state(), study.document()
    found = state.trials[trial]
    return Facts(
        study=study.name,
        trial=trial,
        measured=tuple(_measured(state, found)),
        data=_data(document, found),
        protocol=found.planned.config.protocol,
        deviations=tuple(found.planned.deviation),
        selection=_selection(study, state, trial),
        git=str(document.get("git") or ""),
    )


def _measured(state: StudyState, trial: TrialState) -> Iterator[Measured]:
    """Scores of a trial and of the other seeds of its setting."""
    point = trial.planned.point
    # A seed that was stopped early or failed has the number of another epoch.
    replicates = [
        one
        for one in state.trials.values()
        if one.planned.point == point and (one.status == "completed" or one is trial)
    ]
    score = trial.score
    for field in (score.test, *score.variants, score.val):
        value = _value(trial, field)
        if value is None:
            continue
        every = ((one.planned.seed, _value(one, field)) for one in replicates)
        by_seed = {seed: got for seed, got in every if got is not None}
        spread = summarise(list(by_seed.values()))
        yield Measured(
            name=CALLED[field],
            value=value,
            by_seed=by_seed,
            mean=spread.mean,
            low=spread.low,
            high=spread.high,
        )


def _value(trial: TrialState, field: str) -> float | None:
    if field.startswith("test_"):
        return trial.on_test(field)
    value: float | None = getattr(trial.result, field, None)
    return value


def _data(document: Mapping[str, Any], trial: TrialState) -> Mapping[str, Any]:
    """What was recorded of a trial's data set; {}: nothing, or it is not told which."""
    flat = trial.planned.config.flat()
    entries = [one for one in document.get("data") or [] if isinstance(one, dict)]
    mine = [
        one
        for one in entries
        if all(flat.get(path) == value for path, value in one.get("settings", {}).items())
    ]
    found = mine or (entries if len(entries) == 1 else [])
    return {k: v for k, v in found[0].items() if k != "settings"} if found else {}


def _selection(study: StudyDir, state: StudyState, trial: str) -> str:
    """How far the trial came, and how it came to be chosen, where it was."""
    space, found = study.space(), state.trials[trial]
    said = []
    if found.status in UNFINISHED:
        of = f" of {found.epochs}" if found.epochs else ""
        said.append(f"The trial {UNFINISHED[found.status]} after {found.trained}{of} epochs.")
    if found.test_accuracy is None:
        said.append("The test split was not read for it.")
    selected = Results.of(space, state).ranking().selected
    if space.ablation or selected is None or trial not in selected.trials:
        return " ".join(said)
    count = len(state.trials)
    said.append(
        f"Its setting was selected among {count:,} trials by {space.objective[0].metric}, so that "
        "its val numbers are optimistic; the test split was not looked at for that."
    )
    return " ".join(said)
