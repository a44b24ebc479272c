"""Studies in a storage: files that are whole or absent, working copies, one driver across hosts."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.driver.driver import run_study
from search.driver.placement import Placement
from search.driver.ray_session import connect
from search.study import storage as storage_module
from search.study import storage_keeper, storage_lock
from search.study.address import below, local_folder, storage_address
from search.study.copies import whole_lines
from search.study.folder import StudyDir
from search.study.journal import Journal
from search.study.lock import Driver
from search.study.storage import Storage, fetch_folder
from search.study.storage_keeper import StorageKeeper
from search.study.storage_lock import StorageLock
from search.study.working_copy import exists, opened, stored_names
from search.verbs.overview import study_lines
from tcpa_core.config import TrialConfig
from tcpa_core.errors import ConfigError, StorageError, StudyError
from tcpa_core.record import files
from tests.journals import planned
from tests.search.conftest import FACTORY, PRINTS, ROOT, make_space, run_stubs
from tests.search.s3_server import ENVIRONMENT, serving

NAME = "stored"
NOBODY = Driver("elsewhere", 7, "2026-01-01T00:00:00+00:00")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(params=["file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path, s3: str) -> str:
    """The address of a folder of its own, in each kind of storage."""
    if request.param == "file":
        return f"file://{tmp_path}/storage"
    return below(s3, tmp_path.name)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_lock, "SETTLE_S", 0.05)
    monkeypatch.setattr(storage_lock, "BEAT_S", 0.1)
    monkeypatch.setattr(storage_keeper, "EVERY_S", 0.05)
    monkeypatch.setattr(storage_module, "FIRST_PAUSE_S", 0.01)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("ftp://host/x", "ftp:// is no kind of storage that is known here; it is s3://, gs://"),
        ("memory://x", "memory:// is no kind"),
        ("studies", "'studies' is no kind of storage .* is given with --root"),
        ("s3:/bucket/x", "'s3:/bucket/x' is no kind of storage"),
        ("s3://key:secret@bucket/x", r"s3://\*\*\*@bucket/x has a user or a password in it"),
        ("abfs://account:key@box/x", r"abfs://\*\*\*@box/x has a user or a password in it"),
        ("s3://bucket/x?secret_key=abc", "'secret_key' behind the '\\?' is not known here"),
        ("s3://", "names no folder"),
        ("file://mnt/x", "names no folder; give one as"),
    ],
)
def test_addresses_that_are_none_are_refused(given: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"--storage: .*{says}") as caught:
        storage_address(given)
    assert not {"key:secret", "account:key", "abc"} & set(str(caught.value).split())
    assert ":secret" not in str(caught.value) and ":key" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "s3://bucket/studies?endpoint_override=host:9000&scheme=http",
        "gs://bucket",
        "gs://anonymous@bucket/x",
        "az://box/x",
        "abfss://box@account.dfs.core.windows.net/x",
        "hdfs://me@host:8020/x",
        "file:///mnt/x",
    ],
)
def test_an_address_is_recorded_as_it_was_given(given: str) -> None:
    assert storage_address(given) == given
    assert storage_address(given.replace("/x", "/x/")) == given


def test_a_root_is_no_address() -> None:
    with pytest.raises(StudyError, match="give the address with --storage, or mount the s3"):
        local_folder("s3://bucket/studies")


def test_files_come_back_as_they_were_written(address: str, tmp_path: Path) -> None:
    folder = Storage(address)
    assert folder.read("a/x") is None and folder.stat("a/x") is None
    assert folder.names("a") == folder.names("a", folders=True) == []
    folder.write("a/x", b"1" * 70_000)
    folder.write("a/x", b"22")
    folder.write("a/b/y", b"")
    assert folder.read("a/x") == b"22" and folder.read("a/b/y") == b""
    stat = folder.stat("a/x")
    assert stat and stat.size == 2 and abs(stat.changed_at - time.time()) < 60
    assert folder.stat("a") is None
    assert folder.names("a") == ["x"] and folder.names("a", folders=True) == ["b"]
    assert folder.below("a").read("x") == b"22"
    assert folder.fetch("a/x", tmp_path / "new" / "x")
    assert not folder.fetch("a/z", tmp_path / "new" / "z")
    fetch_folder(folder, "a", tmp_path / "all")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x"]
    assert (tmp_path / "all" / "x").read_bytes() == b"22"


class _Faulty:
    """A file system whose calls fail for a while, or writes in their middle."""

    def __init__(self, real: Any, faults: list[Exception], torn: bool = False) -> None:
        self._real, self._faults, self._torn = real, faults, torn
        self.tried = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def open_output_stream(self, path: str) -> Any:
        self.tried += 1
        if self._faults:
            fault = self._faults.pop(0)
            if self._torn:
                with self._real.open_output_stream(path) as stream:
                    stream.write(b"half")
            raise fault
        return self._real.open_output_stream(path)


def test_a_short_outage_is_waited_for(tmp_path: Path) -> None:
    folder = Storage(f"file://{tmp_path}/storage")
    faults: list[Exception] = [OSError("AWS Error NETWORK_CONNECTION")] * 3
    folder._fs = faulty = _Faulty(folder._fs, faults)
    folder.write("x", b"whole")
    assert folder.read("x") == b"whole" and faulty.tried == 4


@pytest.mark.parametrize("why", ["AWS Error ACCESS_DENIED", "AWS Error NO_SUCH_BUCKET"])
def test_what_no_repeat_cures_is_told_at_once(tmp_path: Path, why: str) -> None:
    folder = Storage(f"file://{tmp_path}/storage")
    folder._fs = faulty = _Faulty(folder._fs, [OSError(why)])
    with pytest.raises(StorageError, match=f"does not answer as it should .*{why}.*credentials"):
        folder.write("x", b"whole")
    assert faulty.tried == 1


def test_a_torn_upload_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    folder = Storage(f"file://{tmp_path}/storage", patience_s=0.0)
    folder.write("journal.jsonl", b"good\n")
    real = folder._fs
    folder._fs = _Faulty(real, [OSError("AWS Error NETWORK_CONNECTION")], torn=True)
    with pytest.raises(StorageError, match="NETWORK_CONNECTION"):
        folder.write("journal.jsonl", b"good\nbetter\n")
    assert folder.read("journal.jsonl") == b"good\n"


def write(study: StudyDir, *trials: str) -> None:
    """Append to a study's journal what a driver would."""
    journal = Journal(study.journal_path)
    for trial in trials:
        journal.append(planned(trial, TrialConfig()))
    journal.close()


@pytest.fixture
def make(tmp_path: Path, address: str) -> Callable[..., StudyDir]:
    """A study of host A, which lies in the storage."""

    def made(events: int = 0, **changes: Any) -> StudyDir:
        study = StudyDir.create(
            tmp_path / "a", NAME, make_space(**changes), PRINTS, "", storage=address
        )
        write(study, *["a", "b", "c"][:events])
        return study

    return made


def send(study: StudyDir) -> None:
    study.lock()
    study.unlock()


def test_a_study_is_opened_on_a_host_that_has_only_the_address(
    make: Callable[..., StudyDir], address: str, tmp_path: Path
) -> None:
    study = make(2)
    send(study)
    said: list[str] = []
    copy = opened(tmp_path / "b", NAME, address, said.append)
    assert copy.document() == study.document() and copy.document()["storage"] == address
    assert list(copy.events()) == list(study.events())
    assert len(said) == 1 and "working copy made from" in said[0]
    assert stored_names(address) == [NAME] and exists(tmp_path / "c", NAME, address)
    assert not exists(tmp_path / "c", "other", address)
    # from then on the folder knows where it belongs
    assert opened(tmp_path / "b", NAME, say=said.append).address == below(address, NAME)
    assert len(said) == 1
    with pytest.raises(StudyError, match=f"no study 'other' in .* Studies there: {NAME}"):
        opened(tmp_path / "e", "other", address)
    assert not (tmp_path / "e").exists()


def test_secrets_are_in_no_file(make: Callable[..., StudyDir], tmp_path: Path, s3: str) -> None:
    study = make(1)
    send(study)
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    secrets = [ENVIRONMENT["AWS_ACCESS_KEY_ID"], ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]]
    assert texts and not [one for text in texts for one in secrets if one.encode() in text]


def test_a_copy_is_brought_up_to_date(
    make: Callable[..., StudyDir], address: str, tmp_path: Path
) -> None:
    study = make(1)
    send(study)
    opened(tmp_path / "b", NAME, address)
    write(study, "b")
    send(study)
    said: list[str] = []
    copy = opened(tmp_path / "b", NAME, say=said.append)
    assert list(copy.events()) == list(study.events())
    assert said and "brought up to date" in said[0] and "events more" in said[0]


def test_the_newer_copy_stays_and_is_sent_by_its_driver(
    make: Callable[..., StudyDir], address: str, tmp_path: Path
) -> None:
    study = make(1)
    send(study)
    write(study, "b")  # its driver was killed before it could send
    whole = study.journal_path.read_bytes()
    study.journal_path.write_bytes(whole + b'{"torn')
    said: list[str] = []
    again = opened(tmp_path / "a", NAME, say=said.append)
    assert said and "newer than" in said[0] and "tcpa resume stored" in said[0]
    send(again)
    assert Storage(below(address, NAME)).read(files.JOURNAL) == whole


def test_a_fork_is_refused_by_name(
    make: Callable[..., StudyDir], address: str, tmp_path: Path
) -> None:
    study = make(1)
    send(study)
    copy = opened(tmp_path / "b", NAME, address)
    write(copy, "b")
    send(copy)
    write(study, "c")
    before = study.journal_path.read_bytes()
    with pytest.raises(StudyError, match=r"gone different ways since event \d+: .*move .*a/stored"):
        opened(tmp_path / "a", NAME)
    assert study.journal_path.read_bytes() == before
    # nor may a driver that opened it before overwrite what has happened since
    with pytest.raises(StudyError, match="gone different ways"):
        study.lock()
    assert Storage(below(address, NAME)).read(files.JOURNAL) == copy.journal_path.read_bytes()


def test_what_came_since_a_study_was_opened_is_fetched_with_its_lock(
    make: Callable[..., StudyDir], address: str, tmp_path: Path
) -> None:
    study = make(1)
    send(study)
    copy = opened(tmp_path / "b", NAME, address)
    with study.held():  # taken again, the storage's lock stays until the first is given back
        write(study, "b")
        send(study)
        assert study.driver() == StorageLock(Storage(below(address, NAME)), NAME).holder()
    with copy.held():
        assert list(copy.events()) == list(study.events())


def test_two_studies_of_one_name_are_kept_apart(
    make: Callable[..., StudyDir], address: str, tmp_path: Path
) -> None:
    make(1)
    with pytest.raises(StudyError, match=f"'{NAME}' exists already in .* --storage .*--study"):
        StudyDir.create(tmp_path / "b", NAME, make_space(), PRINTS, "", storage=address)
    assert not (tmp_path / "b").exists()
    StudyDir.create(tmp_path / "b", NAME, make_space(), PRINTS, "")
    with pytest.raises(StudyError, match="lies in its folder alone; leave --storage out"):
        opened(tmp_path / "b", NAME, address)
    shutil.rmtree(tmp_path / "a" / NAME)
    other = StudyDir.create(tmp_path / "a", "other", make_space(), PRINTS, "", storage=address)
    other.path.rename(tmp_path / "a" / NAME)
    with pytest.raises(StudyError, match="are two studies of one name"):
        opened(tmp_path / "a", NAME)


def test_a_copy_whose_driver_runs_here_is_left_alone(
    make: Callable[..., StudyDir], address: str, tmp_path: Path
) -> None:
    study = make(1)
    send(study)
    study.lock()
    write(study, "b")
    said: list[str] = []
    assert list(opened(tmp_path / "a", NAME, say=said.append).events()) == list(study.events())
    assert not said
    study.unlock()


def test_a_study_that_cannot_be_sent_is_not_made(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(StudyError, match="--storage: .*does not answer as it should"):
        StudyDir.create(
            tmp_path / "a", NAME, make_space(), PRINTS, "", storage=f"file://{blocked}/x"
        )
    assert not (tmp_path / "a" / NAME).exists()


def locks(address: str, *beats_s: float) -> list[StorageLock]:
    return [StorageLock(Storage(below(address, NAME)), NAME, beat_s) for beat_s in beats_s]


def take(lock: StorageLock, me: str, said: list[str] | None = None) -> str:
    driver = Driver(me, 1, "2026-01-01T00:00:00+00:00")
    return lock.take(driver, lambda other: False, (said if said is not None else []).append)


def test_one_driver_at_a_time_across_hosts(address: str) -> None:
    # The second one watches long enough also on a machine that has much else to do.
    first, second, third = locks(address, 0.1, 5.0, 5.0)
    assert take(first, "one") == ""
    assert str(third.holder()).startswith("host one,")
    with pytest.raises(StudyError, match="is run by another driver: host one, pid 1"):
        take(second, "two")
    first.release()
    assert third.holder() is None
    assert take(second, "two") == ""
    second.release()


def test_a_dead_driver_is_taken_over(address: str) -> None:
    first, second = locks(address, 0.1, 0.1)
    take(first, "one")
    first._ended.set()  # its process is gone, and says nothing
    said: list[str] = []
    assert "took over from a driver that ended unexpectedly: host one" in take(second, "two", said)
    assert said and "host one" in said[0] and "watching" in said[0]
    # one that only slept sees that, and touches nothing
    assert not first.is_mine() and first.lost_to and first.lost_to.host == "two"
    first.release()
    assert second.is_mine()
    second.release()


def test_of_two_that_take_it_at_once_one_has_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_lock, "SETTLE_S", 2.0)  # longer than a busy machine takes to write
    both, results = locks(address, 5.0, 5.0), dict[str, str]()

    def try_it(lock: StorageLock, me: str) -> None:
        try:
            take(lock, me)
            results[me] = "has it"
        except StudyError as err:
            results[me] = str(err)

    threads = [
        threading.Thread(target=try_it, args=(lock, me))
        for lock, me in zip(both, ("one", "two"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(text == "has it" for text in results.values()) == [False, True]
    for lock in both:
        lock.release()


def test_who_has_lost_the_study_sends_nothing(make: Callable[..., StudyDir], address: str) -> None:
    study = make(1)
    there = Storage(below(address, NAME))
    keeper = StorageKeeper(study.path, there)
    keeper.begin(NOBODY, lambda other: False, lambda text: None)
    there.write(files.LOCK, b"host other, pid 3, since now\nsecret 1\n")
    write(study, "b")
    before = there.read(files.JOURNAL)
    keeper.send()
    assert there.read(files.JOURNAL) == before
    assert keeper.lost_to and keeper.lost_to.host == "other"
    keeper.end()
    assert (there.read(files.LOCK) or b"").startswith(b"host other")


def test_whole_lines_only() -> None:
    assert whole_lines(b"a\nb") == b"a\n" and whole_lines(b"ab") == b"" == whole_lines(b"")


def test_a_storage_that_stays_away_stops_the_study(
    make: Callable[..., StudyDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make(1)
    study.lock()
    assert study._keeper is not None
    there = study._keeper._storage
    there.patience_s, fs = 0.0, there._fs
    there._fs = _Faulty(fs, [OSError("AWS Error NETWORK_CONNECTION")] * 1000)
    write(study, "b")
    study._keeper._thread.join(timeout=30)
    with pytest.raises(StorageError, match="NETWORK_CONNECTION.*tcpa resume"):
        study.taken_over_by()
    there._fs = fs
    study.unlock()


@pytest.fixture(scope="module")
def ray_with_credentials(s3: str) -> Iterator[None]:
    """A cluster whose nodes were started with what the storage asks for."""
    if str(ROOT) not in sys.path:  # workers take over the driver's path and need the stub
        sys.path.insert(0, str(ROOT))
    with connect(None, 2):
        yield


@pytest.mark.integration
@pytest.mark.usefixtures("ray_with_credentials")
def test_a_study_goes_on_at_another_host(
    make: Callable[..., StudyDir],
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed on one host, resumed on another that has nothing but the address."""
    study, there = make(), Storage(below(address, NAME))
    cache = {"cache_dir": tmp_path / "cache"}
    space = study.space()
    events = []

    def interrupt(event: Any) -> None:
        events.append(event)
        if sum(one.kind == "completed" for one in events) == 4:
            raise StorageError("the driver's host is gone")

    with pytest.raises(StorageError, match="host is gone"):
        run_study(
            space,
            study,
            placement=Placement(workers=2, slots=3, worker_factory=FACTORY, **cache),
            listeners=[interrupt],
        )
    done = {name for name, one in study.state().trials.items() if one.ended}
    kept = {name: there.names(f"{files.CHECKPOINTS}/{name}") for name in done}
    assert done and all(found == ["last.json"] for found in kept.values())
    assert not (study.path / files.CHECKPOINTS).exists()
    shutil.rmtree(study.path)

    copy = opened(tmp_path / "b", NAME, address, lambda text: None)
    outcome = run_stubs(space, copy, **cache)
    reasons = [one.ended.result.reason for one in copy.state().trials.values() if one.ended]
    assert not any(reasons), reasons
    assert outcome.finished and outcome.counts == {"completed": 12}
    assert not list((tmp_path / "cache").glob("studies/*"))
    folder = copy.trial_folder("00003")
    assert json.loads((folder / "last.json").read_text()) == {"epoch": 6}
    assert there.read(files.JOURNAL) == copy.journal_path.read_bytes()
    assert there.read(files.LOCK) == b""
    (line,) = [one for one in study_lines(tmp_path / "c", address) if one.startswith(NAME)]
    assert "12 of 12" in line and "finished" in line
