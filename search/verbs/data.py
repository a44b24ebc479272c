"""Which data sets there are, and what is in one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from search.downloads.archives import ARCHIVES
from search.terminal import bytes_text
from search.verbs.stages import Stages
from tcpa_core import plugins
from tcpa_core.data.base import (
    PUBLISHED,
    CacheNeed,
    DataSummary,
    Published,
    Sizes,
    cache_need,
    load_dataset,
    published_key,
)
from tcpa_core.errors import ConfigError, DataError, nearest
from tcpa_core.settings import DATASETS, DataConfig

LISTED_CLASSES = 20
"""Classes that are all listed; of more, the smallest ones."""
SMALLEST_CLASSES = 10
CHECKED_SIZE = 32
"""Small, since what counts is that every image can be decoded."""


def kind_lines() -> Iterator[str]:
    """A line for every kind of data set and for every published one, under headings.

    Raises:
        PluginError: A kind cannot be loaded.
    """
    kinds = plugins.names(DATASETS)
    purposes = {name: purpose_of(name) for name in kinds}
    sets = {key: one for key, one in PUBLISHED.items() if set(one.kinds) & set(kinds)}
    reads = {kind: [key for key, one in sets.items() if kind in one.kinds] for kind in kinds}
    width = max(map(len, [*kinds, *sets]))
    yield "kinds (data.name) and what they read:"
    for kind in kinds:
        other = [key for key in reads[kind] if key != kind]
        also = f" Published sets: {', '.join(other)}." if other else ""
        yield f"  {kind:<{width}}  {purposes[kind]}{also}"
    yield ""
    yield "published sets:"
    rows = [("set", "classes", "train + val + test", "'tcpa data get'", "licence")]
    rows += [
        (
            key,
            str(one.classes),
            " + ".join(f"{size:,}" for size in one.splits["official"]),
            _way(key, one, kinds),
            one.licence,
        )
        for key, one in sets.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    widths[0] = max(widths[0], width)
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        yield "  " + "  ".join([*cells, row[-1]])


def show_data(config: DataConfig, img_size: int, console: Console) -> None:
    """Decode a data set at a small size, so that every image is checked, and describe it.

    Args:
        img_size: Side of the images that trials will see, in pixels.
    """
    with Stages("reading lists") as stages:
        # Asked first: what does not fit is told whatever the check itself has kept by then.
        need = cache_need(config, img_size, progress=stages)
        summary = load_dataset(config, CHECKED_SIZE, progress=stages).summary
    names, counts = summary.class_names, summary.counts
    console.print(
        f"{summary.name}: {len(names)} classes, {summary.fingerprint}", markup=False, soft_wrap=True
    )
    for split, found in counts.items():
        each = _pixels_text(summary.pixels[split]) if summary.pixels else _each_text(found)
        console.print(f"  {split}: {sum(found):,} images, {each}", markup=False)
    line = _beside_published(config, summary)
    if line:
        console.print(line, markup=False, soft_wrap=True)
    for line in _cache_lines(need, img_size):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if summary.pixels:
        _show_classes(names, {s: of[:-1] for s, of in summary.pixels.items()}, console, _share)
    else:
        _show_classes(names, counts, console, lambda found, c: str(found[c]))
    for warning in summary.warnings():
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    for remark in summary.remarks:
        console.print(f"note: {remark}", markup=False, soft_wrap=True)
    if config.root is not None:
        for line in root_lines(config.name, Path(config.root).absolute()):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _each_text(counts: Sequence[int]) -> str:
    """Images of a class of a split."""
    low, middle, high = min(counts), sorted(counts)[len(counts) // 2], max(counts)
    each = f"{low}" if low == high else f"{low} to {high}, median {middle},"
    return f"{each} a class"


def _pixels_text(pixels: Sequence[int]) -> str:
    """Pixels of a split that have a class; its last number is of the others."""
    return f"{pixels[-1] / sum(pixels):.1%} of their pixels without a class"


def _share(pixels: Sequence[int], c: int) -> str:
    """A class's share of the pixels that have one."""
    return f"{pixels[c] / sum(pixels):.2%}"


def kind_named(name: str) -> str:
    """The kind that a name means: itself, or the first that reads the published set of the name.

    Raises:
        ConfigError: It means none.
    """
    kinds = plugins.names(DATASETS)
    if name in kinds:
        return name
    published = PUBLISHED.get(name)
    reader = next((kind for kind in published.kinds if kind in kinds), None) if published else None
    if reader:
        return reader
    raise ConfigError(
        f"no data set kind {name!r}{nearest(name, [*kinds, *PUBLISHED, 'list', 'check', 'get'])}"
        f". Available: {', '.join(kinds)}. "
        "'tcpa data list' says what each reads."
    )


def root_lines(kind: str, root: Path) -> list[str]:
    """What a space has to say to read a folder, and what to do with it."""
    settings = {"data.name": kind, "data.root": str(root)}
    preset = "vpt_vtab" if kind == "vtab1k" else "vfpt_tcpa_hta"
    if getattr(plugins.load(DATASETS, kind), "HAS_MASKS", False):
        settings["task.name"], preset = "segment", "segment_small"
    given = " ".join(f"--set {quote(f'{path}={value}')}" for path, value in settings.items())
    return [
        "in a space:",
        "base:",
        *(f"  {line}" for line in yaml.safe_dump(settings, width=10**6).splitlines()),
        f"or with a preset, for example:  tcpa plan {preset} {given}",
    ]


def _show_classes(
    names: Sequence[str],
    counts: Mapping[str, tuple[int, ...]],
    console: Console,
    cell: Callable[[Sequence[int], int], str],
) -> None:
    total = [sum(of) for of in zip(*counts.values(), strict=True)]
    shown = list(range(len(names)))
    if len(names) > LISTED_CLASSES:
        shown = sorted(shown, key=lambda c: total[c])[:SMALLEST_CLASSES]
        console.print(f"the {SMALLEST_CLASSES} smallest of {len(names)} classes:")
    table = Table("class", *counts)
    for c in shown:
        table.add_row(Text(_printable(names[c])), *(cell(found, c) for found in counts.values()))
    console.print(table)


def _cache_lines(need: CacheNeed, img_size: int) -> Iterator[str]:
    """What a study will keep of the pictures, and whether there is room."""
    if not need.images:
        yield f"at {img_size} pixels: the cache has all images."
        return
    yield f"at {img_size} pixels: {need}."
    try:
        need.check()
    except DataError as err:
        yield f"warning: {err}"


def _beside_published(config: DataConfig, summary: DataSummary) -> str:
    """How the sizes of a copy compare with those published; "" where it is no known set."""
    folder = Path(config.root or "").name
    key = config.name if config.name in PUBLISHED else published_key(folder)
    if key is None:
        return ""
    published = PUBLISHED[key]
    found = Sizes(**summary.sizes)
    shown = "; ".join(f"{name} {_sizes_text(sizes)}" for name, sizes in published.splits.items())
    text = f"published of {published.title}: {published.classes} classes, {shown}"
    alike = [name for name, sizes in published.splits.items() if _agree(found, sizes)]
    if len(summary.class_names) == published.classes and alike:
        return f"{text}: this copy agrees with {' and '.join(alike)}"
    return f"{text}: this copy differs"


def _agree(found: Sizes, published: Sizes) -> bool:
    """Whether sizes are those published, where val may have been drawn from train."""
    if not published.test:  # no split at all is published
        return sum(found) == sum(published)
    if not published.val:
        return (found.train + found.val, found.test) == (published.train, published.test)
    return found == published


def _sizes_text(sizes: Sizes) -> str:
    return " + ".join(
        f"{size:,} {name}" for name, size in zip(sizes._fields, sizes, strict=True) if size
    )


def purpose_of(kind: str) -> str:
    """First sentence of what a kind's file says of itself."""
    text = (plugins.load(DATASETS, kind).__doc__ or "").strip()
    return text.partition("\n")[0]


def _way(key: str, published: Published, kinds: Sequence[str]) -> str:
    if key in kinds and key in ARCHIVES:
        size = bytes_text(sum(one.size for one in ARCHIVES[key]))
        return f"{size}" + (f", or {published.hub}" if published.hub else "")
    if published.hub and "parquet" in kinds:
        return published.hub
    return "by hand"


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)
