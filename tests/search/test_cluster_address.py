"""Which cluster is meant, and what is said of addresses that no driver can use."""

import pytest

from search.driver.cluster_address import ClusterAddress, cluster_address, host_and_port, with_port
from search.driver.placement import Placement
from search.options import Where
from tcpa_core.errors import ConfigError


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("option", "variable", "cluster"),
    [
        (None, None, None),
        (None, "", None),
        ("local", None, None),
        ("auto", None, ("auto", "--address")),
        ("node1:6379", None, ("node1:6379", "--address")),
        (None, "node1:6379", ("node1:6379", "RAY_ADDRESS")),
        ("auto", "node1:6379", ("node1:6379", "RAY_ADDRESS")),
        ("node2:6379", "node1:6379", ("node2:6379", "--address")),
        ("node2:6379", "ray://node1:10001", ("node2:6379", "--address")),
        ("local", "node1:6379", None),
        ("local", "http://node1:8265", None),
        (None, "auto", ("auto", "RAY_ADDRESS")),
        (None, "local", None),
        ("auto", "local", None),
    ],
)
def test_the_variable_counts_as_for_rays_own_tools(
    monkeypatch: pytest.MonkeyPatch,
    option: str | None,
    variable: str | None,
    cluster: tuple[str, str] | None,
) -> None:
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    found = cluster_address(option)
    assert found == (ClusterAddress(*cluster) if cluster else None)
    placed = Where(address=option).placement()
    assert placed.address == (cluster[0] if cluster else None)
    if cluster:
        assert placed.address_source == cluster[1]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5:6379", "10.0.0.5", 6379),
        ("node-1.cluster_a.example:1", "node-1.cluster_a.example", 1),
        ("[2001:db8::5]:65535", "2001:db8::5", 65535),
        ("[fe80::1%eth0]:6379", "fe80::1%eth0", 6379),
        ("localhost:6379", "localhost", 6379),
    ],
)
def test_host_and_port(text: str, host: str, port: int) -> None:
    assert host_and_port(text, "--address") == (host, port)
    assert with_port(host, port) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ray://node1:10001", "ray job submit --address http://node1:8265 -- tcpa search"),
        ("ray://[2001:db8::5]:10001", "http://[2001:db8::5]:8265 -- "),
        (
            "ray://node1:10001",
            "type HOST:PORT as 'ray start --head' prints it, for example node1:6",
        ),
        ("http://node1:8265", "is the address of a dashboard, not of a head"),
        ("https://u:pass1234@node1/", "ray job submit --address http://node1:8265"),
        ("grpc://node1:6379", "'grpc://node1:6379' is no address of a Ray head"),
        ("node1", "'node1' has no port; type node1:6379"),
        ("10.0.0.5", "'10.0.0.5' has no port; type 10.0.0.5:6379"),
        ("2001:db8::5", "'2001:db8::5' has no port; type [2001:db8::5]:6379"),
        ("::1", "type [::1]:6379"),
        ("[2001:db8::5]", "type [2001:db8::5]:6379"),
        ("node1:port", "'node1:port' is no address of a Ray head; possible are HOST:PORT"),
        ("node1:0", "no address of a Ray head"),
        ("node1:65536", "no address of a Ray head"),
        ("node1:-1", "no address of a Ray head"),
        (":6379", "no address of a Ray head"),
        ("", "no address of a Ray head"),
        (" node1:6379", "no address of a Ray head"),
        ("node1:6379/", "no address of a Ray head"),
        ("AUTO", "'AUTO' has no port"),
    ],
)
@pytest.mark.parametrize("source", ["--address", "RAY_ADDRESS"])
def test_what_no_driver_can_use_is_refused_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, text: str, says: str, source: str
) -> None:
    if source == "RAY_ADDRESS":
        if not text:
            pytest.skip("an empty variable is none")
        monkeypatch.setenv("RAY_ADDRESS", text)
    with pytest.raises(ConfigError) as refused:
        Where(address=text if source == "--address" else None).placement()
    said = str(refused.value)
    assert said.startswith(f"{source}: ") and says in said and said.endswith(".")
    assert "pass1234" not in said


def test_the_plan_says_where_the_address_comes_from() -> None:
    def said(address: str | None, source: str = "--address") -> str:
        return Placement(address=address, address_source=source).cluster

    assert said("node1:6379", "RAY_ADDRESS") == "node1:6379 ($RAY_ADDRESS)"
    assert said("auto") == "the cluster of this machine (--address)"
    assert said(None) == "starts on this machine for this study"
