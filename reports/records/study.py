"""What a study's `study.yaml` says about itself: its name, its space, and what it optimises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from spaces.confirmations import confirms, row_names
from spaces.reader import read_stored
from spaces.sections import Objective
from tcpa_core.errors import RecordError, StudyError
from tcpa_core.record.scores import SCORES, TASK, Score

Json = Mapping[str, Any]
"""A part of study.yaml."""
KINDS = ("search", "ablation")
CURVE_METRICS = (*(score.val for score in SCORES.values()), "val_loss", "train_loss")
"""Metrics with a value per epoch, for learning curves."""


@dataclass(frozen=True, slots=True)
class Study:
    """A study's own description. `document` is `study.yaml` as plain JSON values."""

    document: Json

    @classmethod
    def read(cls, study_dir: Path) -> Self:
        """Read `study.yaml` of a study folder.

        Raises:
            StudyError: The folder or its study.yaml is missing.
            RecordError: The file is not a YAML mapping, or its kind is unknown.
        """
        path = study_dir / "study.yaml"
        if not path.is_file():
            what = "has no study.yaml" if study_dir.is_dir() else "does not exist"
            raise StudyError(
                f"{study_dir} {what}, so it is not a study folder; studies lie in ROOT/STUDY, "
                "see --root."
            )
        document = read_stored(path)
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind not in KINDS:
            raise RecordError(f"{path}: kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        # Here, so that no property below has to expect another shape.
        space = document.get("space") or {}
        if not _is_space(space):
            parts = (
                "one of 'base', 'axes', 'ablation', 'objective' and 'seeds' is not what a space has"
            )
            why = f"in 'space' {parts}" if isinstance(space, dict) else "'space' is not a mapping"
            raise RecordError(f"{path} is not a valid study description: {why}.")
        return cls(document)

    @property
    def name(self) -> str:
        return str(self.document.get("name", ""))

    @property
    def is_population(self) -> bool:
        """Whether trials changed their settings while they trained."""
        return (self.space.get("scheduler") or {}).get("name") == "pbt"

    @property
    def kind(self) -> str:
        """ "search" or "ablation"."""
        return str(self.document["kind"])

    @property
    def space(self) -> Json:
        """The space as resolved when the study was made."""
        return self.document.get("space") or {}

    @property
    def preprocessing(self) -> list[Json]:
        """What becomes of images in front of each backbone; [] in studies of older versions."""
        found = self.document.get("preprocessing") or []
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    @property
    def score(self) -> Score:
        """By what its trials are compared, whatever it optimises: that of their task."""
        return SCORES[self.task]

    @property
    def task(self) -> str:
        """What its trials are trained for: "classify" or "segment"."""
        # a confirmation has no base: its rows have all settings
        rows = (self._ablation.get("rows") or {}).values()
        places = [self.space.get("base") or {}, *(row for row in rows if isinstance(row, dict))]
        return str(next((one[TASK] for one in places if TASK in one), "classify"))

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the study optimises, the leading one first; the score if it says nothing."""
        return _objectives({"objective": {"metric": self.score.val}, **self.space})

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that every point is to have, or has at most in a race; () if it does not say."""
        return tuple(_seeds(self.space))

    @property
    def races(self) -> bool:
        """Whether the rows of an ablation were dropped once they were clearly worse."""
        return bool(self._ablation.get("race"))

    @property
    def races_seeds(self) -> bool:
        """Whether the points of a search got further seeds only while they might be the best."""
        return isinstance(self.space.get("seeds"), dict)

    @property
    def is_fraction(self) -> bool:
        """Whether its design is a fraction of all combinations."""
        return self._ablation.get("design") == "fractional_factorial"

    @property
    def _ablation(self) -> Json:
        return self.space.get("ablation") or {}

    @property
    def selects(self) -> bool:
        """Whether one point is selected, and alone read on test; else every row is an answer."""
        return self.kind == "search" or self._ablation.get("test") == "winner"

    @property
    def compares_rows(self) -> bool:
        """Whether one row of an ablation is to be the winner, as in a confirmation or a race."""
        is_winner = self._ablation.get("test") == "winner"
        return self.kind == "ablation" and bool(self.races or is_winner or self.confirms)

    @property
    def confirms(self) -> Json:
        """Of a confirmation the search that it confirms: "name" and, but for older versions, "id",
        "axes" and "values" (objective in the search by row); {} of any other study."""
        return confirms(self.document)

    @property
    def reproduces(self) -> Json:
        """Of a reproduction what was published, as `tcpa reproduce` records it: "cell" (of
        `published_cells`), "runs", "margin", "chosen" (settings that the protocol leaves open) and
        "always" (what differs whatever the settings); {} of any other study."""
        found = self.document.get("reproduces")
        return found if isinstance(found, dict) else {}

    @property
    def row_names(self) -> Mapping[str, str]:
        """Rows of a confirmation as people know them: "point 2: vpt, lr 0.026, 20 prompts"."""
        return row_names(self.document)

    @property
    def data(self) -> Sequence[Json]:
        """What was in each data set when the study was made; () in records of older versions."""
        found = self.document.get("data")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else ()

    def data_of(self, params: Json) -> Json:
        """The data set that a trial with these settings uses; {} where it is not recorded."""
        for one in self.data:
            settings = one.get("settings") or {}
            if all(params.get(path) == value for path, value in settings.items()):
                return one
        return {}

    def data_notes(self) -> list[str]:
        """Sentences on the data that every report of the study has to say."""
        notes = [
            f"data {one.get('name')}: {note}" for one in self.data for note in one.get("notes", ())
        ]
        for change in self.document.get("accepted_changes") or ():
            recorded, found = change["recorded"], change["found"]
            parts = [
                f"{name} ({old} recorded, {found[name]} found)" for name, old in recorded.items()
            ]
            notes.append(
                f"Went on at {change['at']} with other {' and '.join(recorded)} than study "
                f"{change['study']!r} recorded: {'; '.join(parts)}."
            )
        return notes

    @property
    def axes(self) -> Mapping[str, Json]:
        """Searched settings by dotted path, as they stand in the space; {} in an ablation."""
        # `or {}`: a key may be there and empty, which YAML reads as None
        return self.space.get("axes") or {}

    @property
    def curve_metric(self) -> str:
        """The leading objective if it is measured each epoch, else the score on val."""
        leading = self.objectives[0].metric
        return leading if leading in CURVE_METRICS else self.score.val


def _objectives(space: Json) -> tuple[Objective, ...]:
    raw = space.get("objective") or {}
    return tuple(Objective.model_validate(one) for one in (raw if isinstance(raw, list) else [raw]))


def _seeds(space: Json) -> list[int]:
    found = (space.get("ablation") or space).get("seeds") or []
    return list(found["race"] if isinstance(found, dict) else found)


def _is_space(space: object) -> bool:
    """Whether the parts that reports read, as far as given, are what a space has."""
    if not isinstance(space, dict):
        return False
    if not all(isinstance(space.get(key) or {}, dict) for key in ("axes", "ablation", "base")):
        return False
    if (space.get("base") or {}).get(TASK, "classify") not in SCORES:
        return False
    try:
        return bool(_objectives(space)) and all(type(seed) is int for seed in _seeds(space))
    except (ValueError, TypeError, AttributeError, KeyError):
        return False
