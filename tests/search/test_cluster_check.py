"""Why a driver cannot join a cluster is said at once and told apart; with sockets, without Ray."""

import json
import os
import platform
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from search.driver import cluster_check, tokens
from search.driver.cluster_address import ClusterAddress
from search.driver.cluster_check import check_cluster
from search.driver.ray_session import connect
from tcpa_core.errors import StudyError

OURS = {"ray": ray.__version__, "python": platform.python_version()}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without a token, on a machine whose loopback addresses stay what they are."""
    for name in (tokens.MODE, tokens.TOKEN, tokens.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cluster_check, "without_loopback", lambda host: host)
    check_cluster.cache_clear()
    return tmp_path


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the probe is told to find, and the variables that it was given."""
    found: dict[str, Any] = {"is_here": True, **OURS}

    def ask(host: str, port: int, variables: dict[str, str]) -> dict[str, Any]:
        found["variables"] = variables
        return found

    monkeypatch.setattr(cluster_check, "_ask", ask)
    yield found
    check_cluster.cache_clear()


def fault_of(address: str, source: str = "--address") -> str:
    begun = time.monotonic()
    with pytest.raises(StudyError) as refused:
        check_cluster(ClusterAddress(address, source))
    assert time.monotonic() - begun < 15, "what a user is to wait at most"
    assert str(refused.value).startswith(f"{source}: ") and str(refused.value).endswith(".")
    return str(refused.value)


def test_a_name_that_does_not_resolve() -> None:
    text = fault_of("no-such-host.invalid:6379", "RAY_ADDRESS")
    assert "the name 'no-such-host.invalid' does not resolve" in text and "IP address" in text


def test_a_port_where_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = fault_of(f"127.0.0.1:{port}")
    assert f"nothing listens at 127.0.0.1:{port}" in text
    assert f"ray start --head --port={port}" in text


def test_a_port_that_swallows_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full backlog answers no further connection, as a firewall that drops packets."""
    monkeypatch.setattr(cluster_check, "LIMIT_S", 3.0)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        text = fault_of(f"127.0.0.1:{port}")
        for one in waiting:
            one.close()
    assert f"no answer from 127.0.0.1:{port}: its machine is down, or a firewall" in text
    assert f"nc -vz 127.0.0.1 {port}" in text


def test_something_else_that_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_check, "LIMIT_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = fault_of(f"127.0.0.1:{server.getsockname()[1]}")
    assert "does not answer as the head of a Ray" in text and "8265" in text


def test_a_cluster_without_a_node_on_this_machine(head: dict[str, Any]) -> None:
    head["is_here"] = False
    text = fault_of("10.0.0.5:6379")
    assert f"no node of the cluster at 10.0.0.5:6379 runs on {os.uname().nodename}" in text
    assert "type here: ray start --address=10.0.0.5:6379" in text
    assert "ray job submit --address http://10.0.0.5:8265 -- tcpa" in text


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"ray": "2.9.0"}, f"runs Ray 2.9.0 on Python {OURS['python']}, this is Ray {OURS['ray']}"),
        ({"python": "3.9.1"}, f"on Python 3.9.1, this is Ray {OURS['ray']}"),
    ],
)
def test_another_version_there(head: dict[str, Any], other: dict[str, str], says: str) -> None:
    head.update(other, is_here=False)  # it comes first: no node can start with another version
    text = fault_of("10.0.0.5:6379")
    assert says in text and f"pip install ray=={head['ray']}" in text


def test_a_patch_of_python_is_no_other_version(head: dict[str, Any]) -> None:
    head["python"] = OURS["python"].rpartition(".")[0] + ".99"
    check_cluster(ClusterAddress("10.0.0.5:6379", "--address"))


def test_this_machine_has_no_cluster(monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]) -> None:
    monkeypatch.setattr(cluster_check, "cluster_of_this_machine", lambda: None)
    says = "no node of a Ray cluster runs on"
    assert says in fault_of("auto")
    # what Ray notes in /tmp outlives a cluster that was killed
    monkeypatch.setattr(cluster_check, "cluster_of_this_machine", lambda: "127.0.0.1:6379")
    head["fault"] = "refused"
    assert says in fault_of("auto")


def test_the_cluster_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, head: dict[str, Any], home: Path
) -> None:
    monkeypatch.setattr(cluster_check, "cluster_of_this_machine", lambda: "127.0.0.1:6379")
    auto = ClusterAddress("auto", "--address")
    check_cluster(auto)
    assert head["variables"] == {}
    check_cluster.cache_clear()
    give_token(home)
    check_cluster(auto)
    assert head["variables"] == {"RAY_AUTH_MODE": "token"}, "as Ray does where it finds a cluster"
    check_cluster(ClusterAddress("10.0.0.5:6379", "--address"))
    assert head["variables"] == {}, "no token is sent to an address unasked"


def give_token(home: Path, mode: int = 0o600) -> Path:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir(exist_ok=True)
    file.write_text("s3cr3t" * 8)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("variables", "has_file", "says"),
    [
        ({}, False, "as RAY_AUTH_MODE is not set, and there is none. Copy ~/.ray/auth_token"),
        ({}, True, "auth_token. Type here: export RAY_AUTH_MODE=token."),
        ({"RAY_AUTH_MODE": "disabled"}, True, "RAY_AUTH_MODE is 'disabled', though there is one"),
        ({"RAY_AUTH_MODE": "token"}, True, ".ray/auth_token is sent. Copy ~/.ray/auth_token of"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "s3cr3t" * 8}, True,
         "that of $RAY_AUTH_TOKEN is sent"),
    ],
)  # fmt: skip
def test_a_token_that_is_missing_or_wrong(
    monkeypatch: pytest.MonkeyPatch,
    head: dict[str, Any],
    home: Path,
    variables: dict[str, str],
    has_file: bool,
    says: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if has_file:
        give_token(home)
    head["fault"] = "token"
    text = fault_of("10.0.0.5:6379")
    assert "10.0.0.5:6379 asks for a token" in text and says in text and "s3cr3t" not in text


def test_token_mode_without_a_token_is_refused_before_ray_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv(tokens.MODE, "token")
    assert "RAY_AUTH_MODE is 'token', but there is none" in fault_of("127.0.0.1:1")
    monkeypatch.setenv(tokens.TOKEN_PATH, str(home / "nowhere"))
    assert "but there is none" in fault_of("127.0.0.1:1")


def test_the_doctor_warns_of_a_token_that_others_can_read(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert tokens.doubt_of_token() == ""
    file = give_token(home, 0o644)
    assert tokens.doubt_of_token() == "", "it is not sent"
    monkeypatch.setenv(tokens.MODE, "token")
    assert "others can read it" in tokens.doubt_of_token()
    file.chmod(stat.S_IRUSR)
    assert tokens.doubt_of_token() == ""
    file.write_text(" ")
    assert "is empty" in tokens.doubt_of_token()


def test_where_ray_looks_for_a_token_first(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """As Ray 2.60 does."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    loader = AuthenticationTokenLoader.instance()

    def agrees(token: str) -> None:
        loader.reset_cache()
        assert loader.has_token(ignore_auth_mode=True) is tokens.has_token() is bool(token)
        assert not token or loader.get_raw_token(ignore_auth_mode=True) == token

    try:
        agrees("")
        agrees(give_token(home).read_text())
        monkeypatch.setenv(tokens.TOKEN_PATH, str(home / "other"))
        (home / "other").write_text("x" * 40)
        agrees("x" * 40)
        assert tokens.token_place() == f"{home / 'other'} ($RAY_AUTH_TOKEN_PATH)"
        monkeypatch.setenv(tokens.TOKEN, "y" * 40)
        agrees("y" * 40)
        assert tokens.token_place() == "$RAY_AUTH_TOKEN"
    finally:
        monkeypatch.undo()
        loader.reset_cache()


def test_a_fault_is_said_before_ray_is_asked(
    monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    head["fault"] = "refused"
    with pytest.raises(StudyError, match="RAY_ADDRESS: nothing listens at"):  # noqa: SIM117
        with connect("10.0.0.5:6379", 1, "RAY_ADDRESS"):
            pass


def test_the_probe_runs_whatever_lies_in_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("json.py", "socket.py", "ray.py", "search.py"):
        (tmp_path / name).write_text("raise SystemExit('taken for ours')")
    monkeypatch.chdir(tmp_path)
    found = cluster_check._ask("127.0.0.1", 1, {})
    assert json.dumps(found) == '{"fault": "refused"}'
