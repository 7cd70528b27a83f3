"""What a search returns, as its readers meet it."""

from typing import Any

RESULT: dict[str, Any] = {
    "run": "runs/r",
    "plan": "runs/r/plan.json",
    "model": "vgg16",
    "data": "cifar10",
    "budget": "macs=0.3",
    "budget_words": "keep ≤ 30 % of the MACs (remove ≥ 70 %)",
    "macs_ratio": 0.29968,
    "params_ratio": 0.124,
    "dense_macs": 19_700_000,
    "pruned_macs": 5_903_696,
    "dense_params": 923_000,
    "pruned_params": 114_452,
    "dense_accuracy": 0.8312,
    "oneshot_accuracy": 0.382,
    "finetuned_accuracy": 0.7984,
    "evaluations": 300,
    "seconds": 252.4,
    "table": [],
}
