"""The page of a bench in a browser."""

from pathlib import Path
from typing import Any

import pytest

from reports.build_bench import build_bench
from tests.reports.benches import write_bench

pytestmark = pytest.mark.integration
HOSTILE = "<img src=x onerror=alert(1)>"


def test_a_bench_as_a_person_opens_it(page: Any, tmp_path: Path) -> None:
    methods = {"linear": 0.0, "vpt": 0.08, HOSTILE: 0.04}
    groups = {"first": ("digits", "dtd"), "second": ("svhn",)}
    bench = write_bench(tmp_path, methods, ("digits", "dtd", "svhn"), groups=groups,
                        gaps=[(HOSTILE, "svhn")])  # fmt: skip
    build_bench(bench, tmp_path, live_s=30)
    page.goto((tmp_path / "report.html").as_uri())
    assert page.inner_text("h1") == "small"
    assert page.inner_text("#answer p >> nth=0") == "8 of 9 cells of small are whole."
    heads = page.locator("table.bench >> nth=0").locator("thead tr >> nth=0").locator("th")
    assert heads.all_inner_texts() == ["first", "second", "over data sets", "cost"]
    rows = page.locator("table.bench >> nth=0").locator("tbody tr")
    assert rows.count() == 3 and rows.nth(2).locator("th").inner_text() == HOSTILE
    assert page.locator("#missing li").all_inner_texts() == [f"{HOSTILE} on svhn: not started"]
    widths = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
    assert len(widths) == 3 and all(width > 0 for width in widths), "ranks need five data sets"
    assert page.locator("#live").count() == 1
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
