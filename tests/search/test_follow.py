"""A report that is refreshed while a study runs."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from search.study.folder import StudyDir
from search.study.journal import Journal
from search.verbs.report import follow
from tests.journals import recorded, write
from tests.search.conftest import make_space

MakeStudy = Callable[..., StudyDir]


def test_a_report_is_built_whenever_the_journal_grows(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(make_space())
    journal = Journal(study.journal_path)
    write(journal, {"kind": "study", "name": "stubs"})
    study.lock()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:  # nothing new at the first look
            write(journal, {"kind": "stopped", "reason": "x"})
        if len(slept) == 4:
            study.unlock()

    monkeypatch.setattr("time.sleep", sleep)
    built: list[tuple[int, float | None]] = []

    def build(live_s: float | None) -> str:
        built.append((len(recorded(study)), live_s))
        return f"report {len(built)}"

    out = io.StringIO()
    follow([study], build, Console(file=out), every_s=7)
    journal.close()
    assert built == [(1, 7), (2, 7), (2, None)], "the last page does not wait for another one"
    assert slept == [7, 7, 7, 7]
    assert out.getvalue() == "report 1\nreport 2\nreport 3\n"


def test_what_came_with_the_last_breath_is_in_the_report(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver writes its last event and ends between two looks."""
    study = make_study(make_space())
    journal = Journal(study.journal_path)
    study.lock()

    def sleep(_: float) -> None:
        write(journal, {"kind": "finished"})
        study.unlock()

    monkeypatch.setattr("time.sleep", sleep)
    built: list[int] = []

    def build(_: float | None) -> str:
        built.append(len(recorded(study)))
        return ""

    follow([study], build, Console(file=io.StringIO()), 1)
    journal.close()
    assert built == [0, 1]


def test_a_study_that_does_not_run_is_reported_once(make_study: MakeStudy) -> None:
    study = make_study(make_space())
    out = io.StringIO()
    follow([study], lambda _: "report", Console(file=out), 1)
    assert out.getvalue() == "report\n"
