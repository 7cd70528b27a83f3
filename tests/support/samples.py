"""What a search returns and leaves behind, as its readers meet it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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


def write_run(folder: Path, *, groups: int = 3, probes: int = 4, plans: int = 8, seed: int = 0) -> Path:
    """A run folder as a search leaves it, without the network; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    channels, names = 16 * 2 ** rng.integers(0, 4, groups), [f"layer{place}.conv" for place in range(groups)]
    counts = np.maximum((channels * rng.uniform(0.1, 1, (probes + plans, groups))).astype(int), 1)
    losses = np.round(rng.uniform(1, 3, probes + plans), 6)
    best = np.minimum.accumulate(losses[probes:])
    searched = np.arange(probes + plans) >= probes
    episodes = pd.DataFrame(
        {
            "evaluation": np.arange(1, len(losses) + 1),
            "stage": np.where(searched, "search", "sensitivity"),
            "loss": losses,
            "accuracy": np.round(1 - losses / 4, 4),
            "macs_ratio": np.round(np.where(searched, 0.3, rng.uniform(0.7, 1, len(losses))), 6),
            "params_ratio": np.round(rng.uniform(0.2, 0.5, len(losses)), 6),
            "best_loss": [None] * probes + best.tolist(),
            "seconds": np.arange(1, len(losses) + 1) / 2,
            "counts": [" ".join(map(str, row)) for row in counts],
        }
    )
    kept = counts[int(np.argmin(np.where(searched, losses, np.inf)))]
    macs = 1000 * channels**2
    table = pd.DataFrame({"group": names, "tied": 0, "channels": channels, "kept": kept, "keep_ratio": kept / channels})
    table = table.assign(macs_saved_alone=0.1, params_saved_alone=0.2, macs_before=macs, macs_after=macs * 3 // 10)
    table = table.assign(params_before=macs // 100, params_after=macs // 300, layers=names)
    seen = pd.DataFrame({"observation": [f"static_q{q}" for q in range(40)] + ["budget_macs"], "change": 0.0})
    seen["change"] = np.sort(rng.uniform(0, 0.1, len(seen)))[::-1].round(6)
    epochs = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.0, 0.5, 0.4], "accuracy": [0.5, 0.7, 0.75], "lr": 0.01})
    tables = {"episodes.csv": episodes, "ratios.csv": table, "reactions.csv": seen, "finetune.csv": epochs}
    for name, frame in tables.items():
        frame.to_csv(folder / name, index=False)
    result = RESULT | {
        "run": str(folder),
        "search_loss": losses[probes:].min(initial=9.0),
        "base_loss": losses[min(probes, len(losses) - 1)],
    }
    (folder / "result.json").write_text(json.dumps({"format": "rlprune-run", "version": 1, **result}))
    (folder / "config.yaml").write_text(f"version: 1\nmodel: vgg16\nbudget: 0.3\nreward: loss\nseed: {seed}\n")
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "torch": "2.9.0"}))
    (folder / "command.txt").write_text(f"rlprune search --model vgg16 --seed {seed}\n")
    return folder
