"""A RayJob for KubeRay (ray.io/v1, KubeRay >= 1.5.1): manifests that run a study on Kubernetes.

KubeRay writes the entrypoint into a shell line of its own, so it is a plain one; what it does
stands in a ConfigMap, beside the space.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import join, quote
from typing import Any

import yaml

from tcpa_core.errors import ConfigError

VOLUME = "/mnt/tcpa"
"""Where every pod has the volume; studies lie in its folder studies."""
CACHE = "/var/cache/tcpa"
"""Decoded images and weights of a pod."""
FILES = "/etc/tcpa"
"""Where the head has the ConfigMap."""
SPACE_FILE = f"{FILES}/space.yaml"
_MAX_NAME = 47
"""KubeRay adds to the name of a RayJob and wants 53 characters at most for that of the cluster."""
_TOKENS_SINCE = (2, 52)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][\w.:/-]*(@sha256:[0-9a-f]{64})?", re.ASCII)
_QUANTITY = re.compile(r"[1-9]\d*(\.\d+)?[kMGT]i?", re.ASCII)
_VERSION = re.compile(r"\d+\.\d+\.\d+[\w.+-]*", re.ASCII)

_SCRIPT = """#!/bin/bash
set -u
found=$(python -c 'from importlib.metadata import version; print(version("ray"))')
if [ "$found" != {version} ]; then
  echo "error: the image has Ray $found, the RayJob says {version}; give --ray-version $found." >&2
  exit 2
fi
for ((stops = 0; stops < 10; stops++)); do
  {command}
  code=$?
  # 3: stopped, to be resumed. 1 and 2 are the same however often it runs.
  [ "$code" = 3 ] || exit "$code"
  echo "the study stopped; it goes on in 60 s" >&2
  sleep 60
done
exit 3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayJob:
    """What a job asks Kubernetes for.

    Raises:
        ConfigError: A value is none that Kubernetes takes.
    """

    image: str
    workers: int
    """Pods beside the head."""
    gpus_per_worker: int
    """Of a pod."""
    ray_version: str
    """Of the image."""
    cpus_per_worker: int = 8
    memory: str = "32Gi"
    """Of a worker, with its shared memory."""
    namespace: str = "default"
    volume_claim: str | None = None
    """ReadWriteMany; None: the studies lie in a storage."""
    secret: str | None = None
    """Its keys become environment variables, as those of a storage or MLflow."""
    retries: int = 2
    """Clusters that are started anew after the first was lost."""

    def __post_init__(self) -> None:
        for option, value, form, example in (
            ("--image", self.image, _IMAGE, "registry.example/tcpa:cuda"),
            ("--namespace", self.namespace, _LABEL, "research"),
            ("--volume-claim", self.volume_claim, _CLAIM, "tcpa-studies"),
            ("--secret", self.secret, _CLAIM, "tcpa-storage"),
            ("--memory", self.memory, _QUANTITY, "32Gi"),
            ("--ray-version", self.ray_version, _VERSION, "2.60.0"),
        ):
            if value is not None and not form.fullmatch(value):
                raise ConfigError(
                    f"{option} must be as Kubernetes has it, got {value!r}; for example {example}."
                )

    @property
    def has_tokens(self) -> bool:
        """Whether this Ray can ask for a token."""
        major, minor = self.ray_version.split(".")[:2]
        return (int(major), int(minor)) >= _TOKENS_SINCE


def manifests(job: RayJob, study: str, space: Mapping[str, Any], command: Sequence[str]) -> str:
    """The documents to apply: a ConfigMap, and the RayJob that mounts it.

    Args:
        space: As `Space.as_dict` gives it; becomes SPACE_FILE.
        command: What the head runs, with the address of the cluster.
    """
    name = job_name(study)
    data = {
        "run.sh": _SCRIPT.format(version=quote(job.ray_version), command=join(command)),
        "space.yaml": yaml.safe_dump(dict(space), sort_keys=False, allow_unicode=True),
    }
    about = {"name": name, "namespace": job.namespace}
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}
    ray_job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": dict(about),
        "spec": {
            "entrypoint": f"bash {FILES}/run.sh",
            "submissionMode": "K8sJobMode",
            "backoffLimit": job.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": _cluster(job, name),
        },
    }
    return "".join(_documents(study, job, files, ray_job))


def job_name(study: str) -> str:
    """The name of a study's job: a DNS label that begins with a letter, as KubeRay wants it."""
    name = f"tcpa-{re.sub('[^a-z0-9]+', '-', study).strip('-')}".rstrip("-")
    if name == f"tcpa-{study}" and len(name) <= _MAX_NAME:
        return name
    # Other studies may have the same letters.
    digest = hashlib.sha256(study.encode()).hexdigest()[:6]
    return f"{name[: _MAX_NAME - 7].rstrip('-')}-{digest}"


def _cluster(job: RayJob, name: str) -> dict[str, Any]:
    cluster: dict[str, Any] = {"rayVersion": job.ray_version}
    if job.has_tokens:
        cluster["authOptions"] = {"mode": "token"}
    head = {"cpu": "2", "memory": "8Gi"}
    worker = {"cpu": str(job.cpus_per_worker), "memory": job.memory}
    if job.gpus_per_worker:
        worker["nvidia.com/gpu"] = str(job.gpus_per_worker)
    cluster["headGroupSpec"] = {
        "rayStartParams": {"num-cpus": "0", "num-gpus": "0"},  # no trial is trained there
        "template": _pod(job, "ray-head", head, name),
    }
    cluster["workerGroupSpecs"] = [
        {
            "groupName": "workers",
            "replicas": job.workers,
            "minReplicas": job.workers,
            "maxReplicas": job.workers,
            "rayStartParams": {},  # KubeRay takes CPUs and GPUs from the limits
            "template": _pod(job, "ray-worker", worker, None),
        }
    ]
    return cluster


def _pod(
    job: RayJob, container: str, resources: Mapping[str, str], files: str | None
) -> dict[str, Any]:
    """A pod of the cluster.

    Args:
        files: ConfigMap that it mounts.
    """
    claim = {"persistentVolumeClaim": {"claimName": job.volume_claim}}
    volumes: dict[str, tuple[str, dict[str, Any]]] = {
        "studies": (VOLUME, claim if job.volume_claim else {"emptyDir": {}}),
        "cache": (CACHE, {"emptyDir": {}}),
        "shm": ("/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": resources["memory"]}}),
    }
    if files is not None:
        volumes["files"] = (FILES, {"configMap": {"name": files}})
    main: dict[str, Any] = {
        "name": container,
        "image": job.image,
        "env": [{"name": "TCPA_CACHE", "value": CACHE}, {"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"limits": dict(resources), "requests": dict(resources)},
        "volumeMounts": [{"name": n, "mountPath": path} for n, (path, _) in volumes.items()],
    }
    if job.secret:
        main["envFrom"] = [{"secretRef": {"name": job.secret}}]
    return {
        "spec": {
            "securityContext": {"fsGroup": 1000},  # the image's user may write the volume
            "containers": [main],
            "volumes": [{"name": n, **source} for n, (_, source) in volumes.items()],
        }
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _text)


def _documents(study: str, job: RayJob, *documents: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"# Study {study} on {job.workers} workers, for KubeRay 1.5.1 or later. The image's "
        "Ray has to be rayVersion.\n"
    )
    for document in documents:
        yield "---\n"
        yield yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
