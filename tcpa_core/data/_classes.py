"""Classes that splits do not share: certain damage is refused, what may be meant is said."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from tcpa_core.errors import DataError

NAMED = 10
"""Names that a message lists before it only counts."""

LONG = 80
"""Characters of a name that a message shows."""

Counts = Mapping[str, Sequence[int]]
"""Images of each class, by split."""


def listed(names: Iterable[str]) -> str:
    """The first ten names in quotes, and how many more there are."""
    shown = [repr(name if len(name) <= LONG else f"{name[:LONG]}...") for name in names]
    more = f" and {len(shown) - NAMED:,} more" if len(shown) > NAMED else ""
    return ", ".join(shown[:NAMED]) + more


def alike(name: str) -> str:
    """A class name without what people and programs spell differently.

    Case, Unicode form, spaces against underscores, leading zeros and ".0" of whole numbers.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"[\s_]+|(?<=\w)-", " ", text).strip()
    return re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"(?<=\d)\.0+$", "", text))


def other_spelling(names: Iterable[str], others: Iterable[str]) -> str:
    """Two names that differ in spelling only, as a clause to append to a message; "" if none."""
    known = {alike(name): name for name in others}
    for name in names:
        other = known.get(alike(name))
        if other is not None and other != name:
            return f"; {name!a} and {other!a} are two spellings of one class"
    return ""


def check_classes(class_names: Sequence[str], counts: Counts, where: str) -> None:
    """Refuse splits whose classes cannot be meant as they stand.

    Raises:
        DataError: A class is spelt differently in two splits, a split counts classes from 1 and
            train from 0 (or the reverse), or a split shares no class with train.
    """
    used = {split: {c for c, n in enumerate(found) if n} for split, found in counts.items()}
    _check_spelling(class_names, used, where)
    for split in ("val", "test"):
        shift = _shift(class_names, used["train"], used[split])
        if shift:
            low, high = ("train", split) if shift > 0 else (split, "train")
            raise DataError(
                f"{high} numbers its classes one higher than {low}: train has "
                f"{_span(class_names, used['train'])}, {split} {_span(class_names, used[split])} "
                f"(below {where}). Count from the same number in all splits, from 0 in lists."
            )
        if not used["train"] & used[split]:
            raise DataError(
                f"{split} has no class of train: train has "
                f"{listed(class_names[c] for c in sorted(used['train']))}, {split} "
                f"{listed(class_names[c] for c in sorted(used[split]))} (below {where}); all "
                "splits must name their classes in the same way."
            )


def class_notes(class_names: Sequence[str], counts: Counts, counted: str = "image") -> list[str]:
    """Sentences on classes that some split, or every one, has no image of, or no pixel."""
    num = len(class_names)
    anywhere = [sum(counts[split][c] for split in counts) for c in range(num)]
    notes = []
    empty = [name for name, n in zip(class_names, anywhere, strict=True) if not n]
    if empty:
        one_based = "; lists that count from 1 leave class 0 empty" if empty[0] == "0" else ""
        notes.append(
            f"no split has {_a(counted)} of {len(empty)} of {num} classes: {listed(empty)}"
            f"{one_based}."
        )
    for split, found in counts.items():
        lacking = [class_names[c] for c in range(num) if anywhere[c] and not found[c]]
        if lacking:
            lost = " and cannot learn them" if split == "train" else ""
            notes.append(
                f"{split} has no {counted} of {len(lacking)} of {num} classes that other splits "
                f"have{lost}: {listed(lacking)}."
            )
    return notes


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _check_spelling(class_names: Sequence[str], used: Mapping[str, set[int]], where: str) -> None:
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(class_names):
        groups.setdefault(alike(name), []).append(number)
    splits_of = {c: [s for s, found in used.items() if c in found] for c in range(len(class_names))}
    apart = [
        (one, other)
        for group in groups.values()
        for one, other in combinations(group, 2)
        if splits_of[one] and splits_of[other] and not set(splits_of[one]) & set(splits_of[other])
    ]
    if apart:
        pairs = [
            f"{class_names[one]!a} in {' and '.join(splits_of[one])}, {class_names[other]!a} in "
            f"{' and '.join(splits_of[other])}"
            for one, other in apart[:NAMED]
        ]
        more = f"; and {len(apart) - NAMED:,} more" if len(apart) > NAMED else ""
        raise DataError(
            f"classes are spelt differently in the splits: {'; '.join(pairs)}{more} (below "
            f"{where}). Write a class in one way in all splits."
        )


def _shift(class_names: Sequence[str], train: set[int], other: set[int]) -> int:
    """+1 where `other` numbers the classes of train one higher, -1 one lower, else 0."""
    if not all(re.fullmatch(r"-?\d+", name, re.ASCII) for name in class_names):
        return 0
    first, second = ({int(class_names[c]) for c in used} for used in (train, other))
    if first == second:
        return 0
    return int(_one_higher(first, second)) - int(_one_higher(second, first))


def _one_higher(low: set[int], high: set[int]) -> bool:
    """Whether `high` ends one after `low`, lacks where it begins, and fits when moved by one."""
    return max(high) == max(low) + 1 and min(low) not in high and {n - 1 for n in high} <= low


def _span(class_names: Sequence[str], used: set[int]) -> str:
    numbers = sorted(int(class_names[c]) for c in used)
    return f"{numbers[0]} to {numbers[-1]}"
