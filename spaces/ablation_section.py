"""Read the section `ablation` into one of six designs, told apart by `design`."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from spaces.designs import KEYS, Ablation
from spaces.factor_designs import FactorDesign, FractionalFactorial, FullFactorial, OneFactor
from spaces.reader import Document
from spaces.refusal import build
from spaces.row_designs import AddOneIn, Components, LeaveOneOut
from spaces.setting_values import Entry, closed_set, default, flatten, read_setting
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError, nearest

_DESIGN: TypeAdapter[Ablation] = TypeAdapter(
    Annotated[
        OneFactor | FullFactorial | FractionalFactorial | Components | LeaveOneOut | AddOneIn,
        Field(discriminator="design"),
    ]
)

DESIGNS: Mapping[str, type[Ablation]] = {
    "one_factor": OneFactor,
    "full_factorial": FullFactorial,
    "fractional_factorial": FractionalFactorial,
    "components": Components,
    "leave_one_out": LeaveOneOut,
    "add_one_in": AddOneIn,
}


def read_ablation(document: Document, base: Flat, fixed: Mapping[str, Entry]) -> Ablation:
    """Read and check the design; that its points are trials is checked by the space.

    Args:
        document: The file; `ablation` is a key of its root.
        base: Settings of the base, overrides included.
        fixed: Overrides, which may not touch what the design varies.

    Raises:
        ConfigError: Unknown design or key, fewer than two levels, a baseline that is not a level.
    """
    design = _read_design(document)
    spec = document.data["ablation"]
    values = {key: spec[key] for key in DESIGNS[design].model_fields if key in spec}
    # Single settings are checked here, where each has a line; how they fit together, the design
    # checks itself.
    if issubclass(DESIGNS[design], FactorDesign):
        values["factors"] = _read_factors(document)
        values["baseline"] = _read_baseline(document, values["factors"], base)
        varied = set(values["factors"])
    else:
        values["rows"] = {row: _read(document, "rows", row) for row in spec["rows"]}
        varied = {path for changes in values["rows"].values() for path in changes}
    if isinstance(spec.get("datasets"), Mapping):
        values["datasets"] = _read_datasets(document, varied)
    ablation = build(_DESIGN, values, "ablation.", document, ("ablation",))
    # An override of a level would silently empty the comparison.
    for path in ablation.paths() & fixed.keys():
        raise ConfigError(
            f"{path} is varied by the ablation and cannot be fixed ({fixed[path].place}); "
            "change the levels in the file."
        )
    return ablation


def _read_design(document: Document) -> str:
    """The name of the design, which has all the keys that it needs and no others."""
    spec, place = document.data["ablation"], document.place("ablation")
    if not isinstance(spec, Mapping):
        raise ConfigError(f"ablation must be a mapping, got {spec!r} ({place}).")
    for key in spec:
        if key not in KEYS:
            raise ConfigError(
                f"ablation has no key {key!r} ({document.place('ablation', key)})"
                f"{closed_set(key, KEYS)}"
            )
    design = spec.get("design")
    if design not in tuple(DESIGNS):
        raise ConfigError(
            f"ablation.design must be one of {', '.join(DESIGNS)}, got {design!r} "
            f"({document.place('ablation', 'design')}){nearest(str(design), DESIGNS)}."
        )
    # What is missing is said before what is too much: under a wrong `design` both are true, and the
    # first tells more.
    needed = "factors" if issubclass(DESIGNS[design], FactorDesign) else "rows"
    if not isinstance(spec.get(needed), Mapping) or not spec[needed]:
        raise ConfigError(
            f"ablation design {design} needs {needed!r}, a mapping that is not empty, got "
            f"{spec.get(needed)!r} ({place})."
        )
    # `null` is as good as left out.
    own = (*DESIGNS[design].model_fields, "seeds")
    for key in (key for key, value in spec.items() if key not in own and value is not None):
        place = document.place("ablation", key)
        if key == "baseline":
            raise ConfigError(
                f"ablation.baseline is always the base itself in design {design}, got "
                f"{spec[key]!r} ({place}); remove it."
            )
        having = [name for name, one in DESIGNS.items() if key in one.model_fields]
        raise ConfigError(
            f"ablation.{key} is for design {' or '.join(having)}, not {design} ({place}); "
            "remove it."
        )
    return design


def _read(document: Document, *keys: str) -> Flat:
    """The checked settings that stand under these keys of `ablation`."""
    entries = flatten(document, "ablation", *keys)
    return {path: read_setting(path, entry) for path, entry in entries.items()}


def _read_factors(document: Document) -> dict[str, Any]:
    """Levels by path; what is not a list is left to the design."""
    return {
        path: [read_setting(path, entry._replace(value=level)) for level in entry.value]
        if isinstance(entry.value, list)
        else entry.value
        for path, entry in flatten(document, "ablation", "factors").items()
    }


def _read_baseline(document: Document, factors: Mapping[str, Any], base: Flat) -> Flat:
    """A level of every factor: as given, of the base, or the setting's default."""
    given = flatten(document, "ablation", "baseline")
    for path, entry in given.items():
        if path not in factors:
            raise ConfigError(
                f"ablation.baseline names {path}, which is not a factor ({entry.place}); "
                "put fixed settings into base."
            )
    levels = _read(document, "baseline")
    return {path: levels.get(path, base.get(path, default(path))) for path in factors}


def _read_datasets(document: Document, varied: set[str]) -> dict[str, Flat]:
    """What each data set sets; nothing that the design varies."""
    names = list(document.data["ablation"]["datasets"])
    for name in names:
        for path, entry in flatten(document, "ablation", "datasets", name).items():
            if path in varied or path in ("methods", "seed"):
                raise ConfigError(
                    f"{path} cannot be set by dataset {name!r} ({entry.place}): it is what the "
                    "ablation compares; leave it to the design."
                )
    return {name: _read(document, "datasets", name) for name in names}
