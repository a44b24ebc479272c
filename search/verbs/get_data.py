"""Fetch a public data set: told what it is, asked, fetched, checked, unpacked."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import typer
from rich.console import Console

from search.downloads.archives import ARCHIVES
from search.downloads.fetch import Remote, fetch, is_whole, need_room
from search.downloads.hub import parquet_files, token
from search.downloads.unpack import is_unpacked, unpack, unpacked_bytes
from search.terminal import bytes_text, printable
from search.verbs.data import purpose_of, root_lines
from search.verbs.stages import Stages
from tcpa_core import plugins
from tcpa_core.data.base import PUBLISHED, Published, published_key
from tcpa_core.errors import ConfigError, DataError, nearest
from tcpa_core.settings import DATASETS

HUB = "parquet"
"""The kind that reads what the Hub keeps."""
STEPS = {
    "fgvc": (
        "fetch the pictures of cub, nabirds, stanford_dogs, stanford_cars or flowers102",
        "put train.json, val.json and test.json of VPT's authors beside them (their links stand "
        "in the README of https://github.com/KMnP/vpt)",
        "data.root is the folder of the three files",
    ),
    "vtab1k": (
        "download vtab-1k.zip by the link in the README of https://github.com/ZhangYuanhan-AI/NOAH",
        "unzip it: each of its 19 folders is a task, with images/, train800.txt, val200.txt and "
        "test.txt",
        "data.root is the folder of one task, for example vtab-1k/cifar",
    ),
}
"""By hand, for kinds that are no published set themselves."""
FOLDERS = {"fgvc": "CUB_200_2011", "vtab1k": "vtab-1k/cifar"}
"""Where these steps may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What can be fetched."""

    title: str
    kind: str
    """Value of data.name that reads it."""
    licence: str
    source: str
    files: Sequence[Remote]
    folder: str = ""
    """data.root, below the folder that is asked for."""
    token: str | None = None
    """The user's, for the server that is asked."""


def get_data(
    name: str,
    root: Path,
    console: Console,
    *,
    yes: bool,
    revision: str | None = None,
    include: str | None = None,
) -> int:
    """Fetch a data set below a folder, or what an earlier call has left of it.

    Args:
        name: Key of `PUBLISHED`, or OWNER/NAME of a repository of huggingface.co/datasets.
        root: Made when absent.
        yes: Do not ask.
        revision: Of a repository; None: its main one.
        include: Pattern of paths in a repository.

    Returns:
        0: it is there; 1: it can only be fetched by hand, or the user said no.

    Raises:
        ConfigError: There is no such data set, or nobody can be asked.
        DataError: It cannot be fetched or written.
    """
    root = root.expanduser().absolute()
    _check_folder(root)
    offer = _offer(name, revision, include)
    if offer is None:
        _by_hand(name, root, console)
        return 1
    _say(console, f"{offer.title}, read by data.name={offer.kind}")
    _say(console, f"  licence: {offer.licence}")
    _say(console, f"  source:  {offer.source}")
    with Stages("looking at what is there") as stages:
        lacking = [one for one in offer.files if not _is_there(one, root, stages)]
    size = sum(one.size - _arrived(one, root) for one in lacking)
    packed = [one for one in offer.files if one.unpacks and not is_unpacked(one, root)]
    _say(
        console,
        f"  files:   {len(offer.files)}, {bytes_text(sum(one.size for one in offer.files))}; to "
        f"fetch: {len(lacking)}, {bytes_text(size)}, into {root}",
    )
    # What an archive unpacks to is known once it is there: about its size, pictures being packed.
    need_room(root, size + sum(one.size for one in packed), offer.title)
    if lacking and not yes and not _agreed(size, root):
        _say(console, "nothing fetched.")
        return 1
    try:
        _bring(offer, lacking, packed, root)
    except KeyboardInterrupt:
        _say(console, "interrupted; what has arrived is kept: the same command goes on from there.")
        raise
    _say(console, f"all of it is in {root}." if lacking or packed else "nothing was missing.")
    _say_next(offer.kind, root / offer.folder, console)
    return 0


def _offer(name: str, revision: str | None, include: str | None) -> Offer | None:
    """What is fetched under a name; None: it exists, and can be fetched by hand only."""
    kinds = plugins.names(DATASETS)
    if "/" in name:
        return _of_hub(name, revision, include)
    published = PUBLISHED.get(name)
    if published is None:
        if name in kinds:
            return None
        close = published_key(name)
        hint = f"; closest name: {close!r}" if close else nearest(name, [*PUBLISHED, *kinds])
        raise ConfigError(
            f"no data set {name!r} is known{hint}. 'tcpa data list' lists what there is; "
            "OWNER/NAME means a repository of huggingface.co/datasets."
        )
    is_ours = name in kinds and name in ARCHIVES
    if (revision or include) and is_ours:
        raise ConfigError(
            f"--revision and --include choose among the files of a repository; {name} comes from "
            f"{published.source}{_hub_hint(published)}."
        )
    if is_ours:
        return Offer(
            title=published.title,
            kind=name,
            licence=published.licence,
            source=published.source,
            files=ARCHIVES[name],
        )
    if published.hub and HUB in kinds:
        return _of_hub(published.hub, revision, include)
    return None


def _of_hub(repository: str, revision: str | None, include: str | None) -> Offer:
    found = parquet_files(repository, revision, include)
    known = next((one for one in PUBLISHED.values() if one.hub == repository), None)
    licence = found.licence
    if known and known.licence != licence:
        licence = f"{known.licence} (the repository says: {licence})"
    return Offer(
        title=f"{known.title if known else repository}, Parquet files of commit {found.commit[:8]}",
        kind=HUB,
        licence=licence,
        source=found.source,
        files=found.files,
        folder=found.folder,
        token=token(),
    )


def _hub_hint(published: Published) -> str:
    return f", and as Parquet files from {published.hub}" if published.hub else ""


def _by_hand(name: str, root: Path, console: Console) -> None:
    """Say how a data set is fetched without this program."""
    published = PUBLISHED.get(name)
    if published is None:
        kind, folder = name, FOLDERS.get(name, "")
        steps: Sequence[str] = STEPS.get(name, ())
        _say(console, f"{name} is no published set that could be fetched, but a layout:")
        _say(console, f"  {purpose_of(name)}")
        sets = [key for key, one in PUBLISHED.items() if name in one.kinds]
        if sets:
            _say(console, f"  It reads {', '.join(sets)}, among others.")
    else:
        kinds = plugins.names(DATASETS)
        kind = next((kind for kind in published.kinds if kind in kinds), "folder")
        folder = published.unpacked
        steps = published.steps or (f"download and unpack it from {published.source}",)
        _say(console, f"{published.title} can be fetched by hand only, into {root}:")
        _say(console, f"  licence: {published.licence}")
        _say(console, f"  source:  {published.source}")
    for number, step in enumerate(steps, start=1):
        _say(console, f"  {number}. {step}")
    if steps:
        _say_next(kind, root / folder, console)


def _check_folder(root: Path) -> None:
    """Refuse a folder that cannot be written, before anything is asked or fetched."""
    there = next(one for one in (root, *root.parents) if os.path.exists(one))
    if not there.is_dir():
        raise DataError(f"--root: {there} is a file; name a folder to download into.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError(
            f"--root: {there} cannot be written by this user; name another folder to download into."
        )


def _is_there(remote: Remote, root: Path, stages: Stages) -> bool:
    """Whether a file, or what an archive unpacks to, is there; an archive may be gone by then."""
    if remote.unpacks and is_unpacked(remote, root):
        return True
    return is_whole(remote, root, stages.bytes)


def _arrived(remote: Remote, root: Path) -> int:
    """Bytes that an interrupted call has left."""
    part = root / f"{remote.path}.part"
    return min(part.stat().st_size, remote.size) if part.is_file() else 0


def _agreed(size: int, root: Path) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(
            "this fetches from the network, and nobody can be asked here: give --yes to agree to "
            "the licence and the size above."
        )
    return typer.confirm(f"Fetch {bytes_text(size)} into {root}?", err=True)


def _bring(offer: Offer, lacking: Sequence[Remote], packed: Sequence[Remote], root: Path) -> None:
    with Stages("asking the server") as stages:
        for one in lacking:
            fetch(one, root, stages.bytes, offer.token)
        for one in packed:
            need_room(root, unpacked_bytes(root / one.path), f"what is in {one.name}")
            unpack(one, root, stages)


def _say_next(kind: str, folder: Path, console: Console) -> None:
    _say(console, f"next: tcpa data check {kind} --root {quote(str(folder))}")
    for line in root_lines(kind, folder):
        _say(console, line)


def _say(console: Console, line: str) -> None:
    # A licence may come from the network.
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
