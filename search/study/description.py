"""study.yaml: what a study is, as plain values; it changes where a user changes the study."""

import json
import platform
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from search.study.provenance import git_state, versions
from spaces.reader import read_stored
from spaces.space import Space
from tcpa_core.errors import RecordError
from tcpa_core.record import files
from tcpa_core.record.events import SCHEMA_VERSION

Description = dict[str, Any]
"""study.yaml as plain values."""

_NEEDED = {"kind": str, "space": dict, "fingerprints": dict, "tracking_uri": str}
"""What a driver needs to go on with a study."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_description(name: str, space: Space, recorded: Mapping[str, Any]) -> Description:
    """What a new study is: its space, and with what code and libraries it was made.

    Args:
        recorded: What else is written: "fingerprints", "data", "preprocessing", "tracking_uri".
    """
    return {
        "schema": SCHEMA_VERSION,
        "name": name,
        "id": uuid.uuid4().hex,
        "kind": "ablation" if space.ablation else "search",
        "created": now(),
        "versions": {"python": platform.python_version(), **versions()},
        "git": git_state(),
        "space": space.as_dict(),
        # For those who look: to count a design, all its points are built.
        **({"most_trials": len(space.design())} if space.ablation else {}),
        **recorded,
    }


def read_description(folder: Path) -> Description:
    """The study.yaml of a folder, with an "id" also where an earlier version gave none.

    Raises:
        RecordError: It lacks something, or is of another schema.
    """
    path = folder / files.DESCRIPTION
    loaded = read_stored(path)
    if not isinstance(loaded, dict) or loaded.get("schema") != SCHEMA_VERSION:
        raise RecordError(f"{path} is not a valid study description.")
    for name, kind in _NEEDED.items():
        if not isinstance(loaded.get(name), kind):
            raise RecordError(f"{path} is not a valid study description: it lacks {name!r}.")
    return {**loaded, "id": study_id(loaded)}


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Replace the study.yaml of a folder; a reader meets the old or the new one, never a part."""
    # through JSON, so that tuples and enumerations are lists and strings in YAML too
    text = yaml.safe_dump(json.loads(json.dumps(description)), sort_keys=False)
    temporary = folder / f".{files.DESCRIPTION}"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / files.DESCRIPTION)


def study_id(document: Mapping[str, Any]) -> str:
    """What tells a study from every other, whatever their names: 32 hex digits.

    Args:
        document: Its study.yaml. One that an earlier version wrote without an id has the same one
            at every look: a hash of all that it says.

    Raises:
        RecordError: It has one that could not be written by this package.
    """
    text = json.dumps(document, sort_keys=True)
    found = document.get("id") or uuid.uuid5(uuid.NAMESPACE_OID, text).hex
    if not _ID.fullmatch(str(found)):
        raise RecordError(
            f"study.yaml: {found!r} is not the id of a study (1 to 64 letters, digits, _ and -)."
        )
    return str(found)


def now() -> str:
    """The time in UTC, to the second, as descriptions have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
