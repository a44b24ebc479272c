"""What the first screen says: who leads, what it took, the best of each method, and what ended
early or failed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reports.frames import Frames
from reports.labels import is_missing, plural
from reports.page.best import SAID, best, ended
from reports.page.facts import again, how, searched
from reports.summary import ReportSummary
from reports.verdict import Verdict
from spaces.confirmations import confirmation_of, search_of
from tcpa_core.record.scores import CALLED

STATES = {"planned": "not begun", "interrupted": "not finished", "stopped": "stopped",
          "extended": "to be gone on with", "finished": "finished"}  # fmt: skip


def front(
    found: Frames,
    summary: ReportSummary,
    made: datetime,
    confirmation: Frames | None = None,
) -> dict[str, Any]:
    """What front.html.j2 shows."""
    folder = summary.html.parents[1]
    verdict = summary.verdict or Verdict("")
    return {
        "kind": _kind(found),
        "dates": _dates(found),
        "state": _state(found),
        "made": f"{day(made)}, {made:%H:%M %Z}".strip(),
        "version": _version(found),
        "links": [*_links(found, folder, confirmation)],
        "verdict": verdict,
        "warning": verdict.warnings[0] if verdict.warnings else "",
        "further": verdict.warnings[1:],
        "tiles": [_trials(found), _seeds(found, confirmation), _cost(found), _test(found)],
        "best": best(found),
        "ended": ended(found),
        "searched": searched(found),
        "how": how(found),
        "again": again(found),
        "num_used": len(found.used),
    }


def _version(found: Frames) -> str:
    """Version and commit with which the study was made, as far as they are recorded."""
    document = found.study.document
    version = (document.get("versions") or {}).get("tcpa-search", "")
    git = f" ({document['git']})" if document.get("git") else ""
    return f"tcpa-search {version}{git}".strip() if version or git else ""


def _kind(found: Frames) -> str:
    name = found.study.confirms.get("name")
    if name:
        return f"Confirmation of {name}"
    return "Search" if found.study.kind == "search" else "Ablation"


def _state(found: Frames) -> str:
    return "" if found.course is None else STATES.get(found.course.phase, found.course.phase)


def _dates(found: Frames) -> str:
    """ "29 Nov 2026, 18:30–18:41"."""
    course = found.course
    if course is None or course.began is None or course.last is None:
        return ""
    began, last = local(course.began), local(course.last)
    if began.date() == last.date():
        return f"{day(began)}, {began:%H:%M}–{last:%H:%M}"
    return f"{day(began)}, {began:%H:%M} – {day(last)}, {last:%H:%M}"


def local(seconds: float) -> datetime:
    """Unix time in the time zone of this machine."""
    return datetime.fromtimestamp(seconds, UTC).astimezone()


def day(at: datetime) -> str:
    """ "29 Nov 2026"; day without a zero before it."""
    return f"{at.day} {at:%b %Y}"


def _links(found: Frames, folder: Path, confirmation: Frames | None) -> list[tuple[str, str]]:
    """Text and address of what lies beside the page, as far as it is there."""
    links = [("space.yaml", "space.yaml"), ("trials.csv", "../tables/trials.csv")]
    document = found.study.document
    search = search_of(folder, document)
    confirming = confirmation_of(folder, document) if confirmation else None
    for text, other in (("the search", search), ("its confirmation", confirming)):
        if other is not None and (other / "report" / "report.html").is_file():
            links.append((f"{text} {other.name}", f"../../{other.name}/report/report.html"))
    return links


Tile = Mapping[str, str]


def _tile(head: str, text: str) -> Tile:
    return {"head": head, "text": text}


def _trials(found: Frames) -> Tile:
    counts = Counter(found.trials["status"])
    always = ("completed", "pruned", "failed")
    shown = [s for s in SAID if counts[s] or s in always]
    text = ", ".join(f"{counts[s]} {SAID[s]}" for s in shown)
    reused = [one.partition("/")[0] for one in found.trials["reused_from"] if one]
    if reused:
        text += f"; {len(reused)} reused from {_list(sorted(set(reused)), 3)}"
    return _tile(plural(len(found.trials), "trial"), text)


def _seeds(found: Frames, confirmation: Frames | None) -> Tile:
    seeds = sorted(set(found.trials["seed"].dropna().astype(int))) or list(found.study.seeds)
    names = _list([str(seed) for seed in seeds])
    each = "setting" if found.study.kind == "search" else "row"
    text = f"seed{'s' * (len(seeds) > 1)} {names}" if seeds else ""
    if len(seeds) > 1:
        text += f", the same for each {each}"
    if found.study.confirms:
        text += "; none was used in the search"
    if confirmation is not None:
        fresh = confirmation.trials["seed"].nunique()
        text += f"; {plural(int(fresh), 'fresh seed')} in its confirmation"
    return _tile(plural(len(seeds), "seed"), text)


def _list(names: Sequence[str], most: int = 6) -> str:
    more = [f"{len(names) - most + 1} more"] if len(names) > most else []
    return ", ".join([*(names if not more else names[: most - 1]), *more])


def _cost(found: Frames) -> Tile:
    trials, course = found.trials, found.course
    training = float(trials["duration_s"].fillna(0).sum())
    peak = trials["peak_memory_bytes"].max()
    parts = ["wall time"] if course is not None else []
    parts += [f"{duration(training)} of training over all trials"] if training else []
    before = float(trials.loc[trials["reused_from"] != "", "duration_s"].fillna(0).sum())
    parts += [f"{duration(before)} of it in earlier studies, which cost nothing here"] * bool(
        before
    )
    if course is not None and course.devices:
        parts.append(f"on {_list(course.devices, 3)}")
    if course is not None and course.gpu_s:
        parts.append(f"{course.gpu_s / 3600:.2g} GPU-hours")
    if not is_missing(peak) and peak:
        parts.append(f"peak memory {size(float(peak))}")
    head = duration(course.wall_s) if course is not None else duration(training)
    return _tile(head, ", ".join(parts))


def _test(found: Frames) -> Tile:
    """Who read the test split, and when."""
    trials, course, score = found.trials, found.course, found.study.score
    read = trials[trials[score.test].notna()]
    if read.empty:
        return _tile("test not read", "val selects epoch and setting")
    names = list(read["trial"])
    times = sorted(course.tested[n] for n in names if n in course.tested) if course else []
    when = f", {day(local(times[-1]))}, {local(times[-1]):%H:%M}" if times else ""
    which = f"trial{'s' * (len(names) > 1)} {_list(names, 4)}{when}"
    if found.study.selects:  # of one setting
        known = [name for name in (score.test, *score.variants) if read[name].notna().all()]
        value = ", ".join(f"{CALLED[name]} {100 * read[name].mean():.2f} %" for name in known)
        head = "test read once" if len(names) == 1 else "test read once a seed"
        return _tile(head, f"{value}, {which}; val selects epoch and setting")
    return _tile("test read once a trial", f"{which}, each at the epoch that val selects")


def duration(seconds: float) -> str:
    """ "41 s", "11 min", "3.2 h" or "2.5 days"."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 10 or unit == 1 else f"{value:.1f} {name}"
    return f"{seconds / 86_400:.1f} days"


def size(num_bytes: float) -> str:
    """ "1.2 GB"."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
