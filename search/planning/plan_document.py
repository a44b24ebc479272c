"""What `tcpa plan --json` prints; docs/watching.md has the keys."""

from typing import Any

from search.planning.plan import Plan
from search.planning.sizes import MethodSize
from search.study.address import below, database_of
from search.tracking.secrets import without_secrets
from search.verbs.documents import SCHEMA
from spaces.wording import changed_settings, searched

Json = dict[str, Any]


def plan_document(plan: Plan) -> Json:
    """A plan as plain values."""
    space, found, found_before = plan.space, plan.estimate, plan.reusable
    return {
        "schema": SCHEMA,
        "study": plan.name,
        "folder": str(plan.root / plan.name),
        "storage": below(plan.storage, plan.name) if plan.storage else None,
        "tracking_uri": without_secrets(plan.tracking_uri) or str(database_of(plan.root)),
        "kind": "ablation" if space.ablation else "search",
        "trials": plan.num_trials,
        "points": plan.num_points,
        "most_epochs": plan.most_epochs,
        "seeds": list(space.seeds),
        "races_seeds": space.races_seeds or bool(space.ablation and space.ablation.races),
        "objective": [one.model_dump() for one in space.objective],
        "budget": space.budget.model_dump(),
        "sampler": None if space.ablation else space.sampler.model_dump(),
        "scheduler": None if space.ablation else space.scheduler.model_dump(exclude_none=True),
        "searched": [
            {
                "path": one.path,
                "text": one.text,
                "when": one.when or None,
                "axis": space.axes[one.path].as_dict() if one.path in space.axes else None,
            }
            for one in searched(space)
        ],
        "base": dict(space.base),
        "changed": changed_settings(space.base),
        "data": [
            {
                "name": summary.name,
                "fingerprint": summary.fingerprint,
                "classes": len(summary.class_names),
                "images": summary.sizes,
                "pictures": plan.pictures[config],
                "settings": config.model_dump(mode="json"),
            }
            for config, summary in plan.data.items()
        ],
        "undecoded_images": plan.undecoded.images,
        "weights": plan.fingerprints["weights"],
        "backbones": list(plan.networks),
        "preprocessing": [{"backbone": n, **one.as_dict()} for n, one in plan.preprocessing],
        "methods": [_method(one) for one in plan.methods],
        "cost": {
            "text": plan.cost,
            "device_s": found and found.seconds,
            "device_s_low": found and found.low,
            "device_s_high": found and found.high,
        },
        "reused": found_before
        and {
            "trials": found_before.num_trials,
            "studies": dict(found_before.studies),
            "device_s": found_before.device_s,
            "gpu_s": found_before.gpu_s,
        },
        "deviations": list(plan.deviations),
        "warnings": list(plan.warnings),
    }


def _method(one: MethodSize) -> Json:
    return {
        "methods": list(one.methods),
        "backbone": one.backbone,
        "backbone_parameters": one.backbone_parameters,
        "trainable_low": one.trainable[0],
        "trainable_high": one.trainable[1],
        "batch_size": one.batch_size,
        "memory_bytes": {precision: one.bytes_in(precision) for precision in ("bf16", "fp32")},
    }
