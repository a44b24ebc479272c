"""Hosts that lack what a study was planned with: they are left to others, and no trial notices."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tcpa_core
from benchmarks.hosts import CHECKOUT, Host, Hosts, why_none
from tcpa_core.record.events import read_journal

pytestmark = [
    pytest.mark.faults,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_none()), reason=why_none() or "hosts are to be had"),
]

SPACE = """
name: {name}
base:
  backbone: {{name: vit_nano, weights: /mnt/data/w.safetensors}}
  data: {{name: folder, root: /mnt/data/tiny}}
  train: {{epochs: 2, batch_size: 16}}
  methods: [linear]
  optim.lr: 0.01
axes: {{optim.weight_decay: {{float: [1.0e-9, 1.00001e-9]}}}}
sampler: {{name: random}}
scheduler: {{name: none}}
budget: {{trials: {trials}}}
"""
"""All trials have practically one setting: their numbers are equal wherever they train."""


@dataclass
class Lab:
    hosts: Hosts
    names: dict[str, Host]

    def search(self, name: str, *, trials: int = 12) -> tuple[int, str, list[dict[str, object]]]:
        """Run a study from the first host: exit code, what was printed, events."""
        (self.hosts.shared / f"{name}.yaml").write_text(SPACE.format(name=name, trials=trials))
        done = self.names["a"].run(
            "tcpa", "search", f"/mnt/shared/{name}.yaml", "--root", "/mnt/shared/studies",
            "--address", "auto", "--no-reuse", timeout=400,
        )  # fmt: skip
        journal = self.hosts.shared / "studies" / name / "journal.jsonl"
        events = [one.as_dict() for one in read_journal(journal)] if journal.exists() else []
        return done.returncode, done.stdout + done.stderr, events


def write_data(folder: Path) -> None:
    """Three classes of noise, and the shipped weights."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for kind in ("a", "b", "c"):
            (folder / "tiny" / split / kind).mkdir(parents=True, exist_ok=True)
            for n in range(count):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "tiny" / split / kind / f"{n}.png")
    weights = Path(tcpa_core.__file__).parent / "weights" / "vit_nano.safetensors"
    shutil.copy(weights, folder / "w.safetensors")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Hosts("abc") as hosts:
        a, b, c = hosts
        for host in (a, b, c):
            write_data(host.data)
        a.start_ray()
        b.start_ray(a)
        c.start_ray(a)
        yield Lab(hosts, {"a": a, "b": b, "c": c})


def check(
    lab: Lab, name: str, because: str, *, trials: int = 12, without: tuple[str, ...] = ("hostc",)
) -> None:
    """Every trial completes on the other hosts, with equal numbers, and one line says why."""
    code, printed, events = lab.search(name, trials=trials)
    assert code == 0, printed
    ended = [e for e in events if e["kind"] == "completed"]
    assert len(ended) == trials, printed
    assert not any(e["kind"] == "failed" for e in events)
    assert len({json.dumps([e["val_loss"], e["val_accuracy"]]) for e in ended}) == 1
    hosts = {e["hardware"]["host"] for e in events if e["kind"] == "started"}  # type: ignore[index]
    assert hosts.isdisjoint(without) and hosts
    told = [str(e["text"]) for e in events if e["kind"] == "notice"]
    about = [text for text in told if "hostc" in text]
    assert len(about) == 1, told
    assert about[0].startswith("hostc is not used: ") and because in about[0], about


def test_other_data_are_not_trained_on(lab: Lab) -> None:
    extra = lab.names["c"].data / "tiny" / "train" / "a" / "more.png"
    shutil.copy(extra.with_name("0.png"), extra)
    try:
        check(lab, "diff", "its data of /mnt/data/tiny are not those", trials=15)
    finally:
        extra.unlink()


@pytest.mark.parametrize(("study", "missing"), [("nodata", "tiny"), ("noweights", "w.safetensors")])
def test_missing_files_fail_no_trial(lab: Lab, study: str, missing: str) -> None:
    path = lab.names["c"].data / missing
    path.rename(path.with_name("away"))
    try:
        check(lab, study, f"/mnt/data/{missing}")
    finally:
        path.with_name("away").rename(path)


def test_a_host_without_the_package_kills_no_study(lab: Lab) -> None:
    c = lab.names["c"]
    c.run("mount", "-t", "tmpfs", "none", CHECKOUT / "tcpa_core", check=True)
    try:
        check(lab, "nopackage", "it has no tcpa-search; install version")
    finally:
        c.run("umount", CHECKOUT / "tcpa_core", check=True)


def test_another_state_of_the_package_is_not_mixed_in(lab: Lab) -> None:
    c = lab.names["c"]
    file = CHECKOUT / "tcpa_core" / "config.py"
    (c.local / "config.py").write_text(file.read_text() + "\n# another state\n")
    c.run("mount", "--bind", "/mnt/local/config.py", file, check=True)
    try:
        check(lab, "state", "its source files of tcpa-search")
        own = next(
            Path(str(path.locate()))
            for path in metadata.files("tcpa-search") or ()
            if path.name == "METADATA"
        )
        version = metadata.version("tcpa-search")
        text = own.read_text().replace(f"\nVersion: {version}", "\nVersion: 0.0.1")
        (c.local / "METADATA").write_text(text)
        c.run("mount", "--bind", "/mnt/local/METADATA", own, check=True)
        try:
            check(lab, "version", f"it has tcpa-search 0.0.1, the driver has {version}")
        finally:
            c.run("umount", own, check=True)
    finally:
        c.run("umount", file, check=True)


def test_the_doctor_shows_what_every_host_has(lab: Lab) -> None:
    a, b, c = (lab.names[name] for name in "abc")
    space = lab.hosts.shared / "doctor.yaml"
    space.write_text(SPACE.format(name="doctor", trials=3))
    data = b.data / "tiny"
    data.rename(data.with_name("away"))
    c.run("mount", "-t", "tmpfs", "none", CHECKOUT / "tcpa_core", check=True)
    doctor = (
        "tcpa", "doctor", "--address", "auto", "--root", "/mnt/shared/studies",
        "--space", "/mnt/shared/doctor.yaml",
    )  # fmt: skip
    try:
        done = a.run(*doctor, env={"COLUMNS": "600"})
    finally:
        c.run("umount", CHECKOUT / "tcpa_core", check=True)
        data.with_name("away").rename(data)
    rows = [line for line in done.stdout.splitlines() if " host" in line]
    found = {name: next(row for row in rows if name in row) for name in ("hosta", "hostb", "hostc")}
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REFUSED" not in found["hosta"] and " ok " in found["hosta"]
    assert "REFUSED: data.root" in found["hostb"] and "/mnt/data/tiny" in found["hostb"]
    assert "REFUSED: it has no tcpa-search" in found["hostc"] and "missing" in found["hostc"]
    assert all("GB free" in row and "1 CPU" in row for row in found.values())
