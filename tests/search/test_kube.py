"""`tcpa kube`: manifests that Kubernetes takes, and the script that runs on the head."""

import os
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from search.clusters.kube import FILES, SPACE_FILE, VOLUME, RayJob, job_name
from spaces.load import load_space
from tcpa_core.errors import ConfigError
from tests.search.rayjob_schema import CONFIG_MAP, RAY_JOB
from tests.search.shell import check_shell

ASKED = ["--image", "registry.example:5000/me/tcpa:cuda", "--workers", "4"]
CLAIM = ["--volume-claim", "studies"]


def printed(
    typed: Callable[..., tuple[int, str, str]],
    *words: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the RayJob that a command prints; both are valid and belong together."""
    code, text, said = typed("kube", *words)
    assert code == 0, said
    files, job = yaml.safe_load_all(text)
    jsonschema.validate(files, CONFIG_MAP)
    jsonschema.validate(job, RAY_JOB)
    assert job["metadata"] == files["metadata"]
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], workers):
        (container,) = group["template"]["spec"]["containers"]
        volumes = [one["name"] for one in group["template"]["spec"]["volumes"]]
        assert [one["name"] for one in container["volumeMounts"]] == volumes
        assert len(set(volumes)) == len(volumes)
    assert container["image"] == ASKED[1] == _containers(job)[0]["image"]
    check_shell(files["data"]["run.sh"])
    return files, job


def _containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return list(chain.from_iterable(one["template"]["spec"]["containers"] for one in groups))


def _volumes(group: dict[str, Any]) -> dict[str, Any]:
    spec = group["template"]["spec"]
    paths = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    return {paths[one["name"]]: one for one in spec["volumes"]}


def test_a_job_of_gpus_has_what_a_study_needs(typed: Any) -> None:
    words = ["--gpus-per-worker", "2", "--namespace", "research", "--secret", "keys"]
    files, job = printed(typed, "quickstart", *ASKED, *CLAIM, *words, "--study", "mine")
    assert job["metadata"] == {"name": "tcpa-mine", "namespace": "research"}
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert spec["entrypoint"] == f"bash {FILES}/run.sh"  # nothing that a second shell reads
    assert spec["backoffLimit"] == 2 and spec["shutdownAfterJobFinishes"]
    assert cluster["rayVersion"] == version("ray") and cluster["authOptions"] == {"mode": "token"}
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert {workers[n] for n in ("replicas", "minReplicas", "maxReplicas")} == {4}
    main, worker = _containers(job)
    assert "nvidia.com/gpu" not in main["resources"]["limits"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert all(one["envFrom"] == [{"secretRef": {"name": "keys"}}] for one in (main, worker))
    for group in (head, workers):
        volumes = _volumes(group)
        assert volumes[VOLUME]["persistentVolumeClaim"] == {"claimName": "studies"}
        assert volumes["/dev/shm"]["emptyDir"]["medium"] == "Memory"
        (cache,) = (one["value"] for one in main["env"] if one["name"] == "TCPA_CACHE")
        assert volumes[cache]["emptyDir"] == {}
    assert _volumes(head)[FILES]["configMap"] == {"name": "tcpa-mine"}
    assert (
        f"  tcpa search {SPACE_FILE} --resume --study=mine --root={VOLUME}/studies "
        "--address=auto --device=cuda --workers=8\n"
    ) in files["data"]["run.sh"]


def test_the_space_of_the_job_is_the_one_that_was_given(typed: Any, tmp_path: Path) -> None:
    words = ["--set", "optim.weight_decay=1e-9", "--set", "budget.trials=7"]
    files, _ = printed(typed, "quickstart", *ASKED, *CLAIM, *words)
    (tmp_path / "space.yaml").write_text(files["data"]["space.yaml"])
    given = load_space("quickstart", {"optim.weight_decay": 1e-9, "budget.trials": 7})
    assert load_space(str(tmp_path / "space.yaml")).as_dict() == given.as_dict()


def test_files_that_pods_hardly_have_are_named(typed: Any) -> None:
    words = ("kube", "quickstart", *ASKED, *CLAIM, "--set", "data.name=folder", "--set")
    assert (
        "data.root is '/home/me/x', which the pods have only"
        in typed(*words, "data.root=/home/me/x")[2]
    )
    assert typed(*words, f"data.root={VOLUME}/data")[2] == ""


def test_without_gpus_and_volume_a_storage_keeps_the_study(typed: Any) -> None:
    words = ["--gpus-per-worker", "0", "--storage", "s3://bucket/my studies"]
    files, job = printed(typed, "quickstart", *ASKED, *words, "--ray-version", "2.51.0")
    cluster = job["spec"]["rayClusterSpec"]
    assert "authOptions" not in cluster  # that Ray knows no tokens
    assert _volumes(cluster["headGroupSpec"])[VOLUME]["emptyDir"] == {}
    assert "'--storage=s3://bucket/my studies' --device=cpu\n" in files["data"]["run.sh"]


@pytest.mark.parametrize(
    "study", ["a", "a_b", "a-b", "_", "9" * 64, "x" * 41 + "_" * 6, "a__", "-a"]
)
def test_names_are_ones_that_kuberay_takes_and_tell_studies_apart(study: str) -> None:
    name = job_name(study)
    jsonschema.validate(name, CONFIG_MAP["properties"]["metadata"]["properties"]["name"])
    assert name not in {job_name(other) for other in ("a_a", "a-a", "x" * 41 + "_" * 7, "__")}


WRONG = {
    "nothing keeps the study": ([], "--volume-claim: the study would be lost"),
    "no image": ([*CLAIM, "--image", "My Image"], "--image must be"),
    "a line in the image": ([*CLAIM, "--image", "a\nb"], "--image must be"),
    "a namespace": ([*CLAIM, "--namespace", "Research"], "--namespace must be"),
    "a claim": (["--volume-claim", "a/b"], "--volume-claim must be"),
    "a memory": ([*CLAIM, "--memory", "much"], "--memory must be"),
    "a version": ([*CLAIM, "--ray-version", "2"], "--ray-version must be"),
    "a root elsewhere": ([*CLAIM, "--root", "/home/me"], f"mounted at {VOLUME}"),
    "a root above": ([*CLAIM, "--root", "../x"], f"mounted at {VOLUME}"),
    "the other kind": ([*CLAIM, "--verb", "ablate"], "is a search"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_prints_no_manifest(case: str, typed: Any) -> None:
    words, expected = WRONG[case]
    code, text, said = typed("kube", "quickstart", *ASKED, *words)
    assert (code, text) == (2, "") and expected in said, said


def test_values_are_checked_wherever_a_job_is_made() -> None:
    with pytest.raises(ConfigError, match="--image must be as Kubernetes has it, got '\\\\n'"):
        RayJob(image="\n", workers=1, gpus_per_worker=0, ray_version="2.60.0")


TCPA = """#!/bin/bash
# Ends with the next of the codes.
read -r code rest < codes; echo "$rest" > codes; echo "$@" >> calls; exit $code
"""


@pytest.mark.parametrize(
    "codes, runs, last", [("0", 1, 0), ("1", 1, 1), ("2", 1, 2), ("3 3 0", 3, 0), ("3 1", 2, 1)]
)
def test_only_a_stopped_study_is_run_again(
    codes: str,
    runs: int,
    last: int,
    typed: Any,
    tmp_path: Path,
) -> None:
    files, _ = printed(typed, "quickstart", *ASKED, *CLAIM)
    done = run(files["data"]["run.sh"], tmp_path, codes)
    assert done.returncode == last, done.stderr
    assert len((tmp_path / "calls").read_text().splitlines()) == runs


def test_an_image_of_another_ray_is_refused(typed: Any, tmp_path: Path) -> None:
    files, _ = printed(typed, "quickstart", *ASKED, *CLAIM, "--ray-version", "2.99.0")
    done = run(files["data"]["run.sh"], tmp_path, "0")
    assert done.returncode == 2 and not (tmp_path / "calls").exists()
    assert f"the image has Ray {version('ray')}, the RayJob says 2.99.0" in done.stderr


def run(script: str, folder: Path, codes: str) -> subprocess.CompletedProcess[str]:
    """The script of a head, with a `tcpa` that only ends and pauses that take no time."""
    programs = {
        "tcpa": TCPA,
        "sleep": "#!/bin/sh\n",
        "python": f"""#!/bin/sh\necho {version("ray")}\n""",
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "codes").write_text(codes)
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["bash", "-c", script]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
