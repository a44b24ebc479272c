"""Every reader of the project, with a corpus and a way to change it."""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks import hostile_inputs as inputs
from reports.records.journal import load_journal
from reports.records.study import Study
from reports.tables import epoch_table, trial_table
from search import cli
from search.planning.cost import recorded
from search.study.folder import StudyDir
from search.study.journal import Journal
from spaces.load import load_space
from spaces.overrides import parse_override
from spaces.reader import read_text
from spaces.shipped import PRESETS
from tcpa_core.config import TrialConfig
from tcpa_core.data._cache import open_or_build
from tcpa_core.data._decode import ResizeRule, decode
from tcpa_core.data.base import dataset_fingerprint
from tcpa_core.errors import ConfigError
from tcpa_core.model.load_backbone import load_backbone
from tcpa_core.record.events import event_of, read_journal
from tcpa_core.settings import BackboneConfig, DataConfig
from tcpa_core.training.checkpoint import SCHEMA, _checksum, load_checkpoint, save_checkpoint
from tcpa_core.training.trained import load_trained

SPACES = Path(__file__).parents[1] / "spaces" / "presets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One reader under test."""

    name: str
    weight: int
    """Share of all inputs."""
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    """Returns, or raises a `TcpaError`; anything else is a defect."""
    change: inputs.Change = inputs.mutate


def all_targets(folder: Path) -> Iterator[Target]:
    """Every target; `folder` is theirs to write into."""
    for make in (
        _spaces, _overrides, _settings, _descriptions, _journals, _events, _kept_records, _lists,
        _splits, _folders, _images, _pixels, _checkpoints, _states, _weights, _arrays, _torch_files,
        _names, _commands,
    ):  # fmt: skip
        own = folder / make.__name__
        own.mkdir()
        yield make(own)


def _spaces(folder: Path) -> Target:
    path = folder / "space.yaml"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_space(str(path))

    files = [SPACES / f"{name}.yaml" for name in PRESETS.names()]
    small = sorted(files, key=lambda file: file.stat().st_size)[:8]
    seeds = [*inputs.YAML_ATTACKS, *(file.read_bytes() for file in small)]
    return Target(name="space file (YAML)", weight=6, seeds=seeds, read=read,
                  change=inputs.mutate_words)  # fmt: skip


def _overrides(folder: Path) -> Target:
    path = folder / "space.yaml"
    path.write_text("name: s\nbudget: {trials: 4}\naxes: {optim.lr: {float: [1e-3, 1e-1]}}\n")

    def read(data: bytes) -> object:
        key, value = parse_override(data.decode("utf-8", "surrogateescape"))
        return load_space(str(path), {key: value})

    texts = (
        "optim.lr=0.1", "methods=[vpt, tcpa]", "data.root=../x", "budget.trials=9", "seeds=3",
        "train.epochs=1e3", "objective.metric=val_loss", "=", "a\nb=[", "\x1b[31m={",
    )  # fmt: skip
    return Target(name="--set PATH=VALUE", weight=12, seeds=[t.encode() for t in texts], read=read)


def _settings(folder: Path) -> Target:
    trial = TrialConfig.from_flat({"methods": ["tcpa"]}).flat()

    def read(data: bytes) -> object:
        document = read_text(data.decode("utf-8", "surrogateescape"), "trial.yaml", folder)
        flat = document.data if isinstance(document.data, dict) else {"methods": document.data}
        return TrialConfig.from_flat(flat, place="trial.yaml")

    lines = "\n".join(f"{path}: {json.dumps(value)}" for path, value in trial.items())
    deep = b"a" + b".a" * 50_000 + b": 1\n"
    return Target(name="trial settings (YAML)", weight=4, seeds=[lines.encode(), deep], read=read,
                  change=inputs.mutate_words)  # fmt: skip


def _descriptions(folder: Path) -> Target:
    study = _study(folder)
    path = study.path / "study.yaml"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        try:
            return study.space()
        finally:
            described = Study.read(study.path)
            _ = described.name, described.objectives, described.axes, described.curve_metric

    seeds = [path.read_bytes(), *inputs.YAML_ATTACKS]
    return Target(name="study.yaml", weight=1, seeds=seeds, read=read, change=inputs.mutate_words)


def _study(folder: Path, events: Sequence[dict[str, Any]] = ()) -> StudyDir:
    """A small study with these events."""
    text = "name: s\nbudget: {trials: 4}\naxes: {optim.lr: {float: [1e-3, 1e-1]}}\n"
    (folder / "space.yaml").write_text(text)
    study = StudyDir.create(folder, "mine", load_space(str(folder / "space.yaml")), {}, "")
    journal = Journal(study.journal_path)
    journal.append(*map(event_of, events))
    journal.close()
    return study


MEASURED = {
    "train_loss": 1.0, "ce_loss": 1.0, "match_loss": 0.0, "val_loss": 0.5, "val_accuracy": 0.5,
    "lr": 0.1, "duration_s": 1.0, "images_per_s": 9.0,
}  # fmt: skip
ENDED = {
    "status": "completed", "reason": "", "best_epoch": 2, "num_epochs": 2, "val_accuracy": 0.5,
    "val_loss": 0.5, "num_trainable": 9, "duration_s": 2.0, "device": "cpu", "warnings": ["a"],
}  # fmt: skip


def _events_of_a_study() -> list[dict[str, Any]]:
    params = TrialConfig.from_flat({"methods": ["vpt"]}).flat()
    planned = {"params": params, "point": "p", "seed": 0, "labels": {"cells": []},
               "origin": "sampler", "draw": {"optim.lr": 0.01}}  # fmt: skip
    events: list[dict[str, Any]] = [{"kind": "study", "name": "mine"}]
    for trial in ("00000", "00001"):
        events += [
            {"kind": "planned", "trial": trial, "digest": f"d{trial}", **planned},
            {"kind": "started", "trial": trial, "device": "cpu"},
            *({"kind": "epoch", "trial": trial, "epoch": e, **MEASURED} for e in (1, 2)),
            {"kind": "completed", "trial": trial, **ENDED},
        ]
    events += [{"kind": "extended", "trials": 3}, {"kind": "finished"}]
    return [{"n": n, "t": float(n), **event} for n, event in enumerate(events)]


def _reader_of(study: StudyDir) -> Callable[[], None]:
    """As resume, plan and report read a journal."""
    space = study.space()
    shutil.rmtree(study.path / "tables", ignore_errors=True)
    (study.path / "tables").write_text("")  # so that nothing is kept of a journal

    def read() -> None:
        study.state(space.objective[0].metric).outcomes()
        recorded(study.path.parent)
        Journal(study.journal_path).close()
        records = load_journal(study.path)
        trial_table(records)
        epoch_table(records)

    return read


def _journals(folder: Path) -> Target:
    study = _study(folder, _events_of_a_study())
    whole = study.journal_path.read_bytes()
    known = {line for line in whole.split(b"\n") if line}
    read_all = _reader_of(study)

    def read(data: bytes) -> object:
        study.journal_path.write_bytes(data)
        found = list(read_journal(study.journal_path))
        lines = study.journal_path.read_bytes().split(b"\n")
        assert all(line in known for line in lines[: len(found)]), (
            "a changed line was taken for whole"
        )
        return read_all()

    return Target(name="journal, damaged", weight=4, seeds=[whole, b"{" * 9_000], read=read)


def _events(folder: Path) -> Target:
    study = _study(folder)
    read_all = _reader_of(study)

    def read(data: bytes) -> object:
        study.journal_path.write_bytes(inputs.sealed(data))
        return read_all()

    seeds = [b"\n".join(json.dumps(event).encode() for event in _events_of_a_study())]
    return Target(name="journal, forged (checksums right)", weight=4, seeds=seeds, read=read,
                  change=inputs.mutate_events)  # fmt: skip


def _kept_records(folder: Path) -> Target:
    study = _study(folder, _events_of_a_study())
    truth = load_journal(study.path)
    cache = study.path / "tables" / ".read"
    files = sorted(path for path in cache.iterdir() if path.is_file())
    sizes = [path.stat().st_size for path in files]
    whole = b"".join(path.read_bytes() for path in files)

    def read(data: bytes) -> object:
        left = data
        for path, size in zip(files, sizes, strict=True):
            last = path is files[-1]
            path.write_bytes(left if last else left[:size])
            left = left[size:]
        found = load_journal(study.path)
        assert found.trials == truth.trials, "a damaged copy was taken for whole"
        assert found.epochs.equals(truth.epochs), "a damaged copy was taken for whole"
        return found

    return Target(name="kept copy of a journal (Parquet)", weight=1, seeds=[whole], read=read)


def _lists(folder: Path) -> Target:
    lists = {
        "train800.txt": b"a.png 0\nb.png 1\n",
        "val200.txt": b"c.png 0\n",
        "test.txt": b"d.png 1\n",
    }
    for name, text in lists.items():
        (folder / name).write_bytes(text)
    for name in "abcd":
        Image.new("RGB", (2, 2)).save(folder / f"{name}.png")
    cfg = DataConfig(name="vtab1k", root=str(folder))

    def read(data: bytes) -> object:
        name = "classes.txt" if data.startswith(b"classes\n") else "train800.txt"
        (folder / "classes.txt").unlink(missing_ok=True)
        (folder / "train800.txt").write_bytes(lists["train800.txt"])
        (folder / name).write_bytes(data.removeprefix(b"classes\n"))
        return dataset_fingerprint(cfg, cache_dir=folder / "cache")

    names = b"".join(b"class %d\n" % i for i in range(100_000))
    seeds = [
        lists["train800.txt"], b"a.png 999999999\nb.png 0\n", b"../c.png 0\n/etc/passwd 1\n",
        b"a.png" + b" " * 200_000 + b"x\n", b"a " * 100_000 + b"\n", b"classes\nzero\none\n",
        b"classes\n" + names + b"class 7\n", b"\xef\xbb\xbfa.png 0\r\nb.png 1\r\n",
        "a.png 0\nb.png 1\n".encode("utf-16"), b"a.png 0\x00\nb.png 1\n",
        b"".join(b"%d.png 0\n" % i for i in range(50_000)),
    ]  # fmt: skip
    return Target(name="list files", weight=4, seeds=seeds, read=read, change=inputs.mutate_words)


def _splits(folder: Path) -> Target:
    splits = {"train": {"a.png": 1, "b.png": "2"}, "val": {"c.png": 1}, "test": {"d.png": 2}}
    for name, rows in splits.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    for name in "abcd":
        Image.new("RGB", (2, 2)).save(folder / f"{name}.png")
    cfg = DataConfig(name="fgvc", root=str(folder))

    def read(data: bytes) -> object:
        (folder / "train.json").write_bytes(data)
        return dataset_fingerprint(cfg, cache_dir=folder / "cache")

    def change(data: bytes, rng: Random) -> bytes:
        return (inputs.mutate_json if rng.random() < 0.5 else inputs.mutate)(data, rng)

    seeds = [
        b'{"a.png": 1, "b.png": 2}', b'{"\\ud800.png": 1, "b.png": 2}', b"[" * 100_000,
        b'{"a.png": "' + b"9" * 5000 + b'", "b.png": "1"}', b'{"a.png": ' + b"9" * 5000 + b"}",
        b'{"a.png": 1, "a.png": 2}', b'{"../a.png": 1}', b'{"a.png": {"a": {}}}', b"NaN",
    ]  # fmt: skip
    return Target(name="split files (JSON)", weight=10, seeds=seeds, read=read, change=change)


def _folders(folder: Path) -> Target:
    number = count()

    def read(data: bytes) -> object:
        root = folder / str(next(number))
        _plant(root, data)
        try:
            return dataset_fingerprint(
                DataConfig(name="folder", root=str(root)), cache_dir=folder / "cache"
            )
        finally:
            shutil.rmtree(root, ignore_errors=True)

    whole = [["file", f"{s}/{c}/{i}.png"] for s in ("train", "test") for c in "ab" for i in (1, 2)]
    loops = [["link", "train/a/x", "."], ["link", "train/a/y", ".."], ["link", "train/b/z", "/"]]
    ladder = [["link", f"up/{i}/{j}", f"../{i + 1}"] for i in range(40) for j in "xy"]
    ladder.append(["link", "train/a/up", "../../up/0"])
    seeds = [
        whole, [*whole, *loops], [*whole, loops[0]], [*whole, loops[2]],
        [*whole, *ladder], [*whole, ["fifo", "train/a/3.png"]], [*whole, ["fifo", "train/a"]],
        [*whole, ["link", "train/a/4.png", "/dev/zero"]], [*whole, ["link", "val", "test"]],
        [*whole, ["file", "train/a/" + "d/" * 900 + "1.png"]],
        *([*whole, ["file", f"train/a/{name}.png"]] for name in inputs.PATHS),
        *([*whole, ["file", f"train/{name}/1.png"]] for name in inputs.PATHS),
    ]  # fmt: skip
    return Target(name="class folders (names, links)", weight=1,
                  seeds=[json.dumps(seed).encode() for seed in seeds], read=read,
                  change=inputs.mutate_json)  # fmt: skip


def _plant(root: Path, data: bytes) -> None:
    """Make files, links and pipes below `root`; steps that cannot be made are left out."""
    root.mkdir()
    try:
        steps = json.loads(data)
    except (ValueError, RecursionError):
        return
    for step in steps if isinstance(steps, list) else ():
        try:
            kind, name, *target = step
            parts = PurePosixPath(name).parts
            if ".." in parts or PurePosixPath(name).is_absolute():
                continue
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.resolve().is_relative_to(root.resolve()):
                continue
            if kind == "link":
                path.symlink_to(target[0])
            elif kind == "fifo":
                os.mkfifo(path)
            else:
                path.write_bytes(name.encode("utf-8", "replace"))
        except (OSError, ValueError, TypeError, IndexError, RuntimeError):
            continue


def _images(folder: Path) -> Target:
    rules = [ResizeRule("squash", 16, "bicubic"), ResizeRule("short_side", 16, "bilinear")]

    def read(data: bytes) -> object:
        image = decode(data, "image.png")
        for rule in rules:
            pixels = rule.apply(image, "image.png")
            assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
        return image

    return Target(name="images", weight=40, seeds=inputs.image_seeds(), read=read)


def _pixels(folder: Path) -> Target:
    noise = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    open_or_build(folder, "key", len(noise), lambda i: noise[i], None, "")
    path = folder / "key.pixels"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        store = open_or_build(folder, "key", len(noise), lambda i: noise[i], None, "")
        for index, image in enumerate(noise):
            assert np.array_equal(store.image(index), image), "damaged pixels were used"
        return store

    whole = path.read_bytes()
    flips = [
        bytes((*whole[:at], whole[at] ^ 0x5A, *whole[at + 1 :])) for at in range(0, len(whole), 7)
    ]
    return Target(name="pixel cache", weight=3, seeds=[whole, *flips], read=read)


TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(0, 4), "c": torch.tensor([True])}


def _checkpoints(folder: Path) -> Target:
    path = folder / "last.safetensors"
    save_checkpoint(path, TENSORS, {"epoch": 3, "config": {}})
    whole = path.read_bytes()

    def read(data: bytes) -> object:
        path.write_bytes(data)
        state, info = load_checkpoint(path)
        assert info["epoch"] == 3 and all(torch.equal(state[k], v) for k, v in TENSORS.items())
        return state

    seeds = [whole, *inputs.header_attacks()]
    return Target(name="checkpoint, damaged", weight=14, seeds=seeds, read=read)


def _states(folder: Path) -> Target:
    path = folder / "best.safetensors"
    kinds = (torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.float8_e5m2)

    def read(data: bytes) -> object:
        text = data.decode("utf-8", "replace")
        tensors = {"a": torch.zeros(3).to(kinds[len(data) % len(kinds)])}
        save_to = {"tcpa": text, "crc": str(_checksum(tensors, text))}
        path.write_bytes(save(tensors, metadata=save_to))
        return load_trained(path)

    config = TrialConfig.from_flat({"methods": ["linear"], "backbone.name": "vit_nano"}).flat()
    info = {"schema": SCHEMA, "config": config, "classes": ["a", "b"], "epoch": 1, "selected": None}
    seeds = [json.dumps(info).encode(), b"{}", b'{"schema": 2}', b"[" * 5_000, b"9" * 5_000, b"[]"]
    return Target(name="checkpoint, forged (checksum right)", weight=1, seeds=seeds, read=read,
                  change=inputs.mutate_json)  # fmt: skip


def _weights(folder: Path) -> Target:
    return _weight_files(folder, "safetensors", 6, inputs.header_attacks())


def _arrays(folder: Path) -> Target:
    return _weight_files(folder, "npz", 6, inputs.npz_seeds())


def _torch_files(folder: Path) -> Target:
    states: list[Any] = [
        {"head.weight": torch.zeros(2, 3), "model": {"a": torch.zeros(2)}},
        {"state_dict": {1: torch.zeros(2)}, 2: 3},
        torch.zeros(4),
        [torch.zeros(2)],
        {"a": torch.zeros(2).to_sparse(), "b": torch.zeros(2, dtype=torch.complex64)},
        {"model": None},
    ]
    seeds = []
    for state in states:
        for is_zip in (True, False):
            buffer = io.BytesIO()
            torch.save(state, buffer, _use_new_zipfile_serialization=is_zip)
            seeds.append(buffer.getvalue())
    return _weight_files(
        folder, "pth", 6, [*seeds, b"\x80\x02}q\x00.", b"cos\nsystem\n(S'true'\ntR."]
    )


def _weight_files(folder: Path, suffix: str, weight: int, seeds: Sequence[bytes]) -> Target:
    path = folder / f"weights.{suffix}"
    cfg = BackboneConfig(name="vit_nano", weights=str(path))

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load_backbone(cfg)

    return Target(name=f"weights (.{suffix})", weight=weight, seeds=seeds, read=read)


def _names(folder: Path) -> Target:
    root = folder / "studies"
    root.mkdir()

    def read(data: bytes) -> object:
        name = data.decode("utf-8", "surrogateescape")
        path = StudyDir.check_free(root, name)
        assert path.parent == root and path.name == name and name.isascii()
        return StudyDir.open(root, name)

    return Target(name="names of studies", weight=12, seeds=_named(inputs.PATHS), read=read)


def _named(names: Sequence[str]) -> list[bytes]:
    return [name.encode("utf-8", "surrogateescape") for name in names]


def _commands(folder: Path) -> Target:
    root = folder / "studies"
    root.mkdir()
    verbs = ("status", "report", "replay", "stop", "extend", "data", "backbones", "plan")
    before = {*folder.rglob("*")}

    def read(data: bytes) -> object:
        words = data.decode("utf-8", "surrogateescape").replace("\0", "").split(" ")
        before_argv = sys.argv
        sys.argv = ["tcpa", verbs[len(data) % len(verbs)], *words, "--root", str(root)]
        said = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
        try:
            with redirect_stderr(said), redirect_stdout(said):
                cli.main()
        except SystemExit as end:
            said.seek(0)
            text = said.read()
            assert {*folder.rglob("*")} == before, "a refused command left something"
            if end.code == cli.WRONG_INPUT:
                assert text.count("\n") == 1 and "Traceback" not in text, text
                assert text.rstrip("\n").isprintable(), text
                raise ConfigError(text) from end
        finally:
            sys.argv = before_argv
        return None

    for index in range(len(verbs)):  # what a verb imports on first use is no input's time
        with suppress(ConfigError):
            read(b"x" * (len(verbs) + index))
    return Target(name="command lines", weight=1, seeds=_named(inputs.PATHS), read=read)
