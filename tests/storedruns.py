"""Results of runs that were never trained: what training and evaluation would leave."""

import json

import yaml

from fqvae.runs import to_flat

# What the stand-ins measure; all of them at version 1.
NAMES = (
    *("disentanglement", "completeness", "informativeness", "infom", "infoc", "infoc_corrected", "infoe"),
    *("mig", "sap", "total_correlation", "straight_through_gap", "mse"),
)


def leave(folder, job, values, *, rows=100, options=None, factors=("hue", "size")):
    """Write the files of a trained and evaluated run. values: of measures by name; the others are 0.5."""
    folder.mkdir(parents=True, exist_ok=True)
    config = to_flat(job.config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    table = [f"{row},{1 / (row + 1)!r}" for row in range(rows)]
    (folder / "metrics.csv").write_text("step,loss\n" + "\n".join(table) + "\n")
    latents = config["model.latent.size"]
    content = {
        "format": 2,
        "versions": {},
        "model": config["model.name"],
        "config": config,
        "checkpoint": {"file": "last.ckpt", "sha256": "", "step": config["steps"]},
        "data": {
            "name": config["data.name"],
            "size": 32,
            "factor_names": list(factors),
            "factor_sizes": [4] * len(factors),
            "grid": True,
            "available": 48000,
        },
        "options": {
            "train": 10000,
            "test": 5000,
            "seed": 0,
            "classifier": "boosting",
            "order": "rank",
            "protocol": "held-out",
            **(options or {}),
        },
        "measures": {name: {"value": float(values.get(name, 0.5)), "version": 1} for name in NAMES},
        "tables": {
            "nmi": {"value": [[0.25] * latents for _ in factors], "version": 1},
            "codes_used": {"value": [2] * latents, "version": 1},
        },
        "cautions": {},
        "seconds": {"encoding": 1.0},
    }
    (folder / "metrics.json").write_text(json.dumps(content))
