"""The report as a person opens it: offline, in a browser."""

import shutil
from pathlib import Path

import pytest

from reports.build import build_report
from tests.reports.studies import epoch, final, planned, write

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
]


def test_report_opens_sorts_and_filters(tmp_path: Path) -> None:
    events = []
    for n, value in enumerate([0.7, 0.9, 0.8]):
        method = ["linear"] if n == 2 else ["vpt"]
        events += [planned(n, methods=method, optim__lr=0.01 * (n + 1)), epoch(n, 1, value)]
        events += [final(n, "completed", value)]
    page_path = build_report(write(tmp_path / "seen", events)).html
    errors: list[str] = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.goto(page_path.as_uri())
        widths = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
        assert len(widths) >= 4 and all(width > 0 for width in widths)
        first = "#trials tbody tr:not([hidden]) >> nth=0"
        page.get_by_role("button", name="val_accuracy").focus()
        page.keyboard.press("Enter")
        assert page.inner_text(first).startswith("00001"), "highest first"
        page.get_by_role("button", name="val_accuracy").click()
        assert page.inner_text(first).startswith("00000"), "lowest first"
        page.get_by_role("searchbox").fill("linear")
        assert page.inner_text("#shown") == "1 of 3 trials"
        assert page.inner_text(first).startswith("00002")
        browser.close()
    assert errors == []
