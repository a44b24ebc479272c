"""Which study confirms which: `confirms` in its study.yaml; in older ones the name says it.

    confirms: {name: SEARCH, id: ITS ID, axes: [SEARCHED PATHS], values: {ROW: VALUE IN THE SEARCH}}

Command line and reports both ask here.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spaces.reader import read_stored
from spaces.wording import setting_text
from tcpa_core.config import Flat
from tcpa_core.errors import RecordError
from tcpa_core.record import files

Json = Mapping[str, Any]
SUFFIX = "_confirm"
_ROW = re.compile(r"point [0-9]+")
_CONFIRMS = re.compile(r"^confirms:", re.MULTILINE)


def confirmed_name(study: str) -> str:
    """Name of the study that confirms another."""
    return f"{study}{SUFFIX}"


def confirms(document: Json) -> Json:
    """What a study.yaml says of the search that it confirms; {} of any other study.

    Of an older version it has the "name" alone, by that of the study.
    """
    found = document.get("confirms")
    if isinstance(found, dict):
        return found
    name, design = str(document.get("name", "")), _design(document)
    rows = design.get("rows") or {}
    is_one = name.endswith(SUFFIX) and design.get("design") == "components" and rows
    whole = is_one and all(isinstance(one, dict) and "methods" in one for one in rows.values())
    return {"name": name.removesuffix(SUFFIX)} if whole else {}


def row_names(document: Json) -> dict[str, str]:
    """Name of each row of a confirmation with its settings; {} of any other study.

    Args:
        document: Its study.yaml.
    """
    known = confirms(document)
    rows: Mapping[str, Flat] = _design(document).get("rows") or {}
    if not known:
        return {}
    axes = known.get("axes") or _differing(rows)
    found = {}
    for row, settings in rows.items():
        shown = {path: settings[path] for path in axes if path in settings}
        # a row that is called by its method needs no second name of it
        text = setting_text(shown if _ROW.fullmatch(row) else _without_methods(shown))
        found[row] = f"{row}: {text}" if text else row
    return found


def _design(document: Json) -> Json:
    return (document.get("space") or {}).get("ablation") or {}


def confirmation_of(folder: Path, document: Json) -> Path | None:
    """The folder of the study that confirms a search, the newest of several; None: there is none.

    Args:
        folder: Of the search; its confirmation lies beside it.
        document: The search's study.yaml.
    """
    found = [one for one in _candidates(folder) if is_of(one[1], document)]
    return max(found, key=lambda one: str(one[1].get("created", "")))[0] if found else None


def search_of(folder: Path, document: Json) -> Path | None:
    """The folder of the search that a study confirms; None: it is no confirmation, or it is gone.

    Args:
        folder: Of the confirmation.
        document: Its study.yaml.
    """
    name = confirms(document).get("name")
    # a name from a file is no path: it may not lead elsewhere
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_-]{1,64}", name):
        return None
    path = folder.parent / name
    found = _read(path)
    return path if found and path != folder and is_of(document, found) else None


def is_of(confirmation: Json, search: Json) -> bool:
    """Whether a study confirms a search, by their study.yaml."""
    known = confirms(confirmation)
    if known.get("id") and search.get("id"):
        return bool(known["id"] == search["id"])
    return search.get("kind") == "search" and known.get("name") == search.get("name")


def _candidates(folder: Path) -> Iterator[tuple[Path, Json]]:
    """Studies beside a search that say that they confirm one, or are called so."""
    for path in folder.parent.glob(f"*/{files.DESCRIPTION}"):
        if path.parent == folder or path.parent.name.startswith("."):
            continue
        try:
            # parsing takes 100 times as long as looking, and most studies confirm none
            says = _CONFIRMS.search(path.read_text(encoding="utf-8")) is not None
        except (OSError, ValueError):
            continue
        if says or path.parent.name == confirmed_name(folder.name):
            found = _read(path.parent)
            if found:
                yield path.parent, found


def _read(folder: Path) -> Json:
    """The study.yaml of a folder; {}: there is none that can be read."""
    try:
        found = read_stored(folder / files.DESCRIPTION)
    except RecordError:
        return {}
    return found if isinstance(found, dict) else {}


def _differing(rows: Mapping[str, Flat]) -> list[str]:
    """Settings that differ between rows that both have them; methods come first."""
    paths = dict.fromkeys(["methods", *(path for one in rows.values() for path in one)])
    values = {path: [repr(one[path]) for one in rows.values() if path in one] for path in paths}
    return [path for path, found in values.items() if len(set(found)) > 1]


def _without_methods(settings: Flat) -> Flat:
    return {path: value for path, value in settings.items() if path != "methods"}
