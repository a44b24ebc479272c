"""Files from the network: whole by checksum, gone on with, refused; a server stands in for it."""

import hashlib
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torchvision

from search.downloads import fetch as fetching
from search.downloads import unpack as unpacking
from search.downloads.archives import ARCHIVES
from search.downloads.fetch import Remote, fetch, is_whole
from search.downloads.hub import CONVERTED, parquet_files
from search.downloads.unpack import is_unpacked, unpack
from tcpa_core.data.base import PUBLISHED
from tcpa_core.errors import ConfigError, DataError
from tests.search.local_server import Server, serving

URL = "https://data.example.org/sets/pictures.tar.gz"
KEY = "data.example.org/sets/pictures.tar.gz"
CONTENT = bytes(range(256)) * 4096  # 1 MiB
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Usage(NamedTuple):
    """As of shutil.disk_usage."""

    total: int
    used: int
    free: int


def quiet(stage: str, done: int, total: int) -> None:
    """Takes progress and shows none."""


def remote(content: bytes = CONTENT, **changed: Any) -> Remote:
    digest = f"md5:{hashlib.md5(content).hexdigest()}"
    found = Remote(url=URL, path="sub/pictures.tar.gz", size=len(content), digest=digest)
    return replace(found, **changed)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as found:
        found.files[KEY] = CONTENT
        monkeypatch.setattr(fetching, "address", found.address)
        yield found


def test_a_file_arrives_whole_and_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    assert not is_whole(remote(), tmp_path, quiet)
    fetch(remote(), tmp_path, lambda *what: told.append(what))
    assert (tmp_path / "sub/pictures.tar.gz").read_bytes() == CONTENT
    assert os.listdir(tmp_path / "sub") == ["pictures.tar.gz"]
    assert told[0] == ("download pictures.tar.gz", 0, len(CONTENT))
    assert ("download pictures.tar.gz", len(CONTENT), len(CONTENT)) in told
    assert is_whole(remote(), tmp_path, quiet)


def test_an_interrupted_download_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.cut[KEY] = 700_000
    with pytest.raises(DataError, match="ended after 700,000 of 1,048,576 bytes, which are kept"):
        fetch(remote(), tmp_path, quiet)
    assert not (tmp_path / "sub/pictures.tar.gz").exists()
    server.sent.clear()
    fetch(remote(), tmp_path, quiet)
    assert server.sent[KEY] == len(CONTENT) - 700_000
    assert (tmp_path / "sub/pictures.tar.gz").read_bytes() == CONTENT


def test_a_download_whose_process_is_killed_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.stall[KEY] = 600_000
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from search.downloads import fetch as f\n"
        f"f.address = lambda url: {server.address(URL)!r}\n"
        f"one = f.{remote()!r}\n"
        f"f.fetch(one, Path({str(tmp_path)!r}), lambda *told: print(*told, flush=True))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    part = tmp_path / "sub/pictures.tar.gz.part"
    end = time.monotonic() + 60
    while not part.exists() or part.stat().st_size < 500_000:
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = part.stat().st_size
    server.sent.clear()
    fetch(remote(), tmp_path, quiet)
    assert server.sent[KEY] == len(CONTENT) - kept
    assert (tmp_path / "sub/pictures.tar.gz").read_bytes() == CONTENT


def test_a_server_that_knows_no_parts_sends_all(server: Server, tmp_path: Path) -> None:
    server.has_ranges = False
    server.cut[KEY] = 500_000
    with pytest.raises(DataError, match="500,000 of"):
        fetch(remote(), tmp_path, quiet)
    fetch(remote(), tmp_path, quiet)
    assert server.sent[KEY] == 500_000 + len(CONTENT)
    assert is_whole(remote(), tmp_path, quiet)


def test_all_that_had_arrived_before_its_check_is_checked(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "sub/pictures.tar.gz.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    fetch(remote(), tmp_path, quiet)
    assert not server.sent and is_whole(remote(), tmp_path, quiet)


def test_another_file_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.files[KEY] = CONTENT[::-1]
    with pytest.raises(DataError, match="published is md5:.*not kept.*By hand"):
        fetch(remote(), tmp_path, quiet)
    assert os.listdir(tmp_path / "sub") == []


@pytest.mark.parametrize("has_length", [True, False])
def test_a_server_cannot_fill_the_disk(server: Server, tmp_path: Path, has_length: bool) -> None:
    server.files[KEY] = 9 * CONTENT
    server.has_length = has_length
    with pytest.raises(DataError, match="published are 1,048,576: it is another file"):
        fetch(remote(), tmp_path, quiet)
    part = tmp_path / "sub/pictures.tar.gz.part"
    assert part.stat().st_size <= 2 * len(CONTENT) + fetching.CHUNK


def test_a_file_that_is_there_with_another_content_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/pictures.tar.gz").write_bytes(b"mine")
    with pytest.raises(DataError, match="move it away"):
        is_whole(remote(), tmp_path, quiet)
    assert (tmp_path / "sub/pictures.tar.gz").read_bytes() == b"mine"


def test_a_full_disk_is_told_before_a_byte_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 1_000_000))
    with pytest.raises(DataError, match=r"needs 1\.0 MB in .*, the disk has 1\.0 MB free.*--root"):
        fetch(remote(), tmp_path, quiet)
    assert (tmp_path / "sub/pictures.tar.gz.part").stat().st_size == 0


def test_without_a_network_the_steps_by_hand_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetching, "address", lambda _: "http://127.0.0.1:1/x")
    by_hand = f"put {URL} at {tmp_path}/sub/pictures.tar.gz"
    with pytest.raises(DataError, match=f"cannot be reached.*refused.*By hand: {by_hand}"):
        fetch(remote(), tmp_path, quiet)


@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_refusal_is_told_with_its_code(server: Server, tmp_path: Path, code: int) -> None:
    server.codes[KEY] = code
    with pytest.raises(DataError, match=f"answers {code}.*By hand"):
        fetch(remote(), tmp_path, quiet)


def test_two_calls_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "sub/pictures.tar.gz.part"
    part.parent.mkdir()
    with fetching._held(part), pytest.raises(DataError, match="another 'tcpa data get'"):
        fetch(remote(), tmp_path, quiet)


def test_a_folder_that_is_a_file_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sub").write_text("")
    with pytest.raises(DataError, match="cannot be written.*--root"):
        fetch(remote(), tmp_path, quiet)


def test_a_key_is_not_shown_to_whom_the_server_refers_to(server: Server, tmp_path: Path) -> None:
    server.moved[KEY] = f"http://localhost:{server.port}/elsewhere"
    server.files["elsewhere"] = CONTENT
    fetch(remote(), tmp_path, quiet, "secret")
    (_, first), (_, second) = server.asked
    assert first["Authorization"] == "Bearer secret" and "Authorization" not in second


@pytest.mark.parametrize(
    "digest",
    [
        f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
        f"blob:{hashlib.sha1(b'blob %d' % len(CONTENT) + bytes(1) + CONTENT).hexdigest()}",
    ],
)
def test_the_checksums_of_the_hub(server: Server, tmp_path: Path, digest: str) -> None:
    fetch(remote(digest=digest), tmp_path, quiet)
    assert is_whole(remote(digest=digest), tmp_path, quiet)


# Archives


def tar_of(files: dict[str, bytes], path: Path) -> Remote:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(data))
    return remote(path.read_bytes(), path=path.name, unpacks=True)


def test_an_archive_is_unpacked_beside_itself(tmp_path: Path) -> None:
    files = {"./": b"", "./set/a.txt": b"a", "set/deep/b.txt": b"b"}
    one = tar_of(files, tmp_path / "x.tar.gz")
    assert not is_unpacked(one, tmp_path)
    unpack(one, tmp_path, quiet)
    assert is_unpacked(one, tmp_path)
    assert (tmp_path / "set/deep/b.txt").read_bytes() == b"b"
    assert not is_unpacked(replace(one, digest="md5:0"), tmp_path)
    (tmp_path / "set").rename(tmp_path / "moved")
    assert not is_unpacked(one, tmp_path), "what it made is gone"


def test_a_zip_is_unpacked_beside_itself(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("set/a.txt", "a" * 1000)
    assert unpacking.unpacked_bytes(tmp_path / "x.zip") == 1000
    one = remote((tmp_path / "x.zip").read_bytes(), path="x.zip", unpacks=True)
    unpack(one, tmp_path, quiet)
    assert is_unpacked(one, tmp_path) and (tmp_path / "set/a.txt").read_text() == "a" * 1000


def test_unpacking_that_broke_off_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tar_of({"set/a.txt": b"a", "set/b.txt": b"b"}, tmp_path / "x.tar.gz")

    def break_off(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(one, tmp_path, break_off)
    assert not is_unpacked(one, tmp_path)
    unpack(one, tmp_path, quiet)
    assert (tmp_path / "set/b.txt").read_bytes() == b"b"


def test_nothing_is_unpacked_outside_of_the_folder(tmp_path: Path) -> None:
    one = tar_of({"../outside.txt": b"x"}, tmp_path / "in/x.tar.gz")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(one, tmp_path / "in", quiet)
    assert not (tmp_path / "outside.txt").exists()


# The Hub


def listing(*names: str, **changed: Any) -> bytes:
    siblings = [
        {"rfilename": name, "size": 4, "blobId": "b", "lfs": {"sha256": "5" * 64, "size": 4}}
        for name in names
    ]
    about = {"sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}}
    return json.dumps(about | changed).encode()


def api(name: str = "owner/set", revision: str = "main") -> str:
    return f"huggingface.co/api/datasets/{name}/revision/{revision.replace('/', '%2F')}"


def test_parquet_files_of_a_repository(server: Server) -> None:
    server.files[api()] = listing("README.md", "plain/train-0.parquet", "plain/test-0.parquet")
    found = parquet_files("owner/set", None, None)
    assert (found.licence, found.commit, found.folder) == ("mit", COMMIT, "plain")
    assert [one.path for one in found.files] == ["plain/test-0.parquet", "plain/train-0.parquet"]
    assert found.files[0].url == (
        f"https://huggingface.co/datasets/owner/set/resolve/{COMMIT}/plain/test-0.parquet"
    )
    assert found.files[0].digest == f"sha256:{'5' * 64}"


def test_a_repository_of_other_files_is_taken_from_the_branch_of_the_hub(server: Server) -> None:
    server.files[api()] = listing("images.zip")
    names = ("default/train/0000.parquet", "default/test/0000.parquet")
    server.files[api(revision=CONVERTED)] = listing(*names)
    found = parquet_files("owner/set", None, None)
    assert found.folder == "default" and len(found.files) == 2
    with pytest.raises(DataError, match="no Parquet file"):
        parquet_files("owner/set", "main", None)


def test_one_of_several_data_sets_is_chosen(server: Server) -> None:
    server.files[api()] = listing("full/train.parquet", "small/train.parquet", "small/test.parquet")
    with pytest.raises(ConfigError, match=r"2 data sets, full, small.*--include 'full/\*'"):
        parquet_files("owner/set", None, None)
    assert parquet_files("owner/set", None, "small/*").folder == "small"
    with pytest.raises(DataError, match="no Parquet file like 'tiny/"):
        parquet_files("owner/set", None, "tiny/*")


def test_folders_of_splits_are_one_data_set(server: Server) -> None:
    server.files[api()] = listing("train/0.parquet", "test/0.parquet", "validation/0.parquet")
    assert parquet_files("owner/set", None, None).folder == ""


@pytest.mark.parametrize(
    "name", ["owner", "../x", "owner/..", "a/b/c", "owner/na me", "owner/x?y", "/owner/x", "o/../x"]
)
def test_a_name_that_cannot_be_a_repository_is_not_asked_for(server: Server, name: str) -> None:
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        parquet_files(name, None, None)
    assert not server.asked


@pytest.mark.parametrize(
    ("about", "match"),
    [
        (b"<html>sign in</html>", "no listing"),
        (b"[]", "no listing"),
        (listing("a.parquet", sha="../../x"), "names no commit"),
        (listing("../../a.parquet"), "stay inside"),
        (listing("/etc/a.parquet"), "stay inside"),
        (listing("a.parquet", siblings=[{"rfilename": "a.parquet"}]), "no checksum"),
        (listing("a.parquet", siblings="none"), "no listing"),
    ],
)
def test_an_odd_answer_of_the_hub_is_told(server: Server, about: bytes, match: str) -> None:
    server.files[api()] = about
    with pytest.raises(DataError, match=match):
        parquet_files("owner/set", None, None)


@pytest.mark.parametrize(
    ("code", "match"), [(401, "HF_TOKEN"), (403, "accepted its terms"), (404, "no such repository")]
)
def test_a_refusal_of_the_hub_says_what_to_do(server: Server, code: int, match: str) -> None:
    server.codes[api()] = code
    with pytest.raises(DataError, match=match):
        parquet_files("owner/set", None, None)


def test_the_users_mirror_and_key_are_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    server.files[api().replace("huggingface.co", "mirror.example")] = listing("a.parquet")
    assert parquet_files("owner/set", None, None).files[0].url.startswith("https://mirror.example")
    assert server.asked[0][1]["Authorization"] == "Bearer secret"


def test_offline_nobody_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
        parquet_files("owner/set", None, None)
    assert not server.asked


# torchvision


@pytest.mark.parametrize("key", ARCHIVES)
def test_addresses_and_checksums_are_those_of_torchvision(key: str) -> None:
    published = PUBLISHED[key].torchvision
    assert published is not None
    theirs = inspect.getmodule(getattr(torchvision.datasets, published.name))
    assert theirs is not None
    source = inspect.getsource(theirs)
    for one in ARCHIVES[key]:
        folder, _, name = one.url.rpartition("/")
        kind, _, digits = one.digest.partition(":")
        assert kind == "md5" and digits in source and name in source and folder in source
