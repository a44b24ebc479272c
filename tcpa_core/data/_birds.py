"""Lists of CUB-200-2011, which NABirds has too: one file per property, a picture's id in front."""

from pathlib import Path

from tcpa_core.data._official import Parts, part, ranks, read_rows
from tcpa_core.errors import DataError

MARKS = (
    "images",
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "classes.txt",
)


def bird_parts(base: Path) -> Parts:
    """Read the lists.

    Classes are those of the pictures: classes.txt of NABirds also names the groups above them.

    Raises:
        DataError: A list is missing, or does not name the pictures of images.txt.
    """
    paths = _by_id(base / "images.txt")
    labels = _by_id(base / "image_class_labels.txt")
    is_train = _by_id(base / "train_test_split.txt")
    for name, found in (("image_class_labels.txt", labels), ("train_test_split.txt", is_train)):
        lost = next((one for one in paths if one not in found), None)
        if lost is not None:
            raise DataError(
                f"{base / name} lacks picture {lost!r} of images.txt; restore the lists."
            )
    classes = _by_id(base / "classes.txt")
    rank = ranks(labels[one][1] for one in paths)
    unnamed = next((number for number in rank if number not in classes), None)
    if unnamed is not None:
        raise DataError(f"{base / 'classes.txt'} does not name class {unnamed}; restore the list.")
    names = [classes[number][1] for number in rank]
    if len(set(names)) < len(names):
        names = [f"{number} {name}" for number, name in zip(rank, names, strict=True)]
    splits = {}
    for split, flag in (("train", "1"), ("test", "0")):
        chosen = [one for one in paths if is_train[one][1] == flag]
        splits[split] = part(
            [paths[one] for one in chosen],
            [rank[labels[one][1]] for one in chosen],
            "images.txt",
        )
    return Parts(
        root=base / "images", class_names=tuple(names), class_source="classes.txt", splits=splits
    )


def _by_id(path: Path) -> dict[str, tuple[str, str]]:
    """Place and value of each line, by the id in front."""
    found: dict[str, tuple[str, str]] = {}
    for place, (one, value) in read_rows(path, 2):
        if one in found:
            raise DataError(f"{place}: id {one!r} stands there twice; restore the list.")
        found[one] = place, value
    return found
