"""From rows of image and label to a `Listing`: what lists and files of many images share.

Splits are told by name. A data set without val has it drawn from train, as everywhere; one without
a test split, or with one whose labels are not published, has that drawn too, and says so.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcpa_core.data._classes import listed
from tcpa_core.data._listing import (
    SPLITS,
    TEST_FRACTION,
    Content,
    Listing,
    SplitListing,
    draw_test,
    draw_val,
    need_root,
    read_text,
)
from tcpa_core.errors import DataError
from tcpa_core.settings import DataConfig

WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
"""What splits are called, the usual word first."""
NAMES = ("classes.txt", "classnames.txt")
"""Lists of class names, one a line, beside the data."""
MAX_IMAGES = 4_000_000
"""Of one data set: more than twice ImageNet-1k, and some gigabytes of names."""
MAX_FILES = 100_000
MAX_DEPTH = 4

Label = int | str

POINTER_BYTES = 1024
"""What a git-lfs pointer has at most."""
_SHARD = re.compile(r"(?P<of>.+)-(?P<number>\d{1,9})-of-(?P<total>\d{1,9})(?:\D.*)?", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """The images of one split, as their file lists them."""

    keys: tuple[str, ...]
    labels: Sequence[Label] | None
    """None: they are not published."""
    source: str
    numbered: bool = False
    read: Callable[[int], Content] | None = None
    files: tuple[str, ...] = ()

    def chosen(self, indices: Sequence[int]) -> "Rows":
        """Some of the images, in the order given."""
        read = self.read
        return Rows(
            keys=tuple(self.keys[i] for i in indices),
            labels=None if self.labels is None else [self.labels[i] for i in indices],
            source=self.source,
            read=None if read is None else lambda index: read(indices[index]),
            files=tuple(self.files[i] for i in indices) if self.files else (),
        )


def split_of(path: str) -> str | None:
    """The split that a path names: by a word of its file's name, else of the nearest folder's."""
    known = {word: split for split, words in WORDS.items() for word in words}
    for part in reversed(path.split("/")):
        found = {known[word] for word in re.split(r"[^a-z]+", part.lower()) if word in known}
        if len(found) == 1:
            return found.pop()
    return None


def need_files(cfg: DataConfig, suffixes: tuple[str, ...]) -> tuple[Path, list[str]]:
    """The files with some suffixes below data.root, or the one that it names itself.

    Returns:
        The folder that holds them all, and their paths below it, sorted. What lies between that
        folder and data.root is in no name, so that a copy is known by its content.

    Raises:
        ConfigError: data.root is not set.
        DataError: There is no such folder, no such file in it, or far too many.
    """
    place = Path(os.path.expanduser(cfg.root or ""))
    if cfg.root and _ends(place.name, suffixes) and os.path.isfile(place):
        return place.parent, [place.name]
    root = need_root(cfg)
    found = sorted(_walk(root, suffixes))
    if not found:
        raise DataError(
            f"no file {' or '.join('*' + suffix for suffix in suffixes)} below {root.absolute()}; "
            "data.root must be the folder of the data set."
        )
    _check_are_fetched(root, found)
    folders = os.path.commonpath([os.path.dirname(name) for name in found])
    while split_of(folders):  # a folder that is named after its split
        folders = os.path.dirname(folders)
    return root / folders, [os.path.relpath(name, folders or ".") for name in found]


def lack_val(cfg: DataConfig, suffixes: tuple[str, ...]) -> bool:
    """Whether no file below data.root is named after val, which is then drawn; so where none is."""
    try:
        _, files = need_files(cfg, suffixes)
    except (DataError, ValueError):
        return True
    return all(split_of(file) != "val" for file in files)


def _check_are_fetched(root: Path, names: Sequence[str]) -> None:
    """Refuse what `git clone` leaves in place of large files."""
    for name in names:
        path = root / name
        try:
            if path.stat().st_size > POINTER_BYTES:
                continue
            head = path.read_bytes()
        except OSError:
            continue  # its reader says so
        if head.startswith(b"version https://git-lfs"):
            raise DataError(
                f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` where it "
                "came from."
            )


def _walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    seen = 0
    for folder, subfolders, names in os.walk(root):
        below = os.path.relpath(folder, root)
        depth = 0 if below == "." else below.count(os.sep) + 1
        subfolders[:] = sorted(s for s in subfolders if s[0] != ".") if depth < MAX_DEPTH else []
        seen += len(names)
        if seen > MAX_FILES:
            raise DataError(
                f"more than {MAX_FILES:,} files lie below {root.absolute()}, too many for a data "
                f"set in {' or '.join(suffixes)} files; data.root must be its folder alone."
            )
        for name in names:
            if name[0] != "." and _ends(name, suffixes):
                yield name if below == "." else f"{below}/{name}".replace(os.sep, "/")


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file has one of the suffixes, before or behind the number of its shard."""
    return re.sub(r"-\d+-of-\d+$", "", name.lower()).endswith(suffixes)


def by_split(files: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Files of each split, and a note on those of other ones; all are train if none names one."""
    found: dict[str, list[str]] = {}
    left_out = []
    has_words = any(split_of(file) for file in files)
    for file in files:
        split = split_of(file) if has_words else "train"
        if split is None:
            left_out.append(file)
        else:
            found.setdefault(split, []).append(file)
    note = (
        f"files that name none of the splits {', '.join(WORDS)} are left out: {listed(left_out)}."
    )
    return found, [*([note] if left_out else []), *_missing_shards(files)]


def _missing_shards(files: Sequence[str]) -> list[str]:
    """Notes on files whose names say that there are more of them: train-00000-of-00002."""
    shards: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file):
            shards.setdefault((match["of"], int(match["total"])), set()).add(int(match["number"]))
    return [
        f"{len(there)} of {total} files {of}-*-of-{total:05d} are there; the images of the others "
        "are missing."
        for (of, total), there in shards.items()
        if len(there) < total
    ]


def holds(root: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether files with some suffixes lie in a folder, data/ or folders named after splits."""
    words = {word for of_split in WORDS.values() for word in of_split}
    for place in (root, root / "data"):
        try:
            entries = [entry.name for entry in os.scandir(place)]
        except OSError:
            continue
        if any(_ends(name, suffixes) for name in entries):
            return True
        for name in words.intersection(entries) | {"default", "plain_text"}.intersection(entries):
            try:
                if any(_ends(entry.name, suffixes) for entry in os.scandir(place / name)):
                    return True
            except OSError:
                continue
    return False


def usual_column(names: Sequence[str], usual: Sequence[str], wanted: str | None) -> str | None:
    """The column that is asked for, else the first of the usual names; None: there is none."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    choices = usual if wanted is None else (wanted.strip().lower(),)
    return next((lower[one] for one in choices if one in lower), None)


def names_of(root: Path, file: str) -> tuple[tuple[str, ...], str] | None:
    """Class names, one a line, where the folder has such a file; and its name."""
    if not (root / file).exists():
        return None
    lines = tuple(line.strip() for line in read_text(root / file).rstrip().split("\n"))
    if "" in lines:
        raise DataError(
            f"{root / file}:{lines.index('') + 1}: line is empty, but must name class "
            f"{lines.index('')}; write one class name per line."
        )
    return lines, file


def names_beside(root: Path) -> tuple[tuple[str, ...], str] | None:
    """Class names and their file, where a list of them lies in the folder."""
    return next((found for name in NAMES if (found := names_of(root, name))), None)


def assemble(
    root: Path,
    found: Mapping[str, Rows],
    cfg: DataConfig,
    *,
    names: tuple[tuple[str, ...], str] | None = None,
    notes: Sequence[str] = (),
) -> Listing:
    """Number the classes and draw the splits that are not there.

    Args:
        root: Folder that keys and files are relative to.
        found: The data set's own splits, by a name of `SPLITS`.
        names: Class names in the order of whole-numbered labels, and what gives them. None: the
            labels themselves are the classes, in ascending order.

    Raises:
        DataError: No train split, an unlabelled one, or as `Listing`.
    """
    if "train" not in found:
        raise DataError(
            f"no split is named train below {root.absolute()}: found "
            f"{listed(rows.source for rows in found.values()) or 'none'}; name its files train."
        )
    labelled, said = _labelled(found, root)
    class_names, class_source, splits = _classed(labelled, names, root)
    parts, drawn = _drawn(splits, cfg)
    if "test" in drawn:
        said.append(
            f"no test split with labels: {TEST_FRACTION:.0%} of train is held out as test, always "
            "the same images; the figures are not those of a published test split. A split that "
            "is to be scored in the end must be named test."
        )
    return Listing(
        root=root,
        class_names=class_names,
        class_source=class_source,
        splits={
            name: SplitListing(
                keys=rows.keys,
                labels=tuple(int(label) for label in rows.labels or ()),
                source=rows.source,
                numbered=rows.numbered,
                read=rows.read,
                files=rows.files,
            )
            for name, rows in parts.items()
        },
        drawn="val" in drawn,
        notes=(*notes, *said),
    )


def _labelled(found: Mapping[str, Rows], root: Path) -> tuple[dict[str, Rows], list[str]]:
    """The splits with labels, and a sentence on each of the others."""
    known: dict[str, Rows] = {}
    notes = []
    for name in SPLITS:
        if name not in found:
            continue
        rows = found[name]
        hidden = rows.labels is None or (
            len(rows.labels) > 0 and all(label in (-1, "-1", "") for label in rows.labels)
        )
        if not hidden:
            known[name] = rows
        elif name == "train":
            raise DataError(
                f"train has no labels ({rows.source} below {root.absolute()}); a data set needs "
                "the class of each training image."
            )
        else:
            notes.append(
                f"{name} has {len(rows.keys):,} images without labels (-1 or none, in "
                f"{rows.source}), which are left out."
            )
    return known, notes


def _classed(
    found: Mapping[str, Rows], names: tuple[tuple[str, ...], str] | None, root: Path
) -> tuple[tuple[str, ...], str, dict[str, Rows]]:
    """Class names, where they come from, and the splits with numbered labels."""
    texts = {label for rows in found.values() for label in rows.labels or ()}
    class_source = "the labels of all splits"
    if all(isinstance(label, int) or _NUMBER.fullmatch(label) for label in texts):
        number = {label: int(label) for label in texts}
        _check_not_negative(found, number, root)
        if names is None:
            ids = sorted(set(number.values()))
            place = {value: index for index, value in enumerate(ids)}
            number = {label: place[value] for label, value in number.items()}
            names = tuple(map(str, ids)), class_source
    else:
        known = set(names[0]) if names else set()
        if names is None or not known.issuperset(map(str, texts)):
            names = tuple(sorted(map(str, texts))), class_source
        of_name = {name: index for index, name in enumerate(names[0])}
        number = {label: of_name[str(label)] for label in texts}
    return *names, {split: _numbered(rows, number) for split, rows in found.items()}


def _check_not_negative(found: Mapping[str, Rows], number: Mapping[Label, int], root: Path) -> None:
    for name, rows in found.items():
        labels = rows.labels or ()
        first = next((i for i, label in enumerate(labels) if number[label] < 0), None)
        if first is not None:
            count = sum(number[label] < 0 for label in labels)
            raise DataError(
                f"{count:,} of {len(labels):,} {name} images have a label below 0, first "
                f"{rows.keys[first]!r} with {labels[first]!r} (below {root.absolute()}); "
                "give each its class or remove it."
            )


def _numbered(rows: Rows, number: Mapping[Label, int]) -> Rows:
    return replace(rows, labels=[number[label] for label in rows.labels or ()])


def _drawn(found: Mapping[str, Rows], cfg: DataConfig) -> tuple[dict[str, Rows], list[str]]:
    """All splits, and the names of those that were drawn from train."""
    parts = dict(found)
    drawn = []
    for name, draw in (("test", draw_test), ("val", draw_val)):
        if name not in parts:
            train = parts["train"]
            labels = [int(label) for label in train.labels or ()]
            chosen = draw(train.keys, labels, cfg)
            held = set(chosen)
            rest = [index for index in range(len(labels)) if index not in held]
            parts |= {"train": train.chosen(rest), name: train.chosen(chosen)}
            drawn.append(name)
    return parts, drawn
