"""The page of several studies, and pages that are made again while a study runs, in a browser."""

import csv
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from reports.build import build_report
from reports.build_side_by_side import build_side_by_side
from tests.reports.studies import components, write
from tests.reports.test_side_by_side import A, B, searched

pytestmark = pytest.mark.integration
HOSTILE = "<img src=x onerror=alert(1)>"


def test_studies_stand_side_by_side(page: Any, tmp_path: Path) -> None:
    methods = {"vpt": A, HOSTILE: B, "linear": {0: 0.5, 1: 0.52, 2: 0.51}}
    for name, data in (("a", "one"), ("b", "one"), ("c", "two")):
        searched(tmp_path / name, methods, data=data)
    build_report(tmp_path / "b")
    folders = [tmp_path / name for name in "abc"]
    lines = build_side_by_side(folders, tmp_path / "a+b+c")
    assert lines[0].startswith(f"one: {HOSTILE} (a) has the highest mean on val, 86.33 % ± ")
    page.goto((tmp_path / "a+b+c" / "report.html").as_uri())
    assert page.inner_text("h1") == "a, b, c"
    assert [cell.inner_text() for cell in page.query_selector_all("h2")][:2] == ["On one", "On two"]
    levels = page.locator("table.levels >> nth=0").locator("tbody tr")
    assert levels.count() == 6
    assert levels.nth(4).inner_text().split("\t")[:2] == [f"{HOSTILE} (b)", "b"]
    assert page.locator("table.across").count() == 1, "test was read for nothing"
    ranks = page.locator("table.across tbody tr").nth(1).inner_text().split("\t")
    assert ranks[0] == HOSTILE and ranks[-1] == "1.00"
    assert page.locator("table.studies a").count() == 1
    page.locator("table.studies a").click()
    page.wait_for_url("**/b/report/report.html")
    page.go_back()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    table = pq.read_table(tmp_path / "a+b+c" / "levels.parquet")
    with (tmp_path / "a+b+c" / "levels.csv").open() as file:
        assert len(list(csv.DictReader(file))) == table.num_rows == 2 * 9


def test_a_live_page_shows_the_newest_and_how_old_it_is(page: Any, tmp_path: Path) -> None:
    searched(tmp_path / "a", {"vpt": A, "linear": B})
    study = tmp_path / "a"
    path = build_report(study, live_s=30).html
    page.clock.install()
    page.goto(path.as_uri())
    page.clock.run_for(2_000)
    assert "s ago; shown anew every 30 s" in page.inner_text("#live")
    page.get_by_role("searchbox").fill("vpt")
    html = path.read_text()
    newer = re.sub(r'data-made="\d+', 'data-made="2020', html.replace("<h1>a</h1>", "<h1>new</h1>"))
    path.write_text(newer)
    page.clock.run_for(61_000)
    assert page.inner_text("h1") == "a", "a reader's filter is not taken away"
    assert "once you leave the filter" in page.inner_text("#live")
    page.get_by_role("searchbox").fill("")
    page.evaluate("document.activeElement.blur()")
    with page.expect_navigation():
        page.clock.run_for(31_000)
    assert page.inner_text("h1") == "new"
    page.clock.run_for(2_000)
    assert page.locator("#live.old").count() == 1, "nobody makes it again"
    build_report(study)
    page.goto(path.as_uri())
    assert page.locator("#live").count() == 0, "a page that stays does not reload itself"


def test_rows_of_designs_need_no_column_of_what_was_found(page: Any, tmp_path: Path) -> None:
    """Rows with long names, from studies with long names: every column is in view."""
    for name in ("a_study_confirm", "another_confirm"):
        rows = {f"point {n}: linear, lr 0.0123": dict(enumerate((0.8, 0.82, 0.81))) for n in "12"}
        write(tmp_path / name, components(rows), "ablation")
    folders = [tmp_path / "a_study_confirm", tmp_path / "another_confirm"]
    build_side_by_side(folders, tmp_path / "both")
    page.goto((tmp_path / "both" / "report.html").as_uri())
    heads = page.locator("table.levels th").all_inner_texts()
    assert "found" not in heads and heads[-1] == "MDD"
    assert page.eval_on_selector(
        "table.levels", "t => t.parentElement.scrollWidth <= t.parentElement.clientWidth"
    )
    assert page.inner_text("h2 >> nth=0") == "On unnamed data"
