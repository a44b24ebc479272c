"""Dockerfile and compose.yaml, read and with their commands parsed: Docker itself is not needed."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.cli import cli as mlflow
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from sqlalchemy.engine import make_url

from tests.search.shell import check_shell

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile and their arguments, lines joined and comments left out."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", "")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, rest) for name, rest in found]


def given(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def stages() -> list[str]:
    """The instructions of each stage."""
    text = "\n".join(f"{name} {rest}" for name, rest in instructions())
    return re.split(r"^FROM ", text, flags=re.M)[1:]


def test_the_dockerfile_knows_only_instructions_of_docker() -> None:
    known = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions()} <= known  # and no HEALTHCHECK: pods have their own
    assert instructions()[0] == ("ARG", "PYTHON=3.11")
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11.0")


def test_the_image_is_built_in_one_stage_and_runs_in_another() -> None:
    build, run = stages()
    assert build.split("\n")[0].endswith(" AS build")
    assert "pip" not in run and "COPY --from=build /opt/tcpa /opt/tcpa" in run
    assert run.count("\nUSER ") == 1 and "\nUSER 1000:1000\n" in run  # a number: pods can check it
    assert run.index("useradd --uid 1000") < run.index("\nUSER ")
    for name in ("ENTRYPOINT", "CMD"):
        (command,) = (json.loads(words) for words in given(name))
        assert command[0] in ("tini", "tcpa")  # the exec form: signals reach the command
    assert not re.search(r"PASSWORD|TOKEN|SECRET|_KEY", (ROOT / "Dockerfile").read_text())


def test_shell_lines_of_the_image_are_clean() -> None:
    for line in given("RUN"):
        check_shell(
            f"#!/bin/sh\n# shellcheck disable=SC2016\nexport DEVICE=x CPU_INDEX=x\n{line}\n"
        )


def test_what_the_image_installs_is_what_the_project_needs() -> None:
    pip = [line for run in given("RUN") for line in re.findall(r"pip install ([^;&]*)", run)]
    words = [word for line in pip for word in shlex.split(line) if not word.startswith("-")]
    ours = [word for word in words if word.startswith(".")]
    assert ours == [".[cmaes]"] and "cmaes" in EXTRAS
    others = {Requirement(word) for word in words if word not in (*ours, "$CPU_INDEX")}
    known = [Requirement(one) for one in (*PROJECT["dependencies"], *EXTRAS["test"])]
    bounds = {one.name: one.specifier for one in known}
    for one in others:
        assert one.name in bounds and one.specifier in (bounds[one.name], SpecifierSet())
    assert {one.name for one in others} == {"torch", "torchvision", "ray", "psycopg"}
    # The job server that KubeRay submits to.
    assert next(one for one in others if one.name == "ray").extras == {"default"}


def test_what_is_copied_is_there_and_nothing_else_reaches_the_build() -> None:
    sources = [word for line in given("COPY") if "--from" not in line
               for word in shlex.split(line)[:-1]]  # fmt: skip
    assert all((ROOT / name).exists() for name in sources)
    rules = [r for r in (ROOT / ".dockerignore").read_text().splitlines() if r and r[0] != "#"]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(sources)
    packages = ["reports", "search", "spaces", "tcpa_core"]
    assert set(sources) == {"pyproject.toml", "README.md", "LICENSE", *packages}
    assert all(any(fnmatch(f"{p}/__pycache__", rule) for rule in rules) for p in packages)


def test_passwords_of_the_server_come_from_the_environment() -> None:
    for name, service in compose()["services"].items():
        for key, value in service["environment"].items():
            if "PASSWORD" in key:
                assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?[^}]+\}", value), name
    text = (ROOT / "compose.yaml").read_text()
    assert all(make_url(uri).password is None for uri in re.findall(r"postgresql\+\S+", text))


def test_the_server_is_reached_from_this_machine_only() -> None:
    services = compose()["services"]
    ports = [port for one in services.values() for port in one.get("ports", ())]
    assert ports == ["127.0.0.1:5000:5000"]
    assert services["mlflow"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["database"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    named = {v.partition(":")[0] for one in services.values() for v in one["volumes"]}
    assert named == set(compose()["volumes"])
    build = services["mlflow"]["build"]["args"]
    assert set(build) <= {line.partition("=")[0] for line in given("ARG")}


def test_mlflow_takes_the_command_of_its_server() -> None:
    program, verb, *words = compose()["services"]["mlflow"]["command"]
    assert program == "mlflow"
    options = mlflow.commands[verb].make_context(verb, list(words)).params  # refuses what is none
    assert (options["host"], options["port"], options["serve_artifacts"]) == ("0.0.0.0", 5000, True)
    database = make_url(options["backend_store_uri"])
    assert (database.drivername, database.host) == ("postgresql+psycopg", "database")
    made = compose()["services"]["database"]["environment"]
    assert database.username == made["POSTGRES_USER"] and database.database == made["POSTGRES_DB"]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", ".dockerignore"])
def test_lines_are_short_and_end(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text.endswith("\n") and "\t" not in text
    assert max(map(len, text.splitlines())) <= 100
