"""Hosts without data, weights or plug-ins: sent what they lack, or left to others by name."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.hosts import Host, Hosts, why_none
from tcpa_core.record.events import read_journal
from tests.faults.test_nodes import write_data

pytestmark = [
    pytest.mark.faults,
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_none()), reason=why_none() or "hosts are to be had"),
]

SPACE = """
name: {name}
base:
  backbone: {{name: vit_nano, weights: /mnt/data/w.safetensors}}
  data: {{name: folder, root: /mnt/data/tiny, flip: true}}
  train: {{epochs: {epochs}, batch_size: 16}}
  methods: [{method}]
  optim.lr: 0.01
axes: {{optim.weight_decay: {{float: [1.0e-9, 1.00001e-9]}}}}
sampler: {{name: random}}
scheduler: {{name: none}}
budget: {{trials: 12}}
"""
"""All trials have practically one setting: their numbers are equal wherever they train."""
METHOD = """
from tcpa_core.methods import linear

class Config(linear.Config):
    pass

class Method(linear.Method):
    pass
"""


class Lab:
    """Three hosts with Ray; data and weights are on the first alone."""

    def __init__(self, hosts: Hosts) -> None:
        self.shared = hosts.shared
        self.a, self.b, self.c = hosts

    def search(
        self,
        name: str,
        *options: str,
        method: str = "linear",
        epochs: int = 2,
        env: dict[str, str] | None = None,
    ) -> tuple[list[dict[str, object]], list[str], str]:
        """A study from the first host that ends well: what its trials gave, notices, output."""
        (self.shared / f"{name}.yaml").write_text(
            SPACE.format(name=name, method=method, epochs=epochs)
        )
        done = self.a.run(
            "tcpa", "search", f"/mnt/shared/{name}.yaml", "--root", "/mnt/shared/studies",
            "--address", "auto", "--no-reuse", *options, env=env, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        journal = self.shared / "studies" / name / "journal.jsonl"
        events = [one.as_dict() for one in read_journal(journal)]
        ended = [e for e in events if e["kind"] == "completed"]
        assert len(ended) == 12 and not any(e["kind"] == "failed" for e in events), done.stdout
        assert len({json.dumps([e["val_loss"], e["val_accuracy"]]) for e in ended}) == 1
        notices = [str(e["text"]) for e in events if e["kind"] == "notice"]
        return events, notices, done.stdout + done.stderr

    def used(self, events: list[dict[str, object]]) -> set[object]:
        """Hosts that trained."""
        return {e["hardware"]["host"] for e in events if e["kind"] == "started"}  # type: ignore[index]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Hosts("abc") as hosts:
        a, b, c = hosts
        write_data(a.data)
        b.env["FAST"] = "/mnt/local"
        for host in hosts:
            host.start_ray(None if host is a else a)
        yield Lab(hosts)


def cached(host: Host, cache: str = "home/.cache/tcpa") -> list[Path]:
    folder = getattr(host, cache.split("/")[0]) / cache.partition("/")[2]
    return [path for kind in ("pixels", "weights") for path in (folder / kind).rglob("*.*")]


def test_they_are_sent_what_they_lack_once(lab: Lab) -> None:
    events, notices, output = lab.search("sent", "--ship-data", epochs=60)
    assert lab.used(events) == {"hosta", "hostb", "hostc"}
    assert "to a node without them, data 0.1 MB and weights" in output
    told = sorted(text for text in notices if "were sent" in text)
    assert [text.partition(":")[0] for text in told] == [
        "hostb has no data and no weights of this study",
        "hostc has no data and no weights of this study",
    ]
    files = cached(lab.b)
    assert sum(path.suffix == ".pixels" for path in files) == 3
    assert not any(path.suffix == ".tmp" for path in files)
    events, notices, _ = lab.search("again", "--ship-data", epochs=60)
    assert lab.used(events) == {"hosta", "hostb", "hostc"}
    assert not any("were sent" in text for text in notices)


def test_damaged_and_half_files_are_replaced(lab: Lab) -> None:
    pixels = next(path for path in cached(lab.b) if path.suffix == ".pixels")
    weights = next(path for path in cached(lab.b) if path.suffix == ".safetensors")
    whole = pixels.read_bytes(), weights.read_bytes()
    damaged = bytearray(pixels.read_bytes())
    damaged[7] ^= 1
    pixels.write_bytes(damaged)
    weights.write_bytes(weights.read_bytes()[:1000])
    _, notices, _ = lab.search("mended", "--ship-data", epochs=60)
    assert any(text.startswith("hostb has no data and no weights") for text in notices), notices
    assert (pixels.read_bytes(), weights.read_bytes()) == whole


def test_without_the_option_they_are_named_with_it(lab: Lab) -> None:
    events, notices, _ = lab.search("alone")
    assert lab.used(events) == {"hosta"}
    for host in ("hostb", "hostc"):
        [told] = [text for text in notices if text.startswith(f"{host} is not used: ")]
        assert "/mnt/data/tiny" in told and "--ship-data" in told


def test_the_cache_is_where_the_node_says(lab: Lab) -> None:
    events, notices, _ = lab.search(
        "there", "--ship-data", "--cache-dir", "$FAST/c", env={"FAST": "/mnt/local/driver"}
    )
    # Ray was started on the first host without the variable, too.
    assert lab.used(events) == {"hostb"}
    assert len([path for path in cached(lab.b, "local/c") if path.suffix == ".pixels"]) == 3
    told = [text for text in notices if "$FAST is not set on host" in text]
    assert len(told) == 2 and all("--cache-dir" in text for text in told)


def test_a_cache_that_cannot_be_written_is_named(lab: Lab) -> None:
    (lab.c.local / "full").write_text("a file")
    (lab.a.local / "full").mkdir()
    (lab.b.local / "full").mkdir()
    events, notices, _ = lab.search("unwritable", "--ship-data", "--cache-dir", "/mnt/local/full")
    assert lab.used(events) <= {"hosta", "hostb"}
    [told] = [text for text in notices if text.startswith("hostc is not used: ")]
    assert "/mnt/local/full cannot be written on hostc" in told


def test_plug_ins_come_with_the_variable_and_have_to_be_the_same(lab: Lab) -> None:
    for host in (lab.a, lab.b):
        folder = host.local / "plugins" / "methods"
        folder.mkdir(parents=True)
        (folder / "mine.py").write_text(METHOD)
    plugins = {"TCPA_PLUGINS": "/mnt/local/plugins"}
    events, notices, _ = lab.search("plugged", "--ship-data", method="mine", env=plugins)
    assert lab.used(events) <= {"hosta", "hostb"}
    [told] = [text for text in notices if text.startswith("hostc is not used: ")]
    assert "TCPA_PLUGINS names '/mnt/local/plugins', which is no folder" in told
    other = lab.c.local / "plugins"
    shutil.copytree(lab.a.local / "plugins", other)
    (other / "methods" / "mine.py").write_text(METHOD + "\n# another state\n")
    events, notices, _ = lab.search("other", "--ship-data", method="mine", env=plugins)
    [told] = [text for text in notices if text.startswith("hostc is not used: ")]
    assert "are not the driver's" in told and "hostc" not in lab.used(events)
