"""What KubeRay's RayJob (ray.io/v1) and Kubernetes take, as far as `tcpa kube` uses it.

Written from the documentation of their fields: types, what is required and what excludes what. No
further field is allowed, so that one which is added to the manifests is looked up first.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
PATH: Schema = {"type": "string", "pattern": "^/[^:]*$"}
LABEL: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
CLAIM: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"}
QUANTITY: Schema = {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?(m|[kMGT]i?)?$"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(required: str = "", **properties: Schema) -> Schema:
    """An object of these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def items(schema: Schema) -> Schema:
    """A list of at least one."""
    return {"type": "array", "items": schema, "minItems": 1}


QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
VOLUME: Schema = {
    **fields(
        "name",
        name=LABEL,
        persistentVolumeClaim=fields("claimName", claimName=CLAIM),
        configMap=fields("name", name=CLAIM),
        emptyDir=fields(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
    ),
    "minProperties": 2,
    "maxProperties": 2,  # a name and one source
}
CONTAINER = fields(
    "name image",
    name=LABEL,
    image=TEXT,
    env=items(fields("name value", name=TEXT, value={"type": "string"})),
    envFrom=items(fields("secretRef", secretRef=fields("name", name=CLAIM))),
    resources=fields(limits=QUANTITIES, requests=QUANTITIES),
    volumeMounts=items(fields("name mountPath", name=LABEL, mountPath=PATH)),
)
POD = fields(
    "spec",
    spec=fields(
        "containers",
        securityContext=fields(fsGroup=COUNT),
        containers=items(CONTAINER),
        volumes=items(VOLUME),
    ),
)
CLUSTER = fields(
    "headGroupSpec",
    rayVersion={"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+"},
    authOptions=fields(mode={"enum": ["disabled", "token"]}),
    headGroupSpec=fields("template", rayStartParams=TEXTS, template=POD),
    workerGroupSpecs=items(
        fields(
            "groupName maxReplicas minReplicas template",
            groupName=LABEL,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=POD,
        )
    ),
)
ABOUT = fields(
    "name",
    # KubeRay: a DNS-1035 label of 47 characters at most.
    name={"type": "string", "pattern": "^[a-z]([a-z0-9-]{0,45}[a-z0-9])?$"},
    namespace=LABEL,
)
RAY_JOB = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=ABOUT,
    spec=fields(
        "rayClusterSpec",
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
        backoffLimit=COUNT,
        shutdownAfterJobFinishes={"const": True},  # ttlSecondsAfterFinished needs it
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=CLUSTER,
    ),
)
CONFIG_MAP = fields(
    "apiVersion kind metadata",
    apiVersion={"const": "v1"},
    kind={"const": "ConfigMap"},
    metadata=ABOUT,
    data=TEXTS,
)
