"""A study that a command asks for: made by it, or by an earlier one and taken up again.

So a command can be repeated, by hand, by cron or by a batch system that requeues it, whatever has
become of the ones before. Of several at once one makes the study, and one at a time runs it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from rich.console import Console

from search.options import Repeat
from search.study.folder import StudyDir
from search.study.identity import Change, check_unchanged
from search.study.working_copy import existing, opened
from search.verbs.stages import Stages
from spaces.difference import Difference, differences
from spaces.load import space_of
from spaces.space import Space
from tcpa_core.errors import StudyError, TakenError
from tcpa_core.record.events import Extended

SHOWN = 6
"""Differences that a refusal names."""

Make = Callable[[], tuple[StudyDir, Change | None]]
"""Makes the study; gives also other data or weights than a study recorded that it was made from."""


@contextmanager
def taken_up(
    root: Path,
    name: str,
    space: Space | None,
    make: Make,
    console: Console,
    repeat: Repeat,
    refusal: Callable[[StudyDir, str], str] | None = None,
    storage: str | None = None,
) -> Iterator[tuple[StudyDir, Change | None]]:
    """The study of that name; unless it is finished, with no other driver until the block's end.

    Args:
        space: What it must be a study of; None: whatever it is.
        make: Called if there is none.
        repeat: Whether an existing one may be taken up, and how long another driver is waited for.
        refusal: Says why one of another space is not, and in what they differ.
        storage: Address at which it lies, too.

    Yields:
        The study and what has changed since it was made.

    Raises:
        TakenError: There is one, and it is not to be taken up.
        RunningError: Another driver runs it.
        StudyError: It is one of another space, or its data or weights have changed.
    """
    study = existing(root, name, storage) if repeat.resume else None
    change, is_made = None, study is None
    if study is None:
        try:
            study, change = make()
        except TakenError:  # since a moment ago: another command has made it
            if not repeat.resume:
                raise
            study, is_made = opened(root, name, storage), False
    if space is not None and not is_made:
        check_same(study, space, refusal)
    # Before the lock: what is damaged is refused, and what is finished needs none.
    if is_done(study):
        yield study, None
        return
    with study.held(repeat.wait_s, lambda line: _say(line, console)):
        if not is_made and not is_done(study):
            with Stages("checking weights and data") as stages:
                change = check_unchanged(study, accept=repeat.accept, progress=stages)
        yield study, change


def is_done(study: StudyDir) -> bool:
    """Whether nothing is left to run, nor a test that could not be made."""
    state = study.state()
    return state.is_finished and not state.without_score()


def check_same(
    study: StudyDir, space: Space, refusal: Callable[[StudyDir, str], str] | None = None
) -> None:
    """Refuse to go on with a study of another space.

    Compared is what both say, in today's words: what a newer version has come to add is in both.

    Raises:
        StudyError: They differ; every place is named with its values before and now.
    """
    before = space_of(study.document()["space"], f"study {study.name}")
    found = [one for one in differences(before, space) if not _is_extended(one, study, space)]
    if found:
        shown = "; ".join(map(str, found[:SHOWN]))
        if len(found) > SHOWN:
            shown += f"; and {len(found) - SHOWN} more"
        if refusal:
            raise StudyError(refusal(study, shown))
        raise StudyError(
            f"study {study.name!r} is one of another space (before -> now): {shown}. "
            f"{_advice(study, found, before, space)}"
        )


def _is_extended(one: Difference, study: StudyDir, now: Space) -> bool:
    """Whether it is what 'tcpa extend' has added to what the command asked for, then as now."""
    if one.place != "budget.trials" or now.budget.trials is None:
        return False
    added = sum(event.trials for event in study.events() if isinstance(event, Extended))
    return one.before == str(now.budget.trials + added)


def _advice(study: StudyDir, found: list[Difference], before: Space, now: Space) -> str:
    more = (now.budget.trials or 0) - (before.budget.trials or 0)
    if [one.place for one in found] == ["budget.trials"] and before.budget.trials and more > 0:
        return (
            f"To give it more trials: tcpa extend {study.name} --trials {more} --root "
            f"{quote(str(study.path.parent))}"
        )
    return (
        f"Go on with it as it is: tcpa resume {study.name}; or give the space a study of its own "
        "with --study."
    )


def say_finished(study: StudyDir, root: Path, console: Console) -> int:
    """Say that nothing is left to do; the exit code: 1 with failed trials."""
    counts = study.state().counts()
    shown = ", ".join(f"{n} {status}" for status, n in sorted(counts.items())) or "none"
    _say(
        f"{study.name} is finished: trials {shown}. Report: tcpa report {study.name} --root "
        f"{quote(str(root))}",
        console,
    )
    return 1 if counts.get("failed") else 0


def _say(line: str, console: Console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
