"""Read `ablation`; its keys are explained in `spaces.designs`."""

from collections.abc import Mapping
from typing import Any

from spaces.axes import label
from spaces.designs import DESIGNS, FROM_BASE, Ablation
from spaces.fraction import fewest_runs
from spaces.reader import Document
from spaces.setting_values import Entry, closed_set, default, flatten, read_setting
from tcpa_core.config import Flat
from tcpa_core.errors import ConfigError, nearest

_KEYS = (
    "design", "baseline", "factors", "runs", "rows", "cumulative", "datasets", "seeds", "test",
    "race",
)  # fmt: skip


def read_ablation(document: Document, base: Flat, fixed: Mapping[str, Entry]) -> Ablation:
    """Read and check the design; that its points are trials is checked by the space.

    Args:
        document: The file; `ablation` is a key of its root.
        base: Settings of the base, overrides included.
        fixed: Overrides, which may not touch what the design varies.

    Raises:
        ConfigError: Unknown design or key, fewer than two levels, a baseline that is none of them.
    """
    spec, place = document.data["ablation"], document.place("ablation")
    if not isinstance(spec, Mapping):
        raise ConfigError(f"ablation must be a mapping, got {spec!r} ({place}).")
    for key in spec:
        if key not in _KEYS:
            raise ConfigError(
                f"ablation has no key {key!r} ({document.place('ablation', key)})"
                f"{closed_set(key, _KEYS)}"
            )
    design = spec.get("design")
    if design not in tuple(DESIGNS):
        raise ConfigError(
            f"ablation.design must be one of {', '.join(DESIGNS)}, got {design!r} "
            f"({document.place('ablation', 'design')}){nearest(str(design), DESIGNS)}."
        )
    wanted = DESIGNS[design]
    other = "rows" if wanted == "factors" else "factors"
    if other in spec or not isinstance(spec.get(wanted), Mapping) or not spec[wanted]:
        raise ConfigError(
            f"ablation design {design} needs '{wanted}', a mapping that is not empty, and no "
            f"'{other}' ({place})."
        )
    flags = _read_flags(document, design)
    if wanted == "factors":
        factors = _read_factors(document)
        if design == "fractional_factorial":
            _check_two_levels(document, factors)
        varied = set(factors)
        parts: Flat = {"factors": factors, "baseline": _factor_baseline(document, factors, base)}
        parts["runs"] = _read_runs(document, design, len(factors))
    else:
        rows = _read_rows(document, design, cumulative=flags["cumulative"])
        varied = {path for changes in rows.values() for path in changes}
        parts = {"rows": rows, "baseline": _row_baseline(document, design, rows)}
    datasets = _read_datasets(document, varied)
    varied |= {path for settings in datasets.values() for path in settings}
    for path in varied & fixed.keys():
        raise ConfigError(
            f"{path} is varied by the ablation and cannot be fixed ({fixed[path].place}); "
            "change the levels in the file."
        )
    test = _read_test(document)
    if datasets and (flags["race"] or test == "winner"):
        raise ConfigError(
            f"ablation.datasets have no common winner, so neither race nor test: winner goes with "
            f"them ({document.place('ablation', 'datasets')}); remove one or the other."
        )
    return Ablation(design=design, test=test, race=flags["race"], datasets=datasets, **parts)


def _read_datasets(document: Document, varied: set[str]) -> dict[str, Flat]:
    """What each data set sets; nothing that the design varies."""
    if "datasets" not in document.data["ablation"]:
        return {}
    spec, place = document.data["ablation"]["datasets"], document.place("ablation", "datasets")
    if not isinstance(spec, Mapping) or len(spec) < 2:
        raise ConfigError(
            f"ablation.datasets must map at least two names to their settings, got {spec!r} "
            f"({place}); for example {{dtd: {{data.root: vtab/dtd}}, svhn: {{data.root: ...}}}}."
        )
    datasets: dict[str, Flat] = {}
    for name in spec:
        entries = flatten(document, "ablation", "datasets", name)
        for path, entry in entries.items():
            if path in varied or path in ("methods", "seed"):
                raise ConfigError(
                    f"{path} cannot be set by dataset {name!r} ({entry.place}): it is what the "
                    "ablation compares; leave it to the design."
                )
        settings = {path: read_setting(path, entry) for path, entry in entries.items()}
        for other, known in datasets.items():
            if settings == known:
                raise ConfigError(
                    f"ablation.datasets {other!r} and {name!r} have equal settings ({place}); give "
                    "each its data.name or data.root."
                )
        datasets[str(name)] = settings
    return datasets


def _read_test(document: Document) -> Any:
    test = document.data["ablation"].get("test", "all")
    if test not in ("all", "winner"):
        raise ConfigError(
            f"ablation.test must be all or winner, got {test!r} "
            f"({document.place('ablation', 'test')})."
        )
    return test


def _read_flags(document: Document, design: str) -> dict[str, bool]:
    """`cumulative` and `race`, which are about rows that build on or compete with each other."""
    spec = document.data["ablation"]
    flags = {key: spec.get(key, False) for key in ("cumulative", "race")}
    for key, flag in flags.items():
        place = document.place("ablation", key)
        if type(flag) is not bool:
            raise ConfigError(f"ablation.{key} must be true or false, got {flag!r} ({place}).")
        if key in spec and design != "components":
            raise ConfigError(f"ablation.{key} is for design components, not {design} ({place}).")
    return flags


def _read_factors(document: Document) -> dict[str, tuple[Any, ...]]:
    factors = {}
    for path, entry in flatten(document, "ablation", "factors").items():
        raw = entry.value
        if not isinstance(raw, list) or len(raw) < 2:
            raise ConfigError(
                f"ablation factor {path} must list at least two levels, got {raw!r} "
                f"({entry.place})."
            )
        levels = [read_setting(path, entry._replace(value=value)) for value in raw]
        for index, level in enumerate(levels):
            if level in levels[:index]:
                raise ConfigError(f"ablation factor {path} lists {level!r} twice ({entry.place}).")
        factors[path] = tuple(levels)
    return factors


def _read_runs(document: Document, design: str, num_factors: int) -> int | None:
    """Size of a fraction; None of other designs."""
    runs, place = document.data["ablation"].get("runs"), document.place("ablation", "runs")
    if runs is None:
        return fewest_runs(num_factors) if design == "fractional_factorial" else None
    if design != "fractional_factorial":
        raise ConfigError(
            f"ablation.runs is for design fractional_factorial, not {design} ({place}); remove it."
        )
    possible = [2**k for k in range(1, num_factors + 1) if 2**k > num_factors]
    if runs not in possible or type(runs) is not int:
        raise ConfigError(
            f"ablation.runs of {num_factors} factors must be one of "
            f"{', '.join(map(str, possible))}, got {runs!r} ({place}); leave it out for "
            f"{fewest_runs(num_factors)}."
        )
    return runs


def _check_two_levels(document: Document, factors: Mapping[str, tuple[Any, ...]]) -> None:
    for path, levels in factors.items():
        if len(levels) != 2:
            raise ConfigError(
                f"ablation design fractional_factorial needs two levels of each factor, got "
                f"{len(levels)} of {path} ({document.place('ablation', 'factors', path)}); leave "
                "two, or take design full_factorial."
            )


def _factor_baseline(document: Document, factors: Mapping[str, Any], base: Flat) -> Flat:
    given = flatten(document, "ablation", "baseline")
    for path, entry in given.items():
        if path not in factors:
            raise ConfigError(
                f"ablation.baseline names {path}, which is no factor ({entry.place}); "
                "put fixed settings into base."
            )
    baseline: Flat = {}
    for path, levels in factors.items():
        place = document.place("ablation", "factors", path)
        if path in given:
            value, place = read_setting(path, given[path]), given[path].place
        else:
            value = base.get(path, default(path))
        if value not in levels:
            raise ConfigError(
                f"ablation: the baseline {path} = {label(value)} is none of its levels "
                f"{list(levels)} ({place}); add it to them, or name another under "
                "ablation.baseline."
            )
        baseline[path] = value
    return baseline


def _read_rows(document: Document, design: str, *, cumulative: bool) -> dict[str, Flat]:
    rows: dict[str, Flat] = {}
    so_far: Flat = {}
    for row in document.data["ablation"]["rows"]:
        changes = {
            path: read_setting(path, entry)
            for path, entry in flatten(document, "ablation", "rows", row).items()
        }
        so_far = {**so_far, **changes}
        rows[row] = so_far if cumulative else changes
        if design in FROM_BASE and not changes:
            raise ConfigError(
                f"ablation row {row!r} changes nothing "
                f"({document.place('ablation', 'rows', row)}); set what differs from the base."
            )
    if design == "components" and len(rows) < 2:
        raise ConfigError(
            f"ablation design components needs at least two rows, got {list(rows)} "
            f"({document.place('ablation', 'rows')})."
        )
    return rows


def _row_baseline(document: Document, design: str, rows: Mapping[str, Flat]) -> str:
    given = document.data["ablation"].get("baseline")
    place = document.place("ablation", "baseline")
    if design in FROM_BASE:
        if given is not None:
            raise ConfigError(
                f"ablation.baseline is always the base itself in design {design}, got {given!r} "
                f"({place}); remove it."
            )
        return FROM_BASE[design][0]
    if given is None:
        return next(iter(rows))
    if not isinstance(given, str) or given not in rows:
        raise ConfigError(
            f"ablation.baseline must be the name of a row, got {given!r} ({place})"
            f"{closed_set(str(given), rows)}"
        )
    return given
