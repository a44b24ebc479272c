"""`tcpa data get`: from a name to a folder that `tcpa plan` reads, without a network."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torchvision

from search import cli
from search.downloads import fetch as fetching
from search.downloads.archives import ARCHIVES
from search.downloads.fetch import Remote
from search.verbs import get_data
from tcpa_core.data.base import PUBLISHED, dataset_fingerprint
from tcpa_core.settings import DataConfig
from tests.search.local_server import Server, serving
from tests.tcpa_core import data_layouts, published_layouts

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = "huggingface.co"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as found:
        monkeypatch.setattr(fetching, "address", found.address)
        yield found


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def tcpa(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Run the command in this process, where nobody can be asked."""
    monkeypatch.setenv("TCPA_CACHE", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["tcpa", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        said = capsys.readouterr()
        return Said(ended.value.code, said.out, said.err)

    return run


def publish(server: Server, folder: Path, repository: str = "owner/pets") -> None:
    """Serve a folder as the Hub serves a repository."""
    siblings = [{"rfilename": "README.md", "size": 1, "blobId": "0"}]
    for path in sorted(folder.rglob("*.parquet")):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        siblings.append({"rfilename": name, "size": len(data), "blobId": "1", "lfs": lfs})
        server.files[f"{HUB}/datasets/{repository}/resolve/{COMMIT}/{name}"] = data
    about = {"sha": COMMIT, "siblings": siblings, "cardData": {"license": "cc-by-4.0"}}
    server.files[f"{HUB}/api/datasets/{repository}/revision/main"] = json.dumps(about).encode()


def printed_commands(said: Said) -> list[list[str]]:
    """Commands that a reader would type next."""
    return [shlex.split(line)[1:] for line in re.findall(r"(tcpa (?:data|plan) .*)", said.out)]


# Parquet files of the Hub


def test_a_repository_is_fetched_checked_and_planned(
    server: Server, tcpa: Command, tmp_path: Path
) -> None:
    cfg = data_layouts.parquet(tmp_path / "theirs")
    publish(server, tmp_path / "theirs")
    root = tmp_path / "my data"
    said = tcpa("data", "get", "owner/pets", "--root", str(root), "--yes")
    assert said.code == 0, said.err
    assert "licence: cc-by-4.0" in said.out
    assert f"source:  https://{HUB}/datasets/owner/pets" in said.out
    check, plan = printed_commands(said)
    assert check == ["data", "check", "parquet", "--root", str(root / "data")]
    checked = tcpa(*check)
    assert checked.code == 0 and dataset_fingerprint(cfg) in checked.out
    small = ["--set", "backbone.name=vit_nano", "--root", str(tmp_path / "studies")]
    planned = tcpa(*plan, *small)
    assert planned.code == 0, planned.err
    assert "6 train, 3 val, 3 test" in planned.out


def test_an_interrupted_repository_is_gone_on_with(
    server: Server, tcpa: Command, tmp_path: Path
) -> None:
    data_layouts.parquet(tmp_path / "theirs")
    publish(server, tmp_path / "theirs")
    last = max(name for name in server.files if name.endswith(".parquet"))
    size = len(server.files[last])
    server.cut[last] = size // 2
    command = ("data", "get", "owner/pets", "--root", str(tmp_path / "mine"), "--yes")
    first = tcpa(*command)
    assert first.code == 2 and "which are kept: call the same command again" in first.err
    assert "Traceback" not in first.err and first.err.count("\n") == 1
    server.sent.clear()
    assert tcpa(*command).code == 0
    assert {name: n for name, n in server.sent.items() if name.endswith(".parquet")} == {
        last: size - size // 2
    }
    server.sent.clear()
    third = tcpa(*command)
    assert third.code == 0 and "nothing was missing" in third.out
    assert not [name for name in server.sent if name.endswith(".parquet")]


def test_a_published_set_comes_from_the_repository_that_is_known(
    server: Server, tcpa: Command, tmp_path: Path
) -> None:
    data_layouts.parquet(tmp_path / "theirs")
    publish(server, tmp_path / "theirs", "timm/resisc45")
    said = tcpa("data", "get", "resisc45", "--root", str(tmp_path / "mine"), "--yes")
    assert said.code == 0
    assert "licence: research purposes (the repository says: cc-by-4.0)" in said.out


def test_the_licence_of_a_repository_cannot_move_the_cursor(
    server: Server, tcpa: Command, tmp_path: Path
) -> None:
    data_layouts.parquet(tmp_path / "theirs")
    publish(server, tmp_path / "theirs")
    key = f"{HUB}/api/datasets/owner/pets/revision/main"
    about = json.loads(server.files[key]) | {"cardData": {"license": "mit\x1b[2J\nlicence: none"}}
    server.files[key] = json.dumps(about).encode()
    said = tcpa("data", "get", "owner/pets", "--root", str(tmp_path / "mine"), "--yes")
    assert r"licence: mit\x1b[2J\nlicence: none" in said.out


# torchvision's archives

PACKED = {
    "cifar-10-python.tar.gz": "cifar-10-batches-py",
    "cifar-100-python.tar.gz": "cifar-100-python",
    "dtd-r1.0.1.tar.gz": "dtd",
    "food-101.tar.gz": "food-101",
    "GTSRB-Training_fixed.zip": "GTSRB/Training",
    "GTSRB_Final_Test_Images.zip": "GTSRB/Final_Test",
    "GTSRB_Final_Test_GT.zip": "GT-final_test.csv",
    "102flowers.tgz": "jpg",
    "images.tar.gz": "images",
    "annotations.tar.gz": "annotations",
    "EuroSAT.zip": "2750",
    "SUN397.tar.gz": "SUN397",
    "imagenette2-320.tgz": "imagenette2-320",
}
"""What each archive holds, below the folder that it is unpacked into."""
NOT_CHECKED_BY_FILE = ("dtd", "eurosat", "food101", "gtsrb", "pets")


def publish_archives(
    server: Server, key: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Remote, ...]:
    """Serve a miniature of a set as the archives that torchvision knows, with their checksums."""
    published_layouts.WRITERS[key](folder)
    files = []
    for one in ARCHIVES[key]:
        path = folder / one.path
        if one.unpacks and one.name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as packed:
                held = path.parent / PACKED[one.name]
                for file in (held, *sorted(held.rglob("*"))):
                    packed.write(file, file.relative_to(path.parent))
        elif one.unpacks:
            with tarfile.open(path, "w:gz") as tar:
                tar.add(path.parent / PACKED[one.name], PACKED[one.name])
        data = path.read_bytes()
        server.files[one.url.partition("://")[2]] = data
        digest = f"md5:{hashlib.md5(data).hexdigest()}"
        files.append(replace(one, size=len(data), digest=digest))
    monkeypatch.setattr(get_data, "ARCHIVES", {**ARCHIVES, key: tuple(files)})
    return tuple(files)


@pytest.mark.parametrize("key", ARCHIVES)
def test_a_set_of_torchvision_is_fetched_and_read(
    server: Server, tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    publish_archives(server, key, tmp_path / "theirs", monkeypatch)
    root = tmp_path / "mine"
    said = tcpa("data", "get", key, "--root", str(root), "--yes")
    assert said.code == 0, said.err
    check, _ = printed_commands(said)
    assert check == ["data", "check", key, "--root", str(root)]
    # The same pictures, classes and splits as in the folder that was packed.
    theirs = dataset_fingerprint(DataConfig(name=key, root=str(tmp_path / "theirs")))
    checked = tcpa(*check)
    assert checked.code == 0 and theirs in checked.out
    published = PUBLISHED[key].torchvision
    assert published is not None
    if key in NOT_CHECKED_BY_FILE:  # of others torchvision knows the checksums of the real files
        for arguments in published.calls:
            assert len(getattr(torchvision.datasets, published.name)(root, **arguments)) > 0


@pytest.mark.parametrize("key", ["cifar10", "gtsrb"])
def test_a_set_of_torchvision_is_planned_with_the_line_that_is_printed(
    server: Server, tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    publish_archives(server, key, tmp_path / "theirs", monkeypatch)
    said = tcpa("data", "get", key, "--root", str(tmp_path / "mine"), "--yes")
    _, plan = printed_commands(said)
    small = ["--set", "backbone.name=vit_nano", "--root", str(tmp_path / "studies")]
    planned = tcpa(*plan, *small)
    assert planned.code == 0, planned.err
    assert f"{key} " in planned.out and "3 classes" in planned.out


@pytest.mark.parametrize("key", ["cifar10", "pets", "gtsrb"])
def test_archives_are_gone_on_with_and_unpacked_once(
    server: Server, tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    files = publish_archives(server, key, tmp_path / "theirs", monkeypatch)
    command = ("data", "get", key, "--root", str(tmp_path / "mine"), "--yes")
    first = files[0].url.partition("://")[2]
    server.cut[first] = half = files[0].size // 2
    broken = tcpa(*command)
    assert broken.code == 2 and f"ended after {half:,} of {files[0].size:,} bytes" in broken.err
    server.sent.clear()
    assert tcpa(*command).code == 0
    assert server.sent[first] == files[0].size - half
    server.sent.clear()
    again = tcpa(*command)
    assert again.code == 0 and "nothing was missing" in again.out and not server.sent
    # The archive has done its work.
    for one in files:
        (tmp_path / "mine" / one.path).unlink()
    assert tcpa(*command).code == 0 and not server.sent


def test_an_archive_with_another_checksum_is_neither_kept_nor_unpacked(
    server: Server, tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = publish_archives(server, "cifar10", tmp_path / "theirs", monkeypatch)
    key = one.url.partition("://")[2]
    server.files[key] = server.files[key][:-1] + b"x"
    said = tcpa("data", "get", "cifar10", "--root", str(tmp_path / "mine"), "--yes")
    assert said.code == 2 and f"published is {one.digest}" in said.err
    assert list((tmp_path / "mine").iterdir()) == []


def test_options_of_a_repository_are_refused_for_an_archive(tcpa: Command, tmp_path: Path) -> None:
    said = tcpa("data", "get", "cifar10", "--root", str(tmp_path), "--include", "x/*", "--yes")
    assert said.code == 2 and "Parquet files from uoft-cs/cifar10" in said.err


# What is told


def test_nobody_is_asked_without_a_terminal(server: Server, tcpa: Command, tmp_path: Path) -> None:
    data_layouts.parquet(tmp_path / "theirs")
    publish(server, tmp_path / "theirs")
    said = tcpa("data", "get", "owner/pets", "--root", str(tmp_path / "mine"))
    assert said.code == 2 and "--yes" in said.err and "licence: cc-by-4.0" in said.out
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_the_user_is_asked_first(
    server: Server,
    tcpa: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
) -> None:
    data_layouts.parquet(tmp_path / "theirs")
    publish(server, tmp_path / "theirs")
    asked: list[str] = []

    def confirm(text: str, **_: Any) -> bool:
        asked.append(text)
        return answer.startswith("y")

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(get_data.typer, "confirm", confirm)
    said = tcpa("data", "get", "owner/pets", "--root", str(tmp_path / "mine"))
    assert said.code == code
    assert re.fullmatch(rf"Fetch [\d.]+ kB into {tmp_path}/mine\?", asked[0])
    assert (tmp_path / "mine").exists() == (code == 0)


def test_a_disk_without_room_is_told_before_anything_is_asked(
    server: Server, tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_layouts.parquet(tmp_path / "theirs")
    publish(server, tmp_path / "theirs")

    class Full:
        free = 1000

    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: Full)
    said = tcpa("data", "get", "owner/pets", "--root", str(tmp_path / "mine"), "--yes")
    assert said.code == 2 and "the disk has 1.0 kB free" in said.err
    assert not (tmp_path / "mine").exists()


def test_without_a_network_it_is_one_sentence(
    tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetching, "address", lambda _: "http://127.0.0.1:1/")
    said = tcpa("data", "get", "owner/pets", "--root", str(tmp_path / "mine"), "--yes")
    assert said.code == 2 and said.err.count("\n") == 1
    assert (
        "cannot be reached (Connection refused). By hand: download its .parquet files" in said.err
    )


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("resisc54", "closest name: 'resisc45'"),
        ("CIFAR-10", "closest name: 'cifar10'"),
        ("CUB_200_2011", "closest name: 'cub'"),
        ("../etc", "OWNER/NAME"),
        ("nothing-like-it", "'tcpa data list'"),
    ],
)
def test_a_wrong_name_is_told_with_the_one_that_is_near(
    tcpa: Command, tmp_path: Path, name: str, match: str
) -> None:
    said = tcpa("data", "get", name, "--root", str(tmp_path / "mine"), "--yes")
    assert said.code == 2 and match in said.err
    assert not (tmp_path / "mine").exists()


def test_what_cannot_be_fetched_says_how_and_where_it_belongs(
    tcpa: Command, tmp_path: Path
) -> None:
    said = tcpa("data", "get", "nabirds", "--root", str(tmp_path / "birds"), "--yes")
    assert said.code == 1 and not said.err
    assert "licence: non-commercial research only" in said.out
    assert "  1. agree to the terms at https://dl.allaboutbirds.org/nabirds" in said.out
    assert f"--root {tmp_path}/birds/nabirds" in said.out


@pytest.mark.parametrize(
    ("kind", "match"),
    [("folder", "ImageFolder"), ("digits", "no download"), ("vtab1k", "ZhangYuanhan-AI/NOAH")],
)
def test_a_kind_that_is_no_published_set_says_what_it_is(
    tcpa: Command, tmp_path: Path, kind: str, match: str
) -> None:
    said = tcpa("data", "get", kind, "--root", str(tmp_path), "--yes")
    assert said.code == 1 and match in said.out
    assert f"{kind} is no published set" in said.out


def test_a_root_that_is_no_folder_is_told(tcpa: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in ("file", "file/below"):
        said = tcpa("data", "get", "cub", "--root", str(tmp_path / root))
        assert said.code == 2 and f"{tmp_path}/file is a file" in said.err


def test_a_root_that_cannot_be_written_is_told(
    tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_data.os, "access", lambda *_: False)  # tests may run as root
    said = tcpa("data", "get", "cub", "--root", str(tmp_path / "mine"))
    assert said.code == 2 and f"{tmp_path} cannot be written by this user" in said.err


def test_get_needs_a_root(tcpa: Command) -> None:
    said = tcpa("data", "get", "cub")
    assert said.code == 2 and "--root" in said.err


# list, check and the old form


def test_the_list_has_a_line_for_every_kind_and_every_published_set(tcpa: Command) -> None:
    said = tcpa("data", "list")
    kinds, _, sets = said.out.partition("published sets:")
    assert said.code == 0
    assert {line.split()[0] for line in kinds.splitlines()[1:] if line} == set(
        get_data.plugins.names("tcpa_core.data")
    )
    readable = {line.split()[0] for line in sets.splitlines()[2:]}
    assert readable <= set(get_data.PUBLISHED)
    assert re.search(r"resisc45 +45 +31,500 \+ 0 \+ 0 +timm/resisc45 +research purposes", sets)
    assert re.search(r"nabirds +555 +23,929 \+ 0 \+ 24,633 +by hand", sets)


def test_check_and_the_form_without_a_verb_say_the_same(tcpa: Command, tmp_path: Path) -> None:
    data_layouts.folder(tmp_path / "set")
    root = ("--root", str(tmp_path / "set"))
    verbose = tcpa("data", "check", "folder", *root)
    assert verbose.code == 0 and "3 classes" in verbose.out
    # The room on the disk is another one each time.
    text = re.sub("where .* are free", "", verbose.out)
    for line in (("folder", *root), (*root, "folder")):
        assert re.sub("where .* are free", "", tcpa("data", *line).out) == text


def test_check_says_what_a_space_needs(tcpa: Command, tmp_path: Path) -> None:
    data_layouts.folder(tmp_path / "a: set")
    said = tcpa("data", "check", "folder", "--root", str(tmp_path / "a: set"))
    found = re.search(r"base:\n((?:  .*\n)+)", said.out)
    assert found
    lines = found[1].splitlines()
    assert lines == ["  data.name: folder", f"  data.root: '{tmp_path}/a: set'"]


def test_check_shows_what_is_published_beside_what_is_found(tcpa: Command, tmp_path: Path) -> None:
    data_layouts.folder(tmp_path / "CUB_200_2011")
    said = tcpa("data", "check", "folder", "--root", str(tmp_path / "CUB_200_2011"))
    assert (
        "published of CUB-200-2011: 200 classes, official 5,994 train + 5,794 test; hta 5,394 "
        "train + 600 val + 5,794 test: this copy differs" in said.out
    )


def test_check_says_what_the_cache_will_take_and_whether_there_is_room(
    tcpa: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_layouts.folder(tmp_path / "set")
    check = ("data", "check", "folder", "--root", str(tmp_path / "set"), "--img-size", "64")
    line = rf"at 64 pixels: 12 images will be decoded into {tmp_path}/cache \([\d.]+ MB\), where"
    said = tcpa(*check)
    assert re.search(line, said.out) and "warning" not in said.out
    monkeypatch.setattr("tcpa_core.data._room.free_bytes", lambda _: 10)
    said = tcpa(*check)
    refused = r"warning: the cache folder is too small \(No space .*\): 12 decoded images need"
    assert said.code == 0 and re.search(refused, said.out)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("foldr",), "closest name: 'folder'"),
        (("lsit",), "closest name: 'list'"),
        (("download", "cub"), "closest name: 'get'"),
        (("check", "foldr"), "closest name: 'folder'"),
        (("folder", "--size", "3"), "No such option: --size"),
    ],
)
def test_a_wrong_word_is_told_with_the_one_that_was_meant(
    tcpa: Command, arguments: tuple[str, ...], match: str
) -> None:
    said = tcpa("data", *arguments)
    assert said.code == 2 and match in said.err


@pytest.mark.parametrize(
    ("words", "found"),
    [("data ", "get"), ("data check vt", "vtab1k"), ("data get cifar", "cifar100")],
)
def test_names_are_completed(words: str, found: str) -> None:
    line = {"COMP_WORDS": f"tcpa {words}", "COMP_CWORD": str(words.count(" ") + 1)}
    asked = {**os.environ, **line, "_TCPA_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", "from search.cli import app; app(prog_name='tcpa')"]
    done = subprocess.run(command, env=asked, capture_output=True, text=True)
    assert found in done.stdout.split(), done.stderr


def test_the_bare_verb_shows_its_help(tcpa: Command) -> None:
    said = tcpa("data")
    assert said.code == 0
    assert all(word in said.out for word in ("list", "check", "get"))
