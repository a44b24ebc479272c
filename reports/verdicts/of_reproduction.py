"""What a reproduction says: whether a published number is among those that our seeds let expect."""

from collections.abc import Iterator, Mapping

from reports.frames import Frames
from reports.labels import Quantity, plain, plural
from reports.statistics.paired_tests import summarise
from reports.statistics.published_cells import PublishedCell
from reports.statistics.published_comparison import differing
from reports.statistics.reproduction import MOST, Reproduction, reproduce
from reports.verdicts.words import Said, quantity
from spaces.wording import setting_text

HEADS = {
    "inside": "Inside our interval",
    "outside": "Outside our interval",
    "undecidable": "Undecidable at this MDD",
}


def said(found: Frames) -> Said:
    """Headline and sentences of a reproduction with at least one value."""
    asked = found.study.reproduces
    cell = PublishedCell.read(asked["cell"])
    what = f"{cell.method} on {cell.dataset} by {cell.protocol}"
    values = {name: _tested(found, name) for name in cell.values}
    known = {name: one for name, one in values.items() if one}
    if not known:
        return f"No trial of {what} has a score on test yet.", [], None
    runs, margin = int(asked["runs"]), float(asked["margin"])
    results = {
        name: reproduce(one, cell.values[name], runs=runs, margin=margin)
        for name, one in known.items()
    }
    leading = next(iter(known))
    head = HEADS[results[leading].outcome]
    differs = [
        *_deviations(found, cell),
        *differing(cell.aspects, found.used, found.epochs),
        *(note.rstrip(".") for note in found.study.data_notes()),
    ]
    if differs:
        head += ", but not the published setting"
    shown = quantity(leading)
    headline = f"{head}: {what}, published {shown.said(cell.values[leading])} ({cell.source})."
    sentences = [
        text
        for name, result in results.items()
        for text in _numbers(quantity(name), known[name], cell.values[name], runs, margin, result)
    ]
    return headline, [*sentences, *_about(cell, differs, asked)], None


def _tested(found: Frames, name: str) -> list[float]:
    return [float(value) for value in found.used[name].dropna()] if name in found.used else []


def _deviations(found: Frames, cell: PublishedCell) -> Iterator[str]:
    """From the protocol, and from the settings in the method's name."""
    texts = found.used["deviation"].unique()
    yield from dict.fromkeys(part for text in texts if text for part in text.split("; "))
    for path, value in cell.own_settings.items():
        for ours in found.used[path].unique():
            if ours != value:
                yield f"{path}={plain(ours)} (published: {value})"


def _numbers(
    shown: Quantity,
    values: list[float],
    published: float,
    runs: int,
    margin: float,
    result: Reproduction,
) -> Iterator[str]:
    own = summarise(values)
    mean = shown.on(shown.mean(values, own.low, own.high))
    theirs = f"{shown.value(published)}, {'one run' if runs == 1 else f'the mean of {runs} runs'}"
    if result.reach is None or result.mdd is None:
        why = "one seed shows no spread" if len(values) == 1 else "all seeds gave the same"
        yield (
            f"Ours is {mean} over {plural(len(values), 'seed')}, theirs {theirs}: difference "
            f"{shown.difference(result.difference)}, without an interval, as {why}."
        )
        return
    ends = result.difference - result.reach, result.difference + result.reach
    yield (
        f"Ours is {mean} over {plural(len(values), 'seed')}, theirs {theirs}: difference "
        f"{shown.difference(result.difference, *ends)}, if their runs spread as ours do."
    )
    sees = f"MDD at {plural(len(values), 'seed')}: {shown.size(result.mdd)}, found in 80 % of such"
    text = f"{sees} reproductions; the margin is {shown.size(margin)}."
    if result.mdd > margin:
        more = f"{result.seeds_needed} seeds would see that"
        if result.seeds_needed is None:
            more = f"{MOST} seeds would not, as the noise of their {plural(runs, 'run')} stays"
        text = f"{text.removesuffix('.')}, and {more}."
    yield text


def _about(cell: PublishedCell, differs: list[str], asked: Mapping[str, object]) -> Iterator[str]:
    if differs:
        yield f"Deviates: {'; '.join(differs)}."
    chosen, always = asked.get("chosen"), asked.get("always")
    if isinstance(chosen, dict) and chosen:
        yield f"Left open by {cell.protocol} and chosen here: {setting_text(chosen)}."
    if isinstance(always, list) and always:
        yield f"Differs whatever the settings: {'; '.join(map(str, always))}."
    if cell.caveat:
        yield f"On the published number: {cell.caveat}."
