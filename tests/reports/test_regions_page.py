"""Classes and pictures of a segmentation on the page, as a person sees them in a browser."""

from pathlib import Path
from typing import Any

import pytest

from reports.build import build_report
from tests.reports.segments import segment_study

pytestmark = pytest.mark.integration
METHODS = ("linear", "vpt", "cvpt", "tcpa", "lora", "ssf")


def test_classes_and_pictures_fit_every_screen(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.build.draw_all", lambda *args: [])
    names = [f"a class of name {n}" for n in range(40)]
    study = segment_study(tmp_path / "parts", dict.fromkeys(METHODS, 0.7), 2, names, 13)
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto(build_report(study).html.as_uri())
    part = page.locator(".regions")
    pictures = part.locator(".triples img")
    assert pictures.count() == 36
    assert all(pictures.evaluate_all("all => all.map(one => one.naturalWidth === 96)"))
    beside = "all => all.map(one => one.getBoundingClientRect().top)"
    tops = pictures.evaluate_all(beside)
    assert all(tops[n] == tops[n + 1] == tops[n + 2] for n in range(0, 36, 3)), "side by side"
    assert part.locator("details tbody tr").first.is_hidden()
    part.locator("summary").click()
    assert part.locator(".by-method tbody tr").count() == 40
    for width in (1400, 390):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            # a legend whose colours were inverted would name other pixels
            patch = part.locator(".patch").first
            assert patch.evaluate("one => getComputedStyle(one).filter") == "none"
            assert pictures.first.evaluate("one => getComputedStyle(one).filter") == "none"
    page.emulate_media(media="print")
    assert part.locator(".print-only").is_visible()
    page.close()
    assert errors == []
