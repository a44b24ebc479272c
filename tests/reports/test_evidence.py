"""What stands below the first screen, as a person sees and uses it: figures, filter, paper."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from reports.build import build_report
from tests.reports.studies import SPACE, components, epoch, final, planned, write

pytestmark = pytest.mark.integration
METHODS = ("vpt", "linear", "tcpa")
REASON = "train_loss is nan at epoch 2"
TRIALS = 60


def study(folder: Path) -> Path:
    """A search of three methods: two trials failed, one diverged, some were stopped."""
    axes = {
        "methods": {"choice": [[name] for name in METHODS]},
        "optim.lr": {"float": [0.001, 0.1], "log": True},
        "vpt.num_prompts": {"choice": [5, 10, 20]},
        "tcpa.num_prompts": {"choice": [4, 8]},
    }
    events: list[dict[str, Any]] = []
    for n in range(TRIALS):
        name = METHODS[n % 3]
        params: dict[str, Any] = {"methods": [name], "optim__lr": 0.001 * 1.08**n}
        if name != "linear":
            params[f"{name}__num_prompts"] = ([5, 10, 20] if name == "vpt" else [4, 8])[n % 2]
            params[f"{name}__deep"] = True
        events.append(planned(n, **params))
        if n in (7, 20):
            events.append(final(n, "failed", reason=REASON))
            continue
        value = 0.02 if n == 30 else 0.8 + 0.001 * n
        events += [epoch(n, 1, value), epoch(n, 2, value)]
        status = "pruned" if n % 5 == 4 else "completed"
        cost = {"duration_s": 1.0 + n, "flops_per_image": 1e8 * (1 + n % 3)}
        events.append(final(n, status, value, **cost))
    return write(folder, events, space=SPACE | {"axes": axes})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(study(tmp_path_factory.mktemp("evidence") / "s")).html


@pytest.fixture(scope="module")
def opened(browser: Any, path: Path) -> Any:
    """The page at desktop width; what it complains about fails the test that asks for it."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(path.as_uri())
    return page


@pytest.fixture
def page(opened: Any) -> Iterator[Any]:
    """The same page, without a filter."""
    opened.get_by_role("searchbox").fill("")
    yield opened


def shown(page: Any) -> str:
    return str(page.inner_text("#shown"))


def test_a_method_has_one_colour_in_legend_points_and_every_figure(page: Any) -> None:
    data = page.evaluate("data.styles")
    styles = {name: (look[0], look[1]) for name, look in data.items()}
    assert list(styles) == list(METHODS) and len(set(styles.values())) == 3
    fills = page.eval_on_selector_all(
        "#legend span",
        "all => all.map(s => [s.textContent, s.querySelector('path').getAttribute('fill')])",
    )
    assert dict(fills) == {name: colour for name, (colour, _) in styles.items()}
    sources = page.eval_on_selector_all("figure img", "all => all.map(i => [i.alt, i.src])")
    svg = {
        alt.split(":")[0]: base64.b64decode(src.partition(",")[2]).decode() for alt, src in sources
    }
    for title in ("History and regret", "Learning curves", "Pareto fronts", "Cost"):
        colours = set(re.findall(r"#[0-9a-f]{6}", svg[title]))
        assert {colour.lower() for colour, _ in styles.values()} <= colours, title


def test_every_trial_is_a_point_also_one_far_off_and_those_that_failed(page: Any) -> None:
    canvas = page.locator("#points")
    canvas.focus()
    met = {}
    for _ in range(TRIALS):
        page.keyboard.press("ArrowRight")
        tip = page.inner_text("#tip")
        met[re.search(r"trial (\d+)", tip).group(1)] = tip  # type: ignore[union-attr]
    page.keyboard.press("Escape")
    assert len(met) == TRIALS
    assert REASON in met["00007"] and "failed" in met["00007"]
    assert "2.00 %" in met["00030"]
    assert "beyond" not in page.inner_text("#points-note")
    assert "(2)" in page.inner_text("#points-note"), "failed ones are counted"
    inside = page.evaluate(
        "(() => { const a = axisOfAll(data.columns.find(c => c.name === 'val_accuracy').values"
        ".filter(v => v !== null)); return [a.below, a.place(2), a.place(80), a.place(85.9)]; })()"
    )
    assert inside[0] and 0 < inside[1] < 1 / 7 < inside[2] < inside[3] < 1, "squeezed, not cut"


LR = [0.001 * 1.08**n for n in range(TRIALS)]
FILTERS = {
    "lr < 0.01": (sum(lr < 0.01 for lr in LR), ""),
    "lr<0.01 tcpa": (sum(LR[n] < 0.01 for n in range(2, TRIALS, 3)), ""),
    "OPTIM.LR<=0.001": (1, ""),
    "0.002 < lr <= 0.01": (sum(0.002 < lr <= 0.01 for lr in LR), ""),
    "0.01 > lr": (sum(lr < 0.01 for lr in LR), ""),
    "status = pruned": (12 - 0, ""),
    "status != pruned": (48, ""),
    "methods = vpt|tcpa": (40, ""),
    'reason = "train_loss is nan at epoch 2"': (2, ""),
    "val_accuracy >= 85": (sum(0.8 + 0.001 * n >= 0.85 for n in range(TRIALS)), ""),
    "val_accuracy < 50%": (1, ""),
    "vpt.num_prompts = unset": (40, ""),
    "num_prompts = 8": (10, "tcpa.num_prompts or vpt.num_prompts"),
    "vpt.deep = True": (TRIALS, "vpt.deep is True in all trials that have it"),
    "wd < 0.1": (TRIALS, 'no column is called "wd"'),
    "lr <": (TRIALS, 'nothing stands behind "lr <"'),
    "lr < abc": (TRIALS, '"abc" is none'),
    "methods < 3": (TRIALS, "names"),
    "vpt or tcpa": (0, "alternatives"),
    "xyz": (0, 'no trial has "xyz"'),
}


@pytest.mark.parametrize("text", FILTERS)
def test_filter_understands_and_says_what_it_does_not(text: str, page: Any) -> None:
    count, said = FILTERS[text]
    page.get_by_role("searchbox").fill(text)
    assert shown(page) == f"{count} of {TRIALS} trials"
    told = page.inner_text("#said")
    assert said in told if said else told == ""


def test_a_range_dragged_along_an_axis_is_a_filter_that_all_follow(page: Any) -> None:
    strips = page.locator("#parallel .strip")
    names = page.eval_on_selector_all(
        "#parallel .end.from", "all => all.map(e => e.getAttribute('aria-label'))"
    )
    searched = ["methods", "optim.lr", "tcpa.num_prompts", "vpt.num_prompts", "val_accuracy"]
    assert names == [f"{name} from" for name in searched]
    lr = strips.nth(1)
    lr.scroll_into_view_if_needed()
    box = lr.bounding_box()
    # the axis begins 10 pixels behind its strip's left end
    page.mouse.move(box["x"] + 10 + 0.5 * (box["width"] - 20), box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 40, box["y"] + 10, steps=4)
    page.mouse.up()
    text = page.input_value("#filter")
    limit = float(re.fullmatch(r"optim\.lr >= ([\d.]+)", text).group(1))  # type: ignore[union-attr]
    assert limit == pytest.approx((LR[0] * LR[-1]) ** 0.5, rel=0.05), "the middle of a log axis"
    expected = f"{sum(lr >= limit for lr in LR)} of {TRIALS} trials"
    assert shown(page) == expected and page.inner_text("#chosen span").startswith(expected)
    page.locator("#points").focus()
    page.keyboard.press("ArrowRight")
    first = page.inner_text("#tip")
    assert int(re.search(r"trial (\d+)", first).group(1)) > 20, "points follow"  # type: ignore[union-attr]
    page.keyboard.press("Escape")
    end = page.get_by_role("slider", name="methods to")
    end.focus()
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#filter").endswith("methods = vpt|linear"), "by keyboard"
    page.keyboard.press("Escape")
    assert page.input_value("#filter") == text
    page.get_by_role("button", name="show all").click()
    assert shown(page) == f"{TRIALS} of {TRIALS} trials"


def test_winner_is_pinned_and_constants_are_folded(page: Any) -> None:
    assert page.locator("#trials thead tr.pinned td >> nth=0").inner_text().endswith("00058")
    page.get_by_role("searchbox").fill("status = failed")
    assert "00058" in page.inner_text("#trials thead tr.pinned"), "also where the filter hides it"
    rows = page.eval_on_selector_all("#trials tbody tr", "all => all.map(r => r.innerText)")
    assert len(rows) == 2 and all("failed" in row and REASON in row for row in rows)
    heads = page.eval_on_selector_all("#trials th button", "all => all.map(b => b.textContent)")
    start = ["trial", "status", "reason", "val_accuracy (%)", "methods", "optim.lr"]
    assert heads[:6] == start and "vpt.deep" not in heads
    folded = page.locator("#constants")
    assert not folded.locator("dl").is_visible()
    folded.locator("summary").click()
    assert "vpt.deep" in folded.inner_text() and "num_trainable" in folded.inner_text()
    folded.locator("summary").click()


def test_every_figure_has_a_sentence_and_its_type_can_be_read(page: Any) -> None:
    figures = page.locator("figure")
    assert figures.count() >= 5
    for figure in figures.all():
        assert len(figure.locator(".says").inner_text()) > 20
        width = figure.locator("img").bounding_box()["width"]
        assert width >= 3.25 * 96, "7 points are 9 pixels at column width"


def test_paper_has_every_trial_and_column(page: Any, tmp_path: Path) -> None:
    pdf = page.pdf(format="A4", path=tmp_path / "page.pdf")
    reader = PdfReader(io.BytesIO(pdf))
    text = "\n".join(one.extract_text() for one in reader.pages)
    squeezed = re.sub(r"\s", "", text)
    for name in page.evaluate("data.columns.map(c => c.name)"):
        assert name in squeezed, name
    assert all(f"{n:05d}" in text for n in range(TRIALS))
    assert page.locator(".paper").count() == 0 or page.locator(".paper >> nth=0").is_hidden()


def test_a_wide_table_is_split_on_paper_and_a_long_one_says_what_is_left_out(
    browser: Any, tmp_path: Path
) -> None:
    events = []
    for n in range(310):
        more = {f"optim__a_setting_of_some_length_{k}": n * k for k in range(1, 15)}
        events += [
            planned(n, optim__lr=0.001 * (n + 1), **more),
            final(n, "completed", 0.5 + n / 2000),
        ]
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(build_report(write(tmp_path / "wide", events)).html.as_uri())
    pdf = page.pdf(format="A4")
    page.close()
    reader = PdfReader(io.BytesIO(pdf))
    squeezed = re.sub(r"\s", "", "".join(one.extract_text() for one in reader.pages))
    assert all(f"optim.a_setting_of_some_length_{k}" in squeezed for k in range(1, 15))
    assert "thefirst300of310trials;allstandintables/trials.csv" in squeezed
    wide = float(reader.pages[0].mediabox.width)
    # no text begins beyond the paper's edge
    for one in reader.pages[:6]:
        places: list[float] = []
        one.extract_text(
            visitor_text=lambda t, cm, tm, f, s, p=places: (
                p.append(cm[4] + tm[4] * cm[0]) if t.strip() else None
            )
        )
        assert max(places, default=0) < wide


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_stand_out_from_the_page_and_nothing_is_wider_than_a_phone(
    scheme: str, browser: Any, path: Path
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for swatch in page.locator("#legend .swatch").all():
        pixels = np.asarray(Image.open(io.BytesIO(swatch.screenshot())).convert("RGB"), float)
        middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
        assert contrast(middle, pixels[0, 0]) >= 2.2
    page.close()


def contrast(a: "np.ndarray[Any, Any]", b: "np.ndarray[Any, Any]") -> float:
    """Ratio of luminances by WCAG 2."""
    light = []
    for colour in (a, b):
        part = colour / 255
        linear = np.where(part <= 0.03928, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_levels_of_an_ablation_are_coloured_and_named(browser: Any, tmp_path: Path) -> None:
    rows = {"VPT": {0: 0.8, 1: 0.81, 2: 0.83}, "+R": {0: 0.85, 1: 0.86, 2: 0.84}}
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(build_report(write(tmp_path / "a", components(rows), "ablation")).html.as_uri())
    assert page.inner_text("#legend").split() == ["VPT", "+R"]
    assert page.evaluate("groupOf") == ["VPT"] * 3 + ["+R"] * 3
    page.get_by_role("searchbox").fill("level = +R")
    assert shown(page) == "3 of 6 trials"
    page.close()
