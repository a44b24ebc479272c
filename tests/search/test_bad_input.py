"""Bad input on the command line: exit code 2, one or two sentences, nothing started or written."""

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from search import cli
from search.study.folder import StudyDir
from search.study.identity import fingerprints_of
from spaces.load import load_space
from tests.spaces.bad_spaces import BAD_SPACES

TAKEN = "digits_search"
NO_TRACKER = "http://127.0.0.1:1"


@dataclass(frozen=True)
class Place:
    """Where a case runs: the current folder, with a root that already holds one study."""

    folder: Path

    @property
    def root(self) -> Path:
        """Folder of the studies."""
        return self.folder / "studies"

    def files(self) -> dict[str, bytes]:
        """Everything below root, by path."""
        found = sorted(self.root.rglob("*"))
        return {str(p): p.read_bytes() if p.is_file() else b"" for p in found}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    space = load_space("quickstart")
    prints = fingerprints_of(space.trials)
    StudyDir.create(tmp_path / "studies", TAKEN, space, prints, "")
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started although the input is wrong")

    monkeypatch.setattr("ray.init", start)


@pytest.fixture
def tcpa(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the command in this process; returns exit code and stderr."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tcpa", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        assert isinstance(code, int)
        return code, capsys.readouterr().err

    return run


def check(tcpa: Callable[..., tuple[int, str]], place: Place, line: list[str], says: str) -> None:
    before = place.files()
    code, stderr = tcpa(*line)
    assert code == 2, stderr
    assert re.search(says, stderr), stderr
    assert "Traceback" not in stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and len(stderr) < 700, stderr
    assert place.files() == before


SPREAD = BAD_SPACES[:: max(1, len(BAD_SPACES) // 40)]


@pytest.mark.parametrize(
    ("text", "says"), [case[1:] for case in SPREAD], ids=[case[0] for case in SPREAD]
)
def test_a_mistake_in_a_space_is_told_by_plan(
    text: str, says: str, tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    (place.folder / "bad.yaml").write_text(text, encoding="utf-8")
    check(tcpa, place, ["plan", "bad.yaml"], says)


LINES: list[tuple[str, str, str]] = [
    ("other_verb", "optimize quickstart", r"No such command 'optimize'; closest name: 'search'"),
    ("unknown_verb", "serch quickstart", r"No such command 'serch'"),
    ("unknown_option", "plan quickstart --trial 3", r"No such option: --trial; .*'--trials'"),
    ("option_of_the_verb", "confirm s --seed 3", r"--seed; .*'--seeds'. 'tcpa confirm --help'"),
    ("option_is_a_setting", "search s --seed 3", r"'--set seeds=VALUE'. 'tcpa search --help'"),
    ("option_elsewhere", "search s --batch_size 3", r"'--set train.batch_size=VALUE'"),
    ("option_underscore", "search s --dry_run", r"closest name: '--dry-run'"),
    ("option_other_name", "ablate s --n-trials 3", r"closest name: '--trials'"),
    ("option_other_verb", "resume s --trials 3", r"option of .*extend"),
    ("no_root", "list --root nowhere", r"--root: there is no folder nowhere"),
    ("no_space", "search", r"(?i)missing argument 'space'"),
    ("no_study", "status", r"(?i)missing argument 'study'"),
    ("two_spaces", "plan quickstart other", r"(?i)unexpected extra argument"),
    ("no_preset", "plan quikstart", r"quikstart.*'quickstart'"),
    ("no_file", "search nowhere.yaml", r"nowhere.yaml"),
    ("a_folder", "plan studies", r"studies"),
    ("weights", "plan quickstart --set backbone.weights=w.pth", r"backbone.weights: no file"),
    ("backbone", "plan quickstart --set backbone.name=vit_nanno", r"backbone.name .*'vit_nanno'"),
    ("no_vit", "plan quickstart --set backbone.name=resnet18", r"only timm VisionTransformer"),
    ("data_root", "plan quickstart --set data.name=vtab1k --set data.root=no", r"data.root.*'?no"),
    ("no_data_root", "plan quickstart --set data.name=folder", r"data.root"),
    ("data_kind", "search quickstart --set data.name=digit", r"'digit'.*'digits'"),
    ("taken", f"search quickstart --study {TAKEN}", r"exists already .*tcpa resume"),
    ("name_up", "search quickstart --study ../x", r"study name .* got '\.\./x'"),
    ("name_capital", "search quickstart --study AB", r"1 to 64 of a-z.* got 'AB'"),
    ("name_long", f"search quickstart --study {'x' * 65}", r"study name must be 1 to 64"),
    ("root_file", "search quickstart --root a_file", r"--root: .*a_file"),
    ("root_in_file", "search quickstart --root a_file/below", r"--root: .*a_file"),
    ("uri_scheme", "plan quickstart --tracking-uri gopher://x", r"--tracking-uri: .*'gopher://x'"),
    (
        "uri_db",
        "search quickstart --tracking-uri sqlite:///a_file/x.db",
        r"--tracking-uri: .*x\.db",
    ),
    ("search_ablation", "search tcpa_components", r"is an ablation; .*'tcpa ablate"),
    ("ablate_search", "ablate quickstart", r"is a search; .*'tcpa search quickstart'"),
    ("metric", "plan quickstart --set objective.metric=val_acc", r"metric.*val_acc"),
    ("set_no_value", "plan quickstart --set optim.lr", r"--set .*PATH=VALUE.*'optim.lr'"),
    ("set_no_path", "plan quickstart --set =3", r"--set .*PATH=VALUE.*'=3'"),
    ("set_unknown", "plan quickstart --set train.epoch=3", r"'train.epoch'.*'train.epochs'"),
    ("set_type", "plan quickstart --set train.epochs=many", r"train.epochs must .*got 'many'"),
    ("set_range", "plan quickstart --set train.epochs=0", r"train.epochs must .*got 0"),
    ("set_yaml", "plan quickstart --set optim.lr=[1", r"optim.lr"),
    ("no_trials", "search quickstart --trials 0", r"budget.trials must .*got 0"),
    ("negative_trials", "search quickstart --trials -3", r"budget.trials must .*got -3"),
    ("trials_text", "search quickstart --trials many", r"'--trials'.*integer"),
    ("trials_of_ablation", "ablate tcpa_components --trials 3", r"--trials limits a search, got 3"),
    ("resume", "resume digits_serch", r"no study 'digits_serch'.*'digits_search'"),
    ("report", "report digits_serch", r"no study 'digits_serch'.*'digits_search'"),
    ("status", "status digits_serch", r"no study 'digits_serch'.*'digits_search'"),
    ("confirm", "confirm digits_serch", r"no study 'digits_serch'.*'digits_search'"),
    ("confirm_early", f"confirm {TAKEN}", r"has 0 completed points, two are needed .*tcpa resume"),
    ("confirm_top", f"confirm {TAKEN} --top 1", r"--top must be at least 2, got 1: .*ablate"),
    ("confirm_seeds", f"confirm {TAKEN} --seeds 1", r"'--seeds'"),
    ("compare_ablation", "compare tcpa_components", r"an ablation has no 'sampler'"),
    ("compare_one", "compare vpt_vtab --set data.name=digits", r"compares methods, but .* no axis"),
    ("compare_few", "compare quickstart --trials 3", r"budget.trials must be at least 4 .* got 3"),
    (
        "compare_asha",
        "compare quickstart --set scheduler.name=asha",
        r"needs scheduler.name none, got 'asha'",
    ),
    ("extend", "extend digits_serch --trials 3", r"no study 'digits_serch'.*'digits_search'"),
    ("extend_none", f"extend {TAKEN}", r"(?i)missing option '--trials'"),
    ("extend_zero", f"extend {TAKEN} --trials 0", r"'--trials'"),
    ("stop", "stop digits_serch", r"no study 'digits_serch'.*'digits_search'"),
    ("stop_idle", f"stop {TAKEN}", r"study 'digits_search' is not running"),
    ("replay", "replay digits_serch 00000", r"no study 'digits_serch'.*'digits_search'"),
    ("replay_trial", f"replay {TAKEN} 00007", r"has no trial '00007' .*tcpa status"),
    ("replay_best", f"replay {TAKEN} best", r"no completed trial yet, so none is the best"),
    ("replay_none", f"replay {TAKEN}", r"(?i)missing argument 'trial'"),
    ("live_every", f"report {TAKEN} --live --every 0", r"'--every'"),
    ("live_none", "report digits_serch --live", r"no study 'digits_serch'"),
    ("sync", "sync digits_serch", r"no study 'digits_serch'.*'digits_search'"),
    ("open_up", "status ../studies", r"no study '\.\./studies'"),
    ("no_root", "status any --root nowhere", r"no study 'any' in nowhere"),
    ("no_journal", f"report {TAKEN}", r"journal.jsonl is missing"),
    ("dashboard", "dashboard", r"no MLflow database studies/mlflow.db"),
    ("port", "dashboard --port 99999", r"'--port'"),
    ("data", "data digitz", r"no data.* 'digitz'.*'digits'"),
    ("data_no_root", "data folder", r"data.root"),
    ("backbones", "backbones nosuch", r"no ViT matches 'nosuch'"),
]


@pytest.mark.parametrize(("line", "says"), [c[1:] for c in LINES], ids=[c[0] for c in LINES])
def test_a_wrong_line_is_refused(
    line: str, says: str, tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    (place.folder / "a_file").write_text("")
    check(tcpa, place, line.split(), says)


@pytest.mark.parametrize("name", ["A B", "", " ", "ä"])
def test_an_odd_study_name_is_refused(
    name: str, tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    check(tcpa, place, ["search", "quickstart", "--study", name], r"study name must be 1 to 64")


def make_folder_data(root: Path) -> Path:
    """Two classes with two images a split; returns one image."""
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            for number in range(2):
                path = root / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((8, 8, 3), 40 * number + 20 * (label == "b"), np.uint8)
                Image.fromarray(pixels).save(path)
    return root / "train" / "a" / "1.png"


def test_a_broken_image_is_named_before_any_trial(
    tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    image = make_folder_data(place.folder / "data")
    image.write_bytes(image.read_bytes()[:-25])
    settings = ["--set", "data.name=folder", "--set", "data.root=data"]
    for verb in (["data", "folder", "--root", "data"], ["plan", "quickstart", *settings],
                 ["search", "quickstart", *settings]):  # fmt: skip
        check(tcpa, place, verb, r"data/train/a/1.png \(train/\): ")


def test_a_missing_class_folder_is_named(
    tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    make_folder_data(place.folder / "data")
    for file in (place.folder / "data" / "test" / "b").iterdir():
        file.unlink()
    check(tcpa, place, ["data", "folder", "--root", "data"], r"test.*b")


@pytest.mark.parametrize("content", ["foreign", "torn"])
def test_weights_that_do_not_fit_are_refused(
    content: str, tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    path = place.folder / "other.safetensors"
    if content == "foreign":
        save_file({"layer1.weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(b"\x10")
    line = ["search", "quickstart", "--set", "backbone.weights=other.safetensors"]
    check(tcpa, place, line, r"backbone.weights: other.safetensors (does not fit|cannot be read)")


def test_a_root_without_rights_is_refused(
    tcpa: Callable[..., tuple[int, str]], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    check(tcpa, place, ["search", "quickstart"], r"--root: .* cannot be written; choose")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_no_half_study(
    tcpa: Callable[..., tuple[int, str]], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda a, b: full() if a.name == ".study.yaml" else replace(a, b)
    )
    line = ["search", "quickstart", "--study", "next"]
    check(tcpa, place, line, r"next cannot be written \(No space left on device\)")


def test_a_journal_on_a_full_disk_stays_whole(
    tcpa: Callable[..., tuple[int, str]], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def no_cluster(*_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr("search.driver.driver.connect", no_cluster)
    monkeypatch.setattr(os, "fsync", full)
    uri = f"sqlite:///{place.folder}/tracking.db"
    study = place.root / TAKEN
    before = {path.name for path in study.iterdir()}
    code, stderr = tcpa("resume", TAKEN, "--tracking-uri", uri)
    assert code == 3, "the input was right, and the same command goes on"
    assert re.fullmatch(r"error: \S+journal.jsonl cannot be written \(No space .*\n", stderr)
    assert (study / "journal.jsonl").read_bytes() == b""
    assert {path.name for path in study.iterdir()} - before == {"journal.jsonl", "driver.lock"}


def test_a_tracker_that_does_not_answer_is_told_within_seconds(
    tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    says = r"--tracking-uri: MLflow does not answer at 'http://127.0.0.1:1' "
    begun = time.monotonic()
    check(tcpa, place, ["search", "quickstart", "--tracking-uri", NO_TRACKER], says)
    check(tcpa, place, ["sync", TAKEN, "--tracking-uri", NO_TRACKER], says)
    assert time.monotonic() - begun < 30


def test_a_secret_in_the_address_is_not_repeated(
    tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    uri = "http://me:sesame@127.0.0.1:1"
    _, stderr = tcpa("plan", "quickstart", "--tracking-uri", uri)
    assert "does not answer at 'http://127.0.0.1:1'" in stderr
    assert "sesame" not in stderr


def test_a_damaged_journal_is_refused_with_its_line(
    tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    (place.root / TAKEN / "journal.jsonl").write_bytes(b'{"kind":"study","crc":"00000000"}\n{}\n')
    for verb in ("status", "report", "sync", "resume"):
        line = [verb, TAKEN]
        if verb in ("sync", "resume"):
            line += ["--tracking-uri", f"sqlite:///{place.folder}/tracking.db"]
        check(tcpa, place, line, r"journal.jsonl:1: .*checksum")


@pytest.mark.parametrize("text", ["", "- 1\n", "schema: 9\n", "a: [\n"])
def test_a_damaged_description_is_refused(
    text: str, tcpa: Callable[..., tuple[int, str]], place: Place
) -> None:
    (place.root / TAKEN / "study.yaml").write_text(text)
    check(tcpa, place, ["status", TAKEN], r"study.yaml is not a valid study description")
