"""A small sweep of the fake setting, and its records as another sweep's are compared with them."""

from __future__ import annotations

from pathlib import Path

from selgen import record


def a_sweep(model_dir: Path, **changes) -> dict:
    return {
        "setting": "fake",
        "model": str(model_dir),
        "training": {
            "num_train_epochs": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-2,
            "logging_steps": 1,
        },
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
        "seeds": [1, 2],
        "curves": [{"method": "task_only", "epochs": [1, 3]}, {"method": "kl", "vary": {"beta": [0.1, 1]}}],
    } | changes


def comparable(out: Path) -> list[dict]:
    """All records apart from times."""
    found = [r.model_dump(mode="json", exclude={"train_seconds", "provenance"}) for r in record.read_all(out)]
    for data in found:
        for point in data["points"]:
            del point["eval_seconds"]
    return found
