"""`tcpa predict`, `export` and `push`: a trial of a study classifies, and leaves the machine."""

import base64
import csv
import hashlib
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from search.cli import app
from search.study.folder import StudyDir
from search.study.journal import Journal
from spaces.load import space_of
from tcpa_core import load_trained
from tcpa_core.errors import CheckpointError, ConfigError, StoppedError, StudyError, TcpaError
from tests.journals import event, planned
from tests.tcpa_core.test_trained import draw, left_behind, settings

SEEDS = (0, 1, 2)
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pictures/, and studies/mine with three seeds of one setting, as a search leaves them."""
    folder = tmp_path_factory.mktemp("verbs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCPA_CACHE", str(folder / "cache"))
        make(folder)
    return folder


def make(folder: Path) -> None:
    root = folder / "pictures"
    for number, split in enumerate(SPLITS):
        for label, name in enumerate(("dark", "light")):
            draw(root / split / name, shade=10 + 40 * number + 15 * label)
    base = {"data.name": "folder", "data.root": str(root), "methods": ["lora"], "train.epochs": 1}
    space = space_of({"name": "mine", "base": base, "axes": {"optim.lr": {"choice": [0.01]}},
                         "seeds": list(SEEDS), "budget": {"trials": 3}})  # fmt: skip
    about = {"name": "folder pictures", "classes": 2, "images": dict.fromkeys(SPLITS, 20),
             "notes": ["two pictures are one."], "settings": {"data.root": str(root)}}  # fmt: skip
    study = StudyDir.create(
        folder / "studies", "mine", space, {"data": "d", "weights": "w"}, "",
        {"data": [about], "preprocessing": []},
    )  # fmt: skip
    events = [event({"kind": "study", "name": "mine"})]
    for seed in SEEDS:
        config = settings(root, ["lora"], seed=seed)
        trial = f"{seed:05d}"
        loss, accuracy = left_behind(config, study.path / "checkpoints" / trial)
        events.append(planned(trial, config))
        result = {"best_epoch": 1, "num_epochs": 1, "val_accuracy": 0.5 + 0.1 * seed,
                  "test_accuracy": accuracy, "test_loss": loss}  # fmt: skip
        events.append(event({"kind": "completed", "trial": trial, "result": result, **result}))
    Journal(study.journal_path).append(*events)


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("TCPA_CACHE", str(project / "cache"))


def tcpa(*words: str | Path) -> tuple[int, str]:
    """Exit code and output of a command; an error is raised."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return done.exit_code, done.output


def refused(*words: str | Path) -> str:
    with pytest.raises(TcpaError) as info:
        tcpa(*words)
    return str(info.value)


def test_a_folder_with_classes_gives_the_accuracy_of_the_journal(project: Path) -> None:
    study = StudyDir.open(project / "studies", "mine")
    known = study.state().trials["00001"].test_accuracy
    code, said = tcpa("predict", "mine", "1", "pictures/test", "--csv", "found.csv")
    assert code == 0 and f"accuracy {known:.4f}" in said and "of 20 pictures)" in said
    rows = list(csv.DictReader((project / "found.csv").open()))
    assert len(rows) == 20
    assert sum(row["class"] == row["folder"] for row in rows) / 20 == known
    assert all(
        float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1) for row in rows
    )
    assert set(rows[0]) == {"path", "class", "probability", "class_2", "probability_2", "folder",
                            "error"}  # fmt: skip


def test_broken_pictures_are_named_and_the_others_go_on(project: Path, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes((project / "pictures/test/dark/grey.png").read_bytes())
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "notes.txt").touch()
    code, said = tcpa("predict", "mine", "best", tmp_path, "--csv", tmp_path / "x.csv")
    assert code == 1 and "not read:" in said and "b.png" in said and "accuracy" not in said
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.png", "c.png"]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert [row["class"] == "" for row in rows] == [False, True, False]


def test_what_is_missing_is_said(project: Path, tmp_path: Path) -> None:
    assert "mine has no trial '7'" in refused("predict", "mine", "7", "pictures")
    assert "no file or folder 'absent'" in refused("predict", "mine", "0", "absent")
    assert "a study needs a trial: tcpa predict STUDY" in refused("predict", "mine")
    assert "no pictures in what was given" in refused("predict", "mine", "0")
    assert "no pictures in" in refused("predict", "mine", "0", tmp_path)
    assert "has other things in it" in refused("export", "mine", "0", "pictures")
    assert "no study 'yours'" in refused("export", "yours", "0", "out")
    said = "is no folder; make it first"
    assert said in refused("predict", "mine", "0", "pictures", "--csv", "absent/x.csv")
    with pytest.raises(StudyError):
        tcpa("push", "mine", "9", "me/it")
    assert "its 3 trials are 00000 to 00002" in refused("predict", "mine", "7", "pictures")
    (tmp_path / "notes.txt").touch()
    for absent, why in (
        (tmp_path / "none", "no file or folder"),
        (tmp_path / "notes.txt", "is no"),
    ):
        with pytest.raises(CheckpointError, match=f"{why}.*give STUDY/checkpoints/TRIAL"):
            load_trained(absent)


def test_what_cannot_be_written_is_said_without_advice_for_studies(tmp_path: Path) -> None:
    """A place that the user named; nothing of a study is lost by it, and nothing goes on later."""
    assert "is a folder; name a file" in refused(
        "predict", "mine", "0", "pictures", "--csv", tmp_path
    )
    (tmp_path / "file").touch()
    long = tmp_path / ("n" * 252)
    for words in (
        ["export", "mine", "0", tmp_path / "file" / "out"],
        ["predict", "mine", "0", "pictures/test", "--csv", long],
    ):
        with pytest.raises(ConfigError, match="cannot be written") as info:
            tcpa(*words)
        assert "resume" not in str(info.value)


@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_a_table_goes_through_what_is_no_plain_file(kind: str, tmp_path: Path) -> None:
    """/dev/stdout, /dev/null, a pipe or a link stays what it is."""
    place, target = tmp_path / "place", tmp_path / "target"
    if kind == "link":
        place.symlink_to(target)
        target.touch()
        reader = None
    else:
        os.mkfifo(place)
        reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    assert tcpa("predict", "mine", "0", "pictures/test", "--csv", place)[0] == 0
    assert place.is_symlink() if reader is None else place.is_fifo()
    text = target.read_bytes() if reader is None else os.read(reader, 1 << 16)
    assert text.startswith(b"path,class,probability") and text.count(b"\n") == 21
    if reader is not None:
        os.close(reader)


@pytest.fixture
def unfinished(project: Path, tmp_path: Path) -> Path:
    """The study with two more seeds of the setting: one stopped early, one failed."""
    root = tmp_path / "studies"
    shutil.copytree(project / "studies", root)
    study, events = StudyDir.open(root, "mine"), []
    for seed, status in ((3, "pruned"), (4, "failed")):
        config, trial = settings(project / "pictures", ["lora"], seed=seed), f"{seed:05d}"
        if status == "pruned":
            left_behind(config, study.path / "checkpoints" / trial)
        result = {"best_epoch": 1, "num_epochs": 1, "val_accuracy": 0.1, "reason": "it fell"}
        events += [planned(trial, config), event({"kind": status, "trial": trial, **result})]
    Journal(study.journal_path).append(*events)
    return root


def test_the_card_of_a_trial_that_was_stopped_says_so(unfinished: Path, tmp_path: Path) -> None:
    assert tcpa("export", "mine", "3", tmp_path / "out", "--root", unfinished)[0] == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "The trial was stopped early after 1 of 1 epochs. The test split was not read" in text
    said = refused("predict", "mine", "4", "pictures", "--root", unfinished)
    assert "trial 00004 (failed) has left no weights" in said


def test_seeds_that_did_not_train_to_the_end_are_in_no_mean(
    unfinished: Path, tmp_path: Path
) -> None:
    assert tcpa("export", "mine", "0", tmp_path / "out", "--root", unfinished)[0] == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "- val accuracy 0.5000; mean over 3 seeds 0.6000," in text


def test_the_card_says_what_the_study_knows_and_no_place(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = tcpa("export", "mine", "best", out)
    assert code == 0 and "at most 0.0e+00 on 8 pictures of the val split" in said
    text = (out / "README.md").read_text()
    for part in (
        "- val accuracy 0.5000; mean over 3 seeds 0.6000, 95 % interval 0.3516 to 0.8484 (Student)",
        "- images: 20 train, 20 val, 20 test",
        "- folder pictures, 2 classes",
        "two pictures are one.",
        "selected among 3 trials by val_accuracy",
        "licence of the weights: non-commercial research",
        "Trial 00000 of study mine.",
        "from tcpa_core import load_trained",
    ):
        assert part in text, part
    for file in out.iterdir():
        assert str(project).encode() not in file.read_bytes()
    head = text.split("---")[1]
    import yaml

    known = yaml.safe_load(head)
    assert known["pipeline_tag"] == "image-classification" and "license" not in known
    assert known["model-index"][0]["results"][0]["metrics"][1]["value"] == pytest.approx(0.5)
    assert "accuracy" in tcpa("predict", out, "pictures/test")[1]
    assert load_trained(out).class_names == ("dark", "light")


@dataclass
class Hub:
    """What a repository server was sent."""

    url: str = ""
    repos: list[dict[str, Any]] = field(default_factory=list)
    commits: list[list[dict[str, Any]]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Large files by SHA-256."""
    keys: set[str | None] = field(default_factory=set)
    refuses: int = 0


class Handler(http.server.BaseHTTPRequestHandler):
    """The requests of an upload, as the Hub answers them."""

    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.hub.keys.add(self.headers.get("Authorization"))
        if self.hub.refuses:
            self.answer({"error": "no rights"}, self.hub.refuses)
        elif self.path == "/api/repos/create":
            self.hub.repos.append(json.loads(body))
            self.answer({"url": f"{self.hub.url}/me/it"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [
                {"path": one["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            self.answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/blob/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            self.hub.commits.append([json.loads(line) for line in body.splitlines()])
            oid = "0" * 40
            self.answer({"success": True, "commitOid": oid,
                         "commitUrl": f"{self.hub.url}/me/it/commit/{oid}"})  # fmt: skip
        else:
            self.answer({"error": self.path}, 404)

    def do_GET(self) -> None:
        self.answer({"id": "me/it", "modelId": "me/it", "xetEnabled": False})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers.get("Authorization") is None, "the key is not for the storage"
        self.hub.blobs[self.path.rpartition("/")[2]] = data
        self.answer({})

    def answer(self, value: Any, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


KEY = "hf_" + "k" * 34


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants, hf_api

    found = Hub()
    handler = type("Handler", (Handler,), {"hub": found})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("HF_TOKEN", KEY)
        for module in (constants, hf_api.constants):
            monkeypatch.setattr(module, "ENDPOINT", found.url)
            monkeypatch.setattr(module, "HF_HUB_DISABLE_XET", True)
        yield found
        server.shutdown()


def test_a_push_is_one_commit_with_the_whole_folder(hub: Hub, tmp_path: Path) -> None:
    code, said = tcpa("push", "mine", "1", "me/it", "--private")
    assert code == 0 and f"{hub.url}/me/it/commit/" in said and KEY not in said
    assert hub.keys == {f"Bearer {KEY}"}
    (repo,) = hub.repos
    assert repo["name"] == "it" and repo["organization"] == "me"
    assert repo.get("private") is True or repo.get("visibility") == "private"
    (commit,) = hub.commits
    assert commit[0]["value"]["summary"] == "Trial 00001"
    got = {one["value"]["path"]: one for one in commit[1:]}
    assert set(got) == {"README.md", "config.json", "model.safetensors"}
    folder = tmp_path / "it"
    folder.mkdir()
    for name in ("README.md", "config.json"):
        assert got[name]["key"] == "file"
        (folder / name).write_bytes(base64.b64decode(got[name]["value"]["content"]))
    large = got["model.safetensors"]
    assert large["key"] == "lfsFile"
    data = hub.blobs[large["value"]["oid"]]
    assert hashlib.sha256(data).hexdigest() == large["value"]["oid"]
    (folder / "model.safetensors").write_bytes(data)
    assert load_trained(folder).class_names == ("dark", "light"), "what was sent can be used"


def test_an_exported_folder_is_pushed_as_it_is(hub: Hub, tmp_path: Path) -> None:
    tcpa("export", "mine", "0", tmp_path / "out", "--format", "timm")
    assert tcpa("push", tmp_path / "out", "me/it")[0] == 0
    (commit,) = hub.commits
    sent = next(one["value"] for one in commit[1:] if one["value"]["path"] == "README.md")
    assert base64.b64decode(sent["content"]) == (tmp_path / "out" / "README.md").read_bytes()


def test_a_refusal_of_the_hub_is_told_without_the_key(hub: Hub) -> None:
    hub.refuses = 403
    with pytest.raises(ConfigError, match=r"refuses me/it \(403.*'hf auth login' or set HF_TOKEN"):
        tcpa("push", "mine", "1", "me/it")
    hub.refuses = 500
    with pytest.raises(StoppedError, match=r"answers 500 for me/it.*try again"):
        tcpa("push", "mine", "1", "me/it")
    assert not hub.commits
    assert "OWNER/NAME, got 'it'" in refused("push", "mine", "1", "it")


def test_a_hub_that_is_not_there_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoppedError, match=r"the Hub does not answer \(ConnectError|Connection"):
        tcpa("push", "mine", "1", "me/it")
