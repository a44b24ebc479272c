"""Parquet files of a repository of huggingface.co/datasets: which there are, and checksums."""

import json
import os
import re
from fnmatch import fnmatchcase
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote

from search.downloads.fetch import Remote, opened, reason_of
from tcpa_core.data.base import relative_key
from tcpa_core.errors import ConfigError, DataError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
CONVERTED = "refs/convert/parquet"
"""Branch in which the Hub itself keeps every data set as Parquet files."""
MAX_LISTING_BYTES = 1 << 26
SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")


class Repository(NamedTuple):
    """Parquet files of one commit."""

    licence: str
    source: str
    commit: str
    files: tuple[Remote, ...]
    folder: str
    """That all of them lie in; "": several, or none."""


def token() -> str | None:
    """The user's key to repositories whose terms have to be accepted."""
    return os.environ.get("HF_TOKEN") or None


def parquet_files(name: str, revision: str | None, include: str | None) -> Repository:
    """Ask the Hub for the Parquet files of a repository.

    Args:
        name: OWNER/NAME.
        revision: Branch, tag or commit; None: main, or where that has no such files the branch
            in which the Hub keeps them.
        include: Pattern of paths, for example "plain_text/*"; None: all.

    Raises:
        ConfigError: The name cannot be one, or several sets lie in the repository.
        DataError: The Hub does not answer, knows no such repository or shows it to members only,
            or it has no such files.
    """
    if not REPOSITORY.fullmatch(name) or ".." in name:
        raise ConfigError(f"{name!r} is no repository of huggingface.co/datasets: OWNER/NAME.")
    about = _about(name, revision or "main")
    if revision is None and not any(map(_is_parquet, about["siblings"])):
        about = _about(name, CONVERTED)
    commit = str(about.get("sha", ""))
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise DataError(f"{_page(name)}: the Hub names no commit; try again later.")
    listed = {one["rfilename"]: one for one in about["siblings"] if _is_parquet(one)}
    chosen = [path for path in sorted(listed) if include is None or fnmatchcase(path, include)]
    if not chosen:
        raise DataError(
            f"{_page(name)} has no Parquet file{f' like {include!r}' if include else ''}"
            f"{', only ' + _some(sorted(listed)) if listed else ''}; another revision may: "
            "--revision."
        )
    sets = sorted({path.partition("/")[0] for path in chosen if "/" in path} - {*SPLIT_FOLDERS})
    if len(sets) > 1:
        raise ConfigError(
            f"{_page(name)} holds {len(sets)} data sets, {_some(sets)}; choose one, for example "
            f"--include '{sets[0]}/*'."
        )
    card = about.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    return Repository(
        licence=", ".join(licence) if isinstance(licence, list) else str(licence or "none stated"),
        source=_page(name),
        commit=commit,
        files=tuple(_remote(name, commit, path, listed[path]) for path in chosen),
        folder=os.path.commonpath([os.path.dirname(path) for path in chosen]),
    )


def _endpoint() -> str:
    """The Hub, or the mirror that the user has named in the variable of huggingface_hub."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _page(name: str) -> str:
    return f"{_endpoint()}/datasets/{name}"


def _is_parquet(one: Any) -> bool:
    return isinstance(one, dict) and str(one.get("rfilename", "")).endswith(".parquet")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _remote(name: str, commit: str, path: str, one: dict[str, Any]) -> Remote:
    page = _page(name)
    match one:
        case {"lfs": {"sha256": str(digits), "size": int(size)}}:
            digest = f"sha256:{digits}"
        case {"blobId": str(digits), "size": int(size)}:
            digest = f"blob:{digits}"
        case _:
            raise DataError(f"{page}: the Hub gives no checksum of {path!r}; try again later.")
    return Remote(
        url=f"{page}/resolve/{commit}/{quote(path)}",
        path=relative_key(path, page),
        size=size,
        digest=digest,
    )


def _about(name: str, revision: str) -> dict[str, Any]:
    url = f"{_endpoint()}/api/datasets/{name}/revision/{quote(revision, safe='')}?blobs=true"
    page = _page(name)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise DataError(f"{page} is not asked: HF_HUB_OFFLINE is set; unset it to download.")
    try:
        with opened(url, token=token()) as answer:
            found = json.loads(answer.read(MAX_LISTING_BYTES))
    except HTTPError as err:
        why = {
            401: "there is no such repository, or it wants a key: accept its terms on that page "
            "and set HF_TOKEN",
            403: "it is shown to those who have accepted its terms on that page; then set HF_TOKEN",
            404: f"there is no such repository, or it has no revision {revision!r}",
        }.get(err.code, f"the Hub answers {err.code} ({err.reason}); try again later")
        raise DataError(f"{page}: {why}.") from err
    except (OSError, HTTPException) as err:
        raise DataError(
            f"{page} cannot be reached ({reason_of(err)}). By hand: download its .parquet files "
            "on another machine into one folder, which is data.root of data.name: parquet."
        ) from err
    except ValueError as err:
        raise DataError(f"{page}: the answer is no listing ({err}); try again later.") from err
    if not isinstance(found, dict) or not isinstance(found.get("siblings"), list):
        raise DataError(f"{page}: the answer is no listing of files; try again later.")
    return found
