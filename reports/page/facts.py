"""What was searched, and how: data, backbone, ranges, training, budget, and the command for it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from reports.frames import Frames
from reports.labels import is_missing, methods_label, plain, plural
from spaces.record import can_be_a_file
from spaces.wording import any_of, axis_text, number_text, training_text

Fact = tuple[str, str]
"""Name and value of a row."""
NAMES = {"tpe": "TPE", "gp": "GP", "cmaes": "CMA-ES", "nsga2": "NSGA-II", "qmc": "QMC",
         "asha": "ASHA", "hyperband": "Hyperband", "median": "median stopping",
         "pbt": "PBT"}  # fmt: skip


def searched(found: Frames) -> list[Fact]:
    """Data, backbone, statistics and the range of every axis, or the factors of a design."""
    facts = [*_data(found), *_backbones(found), *_statistics(found)]
    for path, axis in found.study.axes.items():
        facts.append((path, axis_text(axis)))
    return [*facts, *_design(found)]


def _data(found: Frames) -> Iterator[Fact]:
    """Each data set with its counts; of a study that recorded none its name."""
    known = found.study.data
    for one in known[:4]:
        images = one.get("images") or {}
        order = dict.fromkeys(name for name in ("train", "val", "test", *images) if name in images)
        counts = " / ".join(f"{images[split]:,} {split}" for split in order)
        parts = [counts, plural(int(one["classes"]), "class") if one.get("classes") else ""]
        root = (one.get("settings") or {}).get("data.root")
        name = str(one.get("name", ""))
        if root and PurePath(root).name != name:
            name += f" ({PurePath(root).name})"
        mark = str(one.get("fingerprint", ""))[:12]
        text = ", ".join(filter(None, parts)).replace("classs", "classes")
        yield "data", f"{name}{': ' if text else ''}{text}{f'; fingerprint {mark}' if mark else ''}"
    if len(known) > 4:
        yield "", f"{len(known) - 4} more data sets"
    if not known and (name := _constant(found, "data.name")):
        yield "data", name


def _backbones(found: Frames) -> Iterator[Fact]:
    """Name, weights, size, image size, and whether it stays as it is."""
    document = found.study.document
    names = _values(found, "backbone.name")
    told = {str(text).partition(":")[0]: str(text) for text in document.get("backbones") or ()}
    mark = str((document.get("fingerprints") or {}).get("weights", ""))
    trained = document.get("trained_backbone")
    for name in names[:4]:
        sentence = next((text for full, text in told.items() if full.startswith(name)), "")
        of = [one for one in found.study.preprocessing
              if str(one.get("backbone", "")).startswith(name)]  # fmt: skip
        sizes = {one["img_size"] for one in of if one.get("img_size")}
        parts = [_weights(found, mark if len(names) == 1 else "")]
        parts += [sentence.partition(": ")[2].partition(" parameters")[0] + " parameters"] * (
            "parameters" in sentence)  # fmt: skip
        parts += [f"{' and '.join(map(str, sorted(sizes)))} px"] if sizes else []
        if trained is not None:
            parts.append("frozen" if not trained else f"frozen but for {any_of(trained)}")
        yield "backbone", ", ".join([name, *filter(None, parts)])


def _weights(found: Frames, mark: str) -> str:
    """Where the weights are from, with their hash where that is known."""
    given = _values(found, "backbone.weights")
    if given == ["random"]:
        return "random weights"
    name = f"weights {PurePath(given[0]).name}" if len(given) == 1 else ""
    kind, _, digest = mark.partition(":")
    known = f"{kind} {digest[:12]}" if digest else mark[:12]
    return f"{name or 'weights'} ({known})" if known else name


def _statistics(found: Frames) -> Iterator[Fact]:
    """Mean and standard deviation that images are brought to, and who says so."""
    texts = dict.fromkeys(
        f"mean {_numbers(one['mean'])}, std {_numbers(one.get('std') or [])}"
        + (f" ({one['source']})" if one.get("source") else "")
        for one in found.study.preprocessing
        if isinstance(one.get("mean"), list)
    )
    for text in list(texts)[:3]:
        yield "statistics", text


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _design(found: Frames) -> Iterator[Fact]:
    """What an ablation varies."""
    design = found.study.space.get("ablation") or {}
    for path, values in (design.get("factors") or {}).items():
        if isinstance(values, list):
            yield str(path), any_of(values)
    rows = design.get("rows") or {}
    if rows:
        names = [found.study.row_names.get(row, row) for row in rows]
        yield "rows", "; ".join(names[:8]) + ("; ..." if len(names) > 8 else "")
    if "baseline" in design:
        base = design["baseline"]
        text = base if isinstance(base, str) else ", ".join(f"{k} {v}" for k, v in base.items())
        yield "baseline", found.study.row_names.get(str(text), str(text))


def how(found: Frames) -> list[Fact]:
    """Training, sampler, scheduler and budget."""
    space = found.study.space
    facts = [("training", _training(found))]
    if found.study.kind == "search":
        facts += [("sampler", _sampler(space)), ("scheduler", _scheduler(space))]
        if found.study.races_seeds:
            most = len(found.study.seeds)
            facts.append(("seeds", f"raced, up to {most} for what may be the best"))
    else:
        name = str((space.get("ablation") or {}).get("design", "")).replace("_", " ")
        num = len(found.study.seeds) or found.trials["seed"].nunique()
        race = "a race: clearly worse rows get fewer seeds" if found.study.races else ""
        parts = [name, plural(num, "seed") if num else "", race]
        facts.append(("design", ", ".join(filter(None, parts))))
    facts.append(("budget", _budget(space) or "all of the design" * (found.study.kind != "search")))
    goals = [f"{one.metric}, {one.goal}d" for one in found.study.objectives]
    facts.append(("objective", "; ".join(goals)))
    return [(name, text) for name, text in facts if text]


def _training(found: Frames) -> str:
    """What all trials have in common of how they were trained; what varies is left out."""
    trials = found.trials
    if trials.empty:
        return training_text(found.study.space.get("base") or {})
    same = [path for path in found.settings if trials[path].nunique(dropna=False) == 1]
    values = {path: plain(trials[path].iloc[0]) for path in same}
    known = {path: value for path, value in values.items() if not is_missing(value)}
    text, selection = training_text(known), str(known.get("train.selection", ""))
    by = f"epoch chosen by {selection.replace('_', ' ')}" if selection else ""
    return ", ".join(filter(None, [text, by]))


def _sampler(space: Mapping[str, Any]) -> str:
    sampler = space.get("sampler") or {}
    name = str(sampler.get("name") or "")
    first = len(space.get("first_points") or ())
    parts = [NAMES.get(name, name), f"seed {sampler['seed']}" if "seed" in sampler else "",
             plural(first, "first point") if first else "",
             "equal budgets for each method" if sampler.get("per") else ""]  # fmt: skip
    return ", ".join(filter(None, parts))


def _scheduler(space: Mapping[str, Any]) -> str:
    found = space.get("scheduler") or {}
    name = str(found.get("name") or "")
    if name == "none":
        return "none: every trial trains to its end"
    if name == "pbt":
        return (
            f"{NAMES[name]}, {found['population']} members, judged every "
            f"{plural(found['interval'], 'epoch')}"
        )
    grace, factor = found.get("grace_epochs"), found.get("reduction_factor")
    parts = [
        NAMES.get(name, name),
        f"grace {plural(grace, 'epoch')}" if grace else "",
        f"factor {factor}" if factor and name != "median" else "",
        plural(found["brackets"], "bracket") if found.get("brackets") else "",
        f"at least {found['min_samples']} others" if found.get("min_samples") else "",
    ]
    return ", ".join(filter(None, parts))


def _budget(space: Mapping[str, Any]) -> str:
    budget = space.get("budget") or {}
    words = {"trials": "trials", "hours": "hours", "gpu_hours": "GPU-hours"}
    return ", ".join(
        f"{number_text(budget[key])} {word}" for key, word in words.items() if budget.get(key)
    )


def again(found: Frames) -> str:
    """The command that does it again, given in the folder of the report."""
    file = "space.yaml" if can_be_a_file(found.study.space) else "../study.yaml"
    verb = "ablate" if found.study.kind == "ablation" else "search"
    # a name has at most 64 characters
    return f"tcpa {verb} {file} --study {found.study.name[:58]}_again"


def _values(found: Frames, path: str) -> list[str]:
    """Distinct values of a setting over all trials, or, before the first one, in the space."""
    if path in found.trials and len(found.trials):
        values: pd.Series = found.trials[path]
        return [methods_label(value) for value in values.unique() if not is_missing(value)]
    base = found.study.space.get("base") or {}
    return [str(base[path])] if base.get(path) is not None else []


def _constant(found: Frames, path: str) -> str:
    """The value that all trials have of a setting; "": they differ, or have none."""
    values = _values(found, path)
    missing = path in found.trials and bool(found.trials[path].isna().any())
    return values[0] if len(values) == 1 and not missing else ""
