"""Load a suite: a file or a shipped one, read as spaces are and checked whole."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from spaces.overrides import apply_overrides
from spaces.reader import Document, Keys, read_file
from spaces.setting_values import (
    Entry,
    check_section,
    closed_set,
    flatten,
    lookup,
    method_of,
    read_setting,
)
from spaces.shipped import SUITES
from spaces.suite import Confirm, Suite, SuiteCell, slug
from spaces.suite_layers import STUDY_WIDE, CellReader
from tcpa_core.errors import ConfigError

_ROOT = (
    *("name", "space", "base", "axes", "constraints", "backbones", "datasets", "groups"),
    *("methods", "baseline", "confirm", *STUDY_WIDE),
)
_METHOD = ("chain", "space", "base", "axes", "constraints", "first_points", "datasets")
_PARTS = {"methods": "rows", "datasets": "columns", "backbones": "tables"}
_LONGEST = 56
"""Characters of a study's name that leave room for that of its confirmation."""
_LONGEST_NAME = 40


def is_suite(source: str) -> bool:
    """Whether this is a suite: a shipped one, or a file with data sets and methods at its root."""
    if source in SUITES.names():
        return True
    path = Path(os.path.expanduser(source))
    if not os.path.isfile(path):
        return False
    try:
        data = read_file(path, source, Path.cwd()).data
    except ConfigError:  # whoever reads it as a space says what is wrong
        return False
    return isinstance(data, dict) and {"datasets", "methods"} <= data.keys()


def load_suite(
    source: str, overrides: Mapping[str, Any] | None = None, data: Path | None = None
) -> Suite:
    """Read and check a suite.

    Args:
        source: A YAML file, or the name of a shipped suite.
        overrides: Values of `--set`, which count for every cell.
        data: The folder that relative names of `data.*` are relative to; None: that of the file,
            or the current one for a shipped suite.

    Raises:
        ConfigError: The file cannot be read, or a trial of some cell could not be trained.
    """
    document = SUITES.read(source)
    _check_keys(document, (), _ROOT, "a suite")
    document, fixed = apply_overrides(document, overrides or {})
    if "methods" in fixed:
        raise ConfigError("--set methods: a suite has a row for each method; change its file.")
    reader = CellReader(document, fixed, data)
    methods = _names(document, "methods")
    datasets = _names(document, "datasets")
    for method in methods:
        _check_row(reader, method, datasets)
    _check_shared(reader, methods)
    cells = tuple(_cells(reader, methods, datasets))
    _check_axes_used(reader, cells)
    _check_budget(document, cells[0])
    return Suite(
        name=_name(document),
        source=source if source in SUITES.names() else document.label,
        methods=methods,
        datasets=datasets,
        backbones=tuple(dict.fromkeys(one.backbone for one in cells)),
        groups=_groups(document, datasets),
        baseline=_baseline(document, methods),
        confirm=check_section(Confirm, document, "confirm"),
        given=cells,
    )


def columns_of(name: str) -> dict[str, dict[str, Entry]]:
    """The data sets of a shipped suite: settings of each by dotted path."""
    document = SUITES.read(name)
    return {one: flatten(document, "datasets", one) for one in _names(document, "datasets")}


def _cells(
    reader: CellReader, methods: Collection[str], datasets: Collection[str]
) -> Iterator[SuiteCell]:
    document = reader.document
    for backbone in _names(document, "backbones") if "backbones" in document.data else ("",):
        for dataset in datasets:
            for method in methods:
                name = "-".join(filter(None, map(slug, (backbone, dataset, method))))
                if len(name) > _LONGEST:
                    raise ConfigError(
                        f"the study of {method!r} on {dataset!r} would be called {name!r}, longer "
                        f"than {_LONGEST} characters ({document.place('methods', method)}); "
                        "shorten a name."
                    )
                space = reader.space(name, method, dataset, backbone)
                if space.scheduler.herd:
                    raise ConfigError(
                        "scheduler.name cannot be pbt in a suite "
                        f"({document.place('scheduler', 'name')}): a row's best points are trained "
                        "again on fresh seeds, and a setting that changed meanwhile is none; take "
                        "asha or none."
                    )
                told = backbone or space.trials[0].backbone.name
                yield SuiteCell(method, dataset, told, space)


def _name(document: Document) -> str:
    name = document.data.get("name")
    if not isinstance(name, str) or not name or name != slug(name) or len(name) > _LONGEST:
        raise ConfigError(
            f"name must be 1 to {_LONGEST} of a-z, 0-9 and _, got {name!r} "
            f"({document.place('name')})."
        )
    return name


def _names(document: Document, key: str) -> tuple[str, ...]:
    """Rows, columns or tables of the suite; each is a part of the name of a folder, too."""
    raw, place = document.data.get(key), document.place(key)
    if not isinstance(raw, Mapping) or not raw:
        raise ConfigError(
            f"{key} must be a mapping, of the names of the {_PARTS[key]} to what each of them is, "
            f"got {raw!r} ({place})."
        )
    seen: dict[str, str] = {}
    for name in raw:
        short, place = slug(name), document.place(key, name)
        if not short or len(name) > _LONGEST_NAME or not name.isprintable():
            raise ConfigError(
                f"{key}: a name has 1 to {_LONGEST_NAME} printable characters, among them one of "
                f"a-z, A-Z or 0-9, got {name!r} ({place})."
            )
        if short in seen:
            raise ConfigError(
                f"{key}: {name!r} and {seen[short]!r} would both be {short!r} in the name of a "
                f"folder ({place}); rename one of them."
            )
        seen[short] = name
    return tuple(raw)


def _groups(document: Document, datasets: Collection[str]) -> dict[str, tuple[str, ...]]:
    raw, place = document.data.get("groups"), document.place("groups")
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or not all(isinstance(v, list) for v in raw.values()):
        raise ConfigError(
            f"groups must be a mapping of names to lists of data sets, got {raw!r} ({place})."
        )
    seen: dict[str, str] = {}
    for group, names in raw.items():
        for index, name in enumerate(names):
            place = document.place("groups", group, index)
            if name not in datasets:
                raise ConfigError(
                    f"groups.{group}: no data set {name!r} ({place})"
                    f"{closed_set(str(name), datasets)}"
                )
            if name in seen:
                raise ConfigError(
                    f"groups: data set {name!r} stands in {seen[name]!r} and in {group!r} "
                    f"({place}); leave it in one."
                )
            seen[name] = group
    return {group: tuple(names) for group, names in raw.items() if names}


def _baseline(document: Document, methods: tuple[str, ...]) -> str:
    found = document.data.get("baseline", methods[0])
    if found not in methods:
        raise ConfigError(
            f"baseline must be the name of a method, got {found!r} "
            f"({document.place('baseline')}){closed_set(str(found), methods)}"
        )
    return str(found)


def _check_keys(document: Document, keys: Keys, known: Collection[str], what: str) -> None:
    raw = lookup(document.data, keys) if keys else document.data
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"{what} must be a mapping with keys {', '.join(known)}, got {raw!r} "
            f"({document.place(*keys)})."
        )
    for key in raw:
        if key not in known:
            place = document.place(*keys, key)
            raise ConfigError(f"{what} has no key {key!r} ({place}){closed_set(key, known)}")


def _check_row(reader: CellReader, method: str, datasets: Collection[str]) -> None:
    """Check what a row says by itself.

    Raises:
        ConfigError: An unknown key or data set, or a setting of a method that it lacks.
    """
    document, row = reader.document, ("methods", method)
    _check_keys(document, row, _METHOD, f"method {method!r}")
    has = read_setting("methods", reader.chain(method))
    own = lookup(document.data, (*row, "datasets"))
    if own is not None and not isinstance(own, Mapping):
        raise ConfigError(
            f"datasets of method {method!r} must be a mapping of data sets to settings, got "
            f"{own!r} ({document.place(*row, 'datasets')})."
        )
    for name in own or ():
        if name not in datasets:
            raise ConfigError(
                f"method {method!r} has settings for data set {name!r}, which the suite lacks "
                f"({document.place(*row, 'datasets', name)}){closed_set(name, datasets)}"
            )
    parts: list[Keys] = [("base",), ("axes",), *(("datasets", name) for name in own or ())]
    for path, entry in _settings(document, [(*row, *part) for part in parts]):
        if method_of(path) not in (None, *has):
            raise ConfigError(
                f"{path} belongs to method {method_of(path)!r}, which {method!r} lacks "
                f"({entry.place}): its chain is {', '.join(has)}."
            )


def _check_shared(reader: CellReader, methods: Collection[str]) -> None:
    """Refuse settings of methods that no row has: they would change nothing.

    Raises:
        ConfigError: The first of them.
    """
    document, chosen = reader.document, set[str]()
    for method in methods:
        chosen |= set(reader.chain(method).value)
    parts: list[Keys] = [("base",), ("axes",)]
    parts += [(key, name) for key in ("datasets", "backbones") for name in _keys(document, key)]
    for path, entry in [*_settings(document, parts), *reader.fixed.items()]:
        if method_of(path) not in (None, *chosen):
            raise ConfigError(
                f"{path} belongs to method {method_of(path)!r}, which no row has "
                f"({entry.place}); the rows have {', '.join(sorted(chosen))}."
            )


def _check_axes_used(reader: CellReader, cells: Collection[SuiteCell]) -> None:
    """Refuse axes that no cell has, as an impossible condition makes them.

    Raises:
        ConfigError: The first of them.
    """
    used = {path for one in cells for path in one.space.axes} | reader.fixed.keys()
    document = reader.document
    parts: list[Keys] = [("axes",)]
    parts += [("methods", name, "axes") for name in _keys(document, "methods")]
    for path, entry in _settings(document, parts):
        if path not in used:
            raise ConfigError(
                f"axis {path} is active in no cell of the suite ({entry.place}): other parts fix "
                "it, or nothing fulfils its condition; remove it."
            )


def _check_budget(document: Document, cell: SuiteCell) -> None:
    """Refuse a suite whose cells have nothing to select from.

    Raises:
        ConfigError: It is one.
    """
    if cell.space.budget.trials == 1:
        raise ConfigError(
            f"budget.trials must be at least 2, got 1 ({document.place('budget', 'trials')}): a "
            "cell selects among its points."
        )


def _keys(document: Document, key: str) -> list[str]:
    found = document.data.get(key)
    return list(found) if isinstance(found, Mapping) else []


def _settings(document: Document, parts: Collection[Keys]) -> Iterator[tuple[str, Any]]:
    """Settings and axes of several parts of a suite, with where they stand."""
    for keys in parts:
        yield from flatten(document, *keys).items()
