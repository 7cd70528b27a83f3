"""The verbs of the command line as Python functions, with the same names and defaults.

Every function takes the settings of its verb as keywords (see `rlprune.config`), a YAML file of settings below them,
and somebody to tell how far it is; every one returns what ``--json`` prints.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlprune.agents.policy import load_policy, save_policy, walk_policy
from rlprune.agents.preparation import Prepared, make_evaluator, prepare
from rlprune.agents.search import search as run_search
from rlprune.allocators.uniform import uniform
from rlprune.budget import Lander, parse_budget
from rlprune.config import Eval, Export, Finetune, Inspect, Prune, Replay, Search, Train, as_dict, resolve
from rlprune.criteria import score_channels
from rlprune.envs.reward import parse_reward
from rlprune.envs.walk import Task
from rlprune.errors import UserError
from rlprune.evaluator import Evaluation
from rlprune.files import write_atomic, write_json
from rlprune.finetune import evaluate
from rlprune.finish import costs, count, described, prune_and_recover, save_plan, save_pruned
from rlprune.models.checkpoint import load_checkpoint, save_weights
from rlprune.plan import PruningPlan, check_same_groups, make_plan, ratio_table, read_ratios, top_mask
from rlprune.problem import DATA_SETTINGS, Problem, fit, open_problem, train_dense
from rlprune.progress import Progress
from rlprune.pruner import load, pruned_folder
from rlprune.report import export_table, write_run_report
from rlprune.run import RunFolder, default_folder, read_result


def train(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Train a dense network and write its weights as safetensors to `out`."""
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Train, settings, config)
    out = given.out or Path(f"{given.model.replace('/', '_').replace(':', '_')}-{given.data.partition(':')[0]}.safetensors")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file such as {out / 'model.safetensors'}")
    problem = open_problem(as_dict(given), progress)
    epochs = problem.data.train_epochs if given.epochs is None else given.epochs
    options = {"lr": given.lr, "batch_size": given.batch_size}
    state = out.with_suffix(".state")
    write_atomic(out.with_suffix(".probe"), lambda path: None)
    out.with_suffix(".probe").unlink()
    fit(problem.module, problem, epochs, options, given.seed, state, progress, "training")
    save_weights(problem.module, out)
    state.unlink(missing_ok=True)
    loss, accuracy = evaluate(problem.module, problem.data.test, device=problem.device)
    macs, params = problem.cost.dense
    return {
        "checkpoint": str(out),
        "test_accuracy": accuracy,
        "test_loss": loss,
        "macs": int(macs),
        "params": int(params),
        "epochs": epochs,
        "seconds": round(time.perf_counter() - start, 1),
    }


def search(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Search ratios with an agent, prune for real, fine-tune; continues an unfinished run of the same settings."""
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Search, settings, config)
    budget, (weights, balance) = parse_budget(given.budget), parse_reward(given.reward)
    folder = given.out or default_folder(given)
    if (folder / "result.json").is_file():
        run = RunFolder(folder, given)
        progress.note(f"{folder} is finished already; this is its result")
        return run.result()
    problem = open_problem(as_dict(given), progress)
    lander = Lander(problem.cost, budget, given.round_to, given.min_channels)
    needed = 3 + 3 * len(problem.graph.groups)
    if given.evaluations < needed:
        raise UserError(
            f"--evaluations {given.evaluations} is too few: {len(problem.graph.groups)} groups need {needed} before the "
            "agent takes its first step"
        )
    run = RunFolder(folder, given)
    if given.checkpoint is None:
        train_dense(problem, as_dict(given), given.train_epochs, progress)
    run.same_weights({"dense weights": problem.weights(), "images": problem.data.fingerprint})
    log = _Log(run, problem, given.evaluations, progress)
    evaluator = make_evaluator(problem, given.criterion, given.seed, log.seen, log.add)
    provenance = _provenance(given, problem) | {"run": folder.name}
    try:
        log.stage = "sensitivity"
        prepared = prepare(problem, lander, evaluator, weights, balance)
        log.stage, log.task = "search", prepared.task
        starts = (prepared.base,) if balance else (prepared.base, uniform(lander))
        found = run_search(
            prepared.task,
            prepared.sensitivity,
            lambda counts: evaluator(counts).loss,
            given.evaluations - 1 - 3 * len(problem.graph.groups),
            given.agent,
            given.seed,
            starts,
            folder / "tensorboard",
        )
    except KeyboardInterrupt:
        progress.close(finished=False)
        if log.best is not None:
            plan = make_plan(problem.graph, top_mask(problem.graph, log.best, evaluator.scores), problem.network, provenance)
            save_plan(problem, plan, folder)
        progress.note(f"stopped: what was found so far is in {folder}; the same command continues")
        raise
    save_policy(found.agent, given.agent, prepared.task, folder / "policy")
    plan = make_plan(problem.graph, top_mask(problem.graph, found.counts, evaluator.scores), problem.network, provenance)
    epochs = problem.data.finetune_epochs if given.finetune_epochs is None else given.finetune_epochs
    options = {"lr": given.lr, "batch_size": given.batch_size}
    after = prune_and_recover(problem, plan, folder, epochs, options, given.seed, progress)
    result = {
        "run": str(folder),
        "plan": str(folder / "plan.json"),
        "agent": given.agent,
        "evaluations": given.evaluations,
        "search_loss": found.loss,
        "base_loss": evaluator(prepared.base).loss,
        **described(budget, problem, time.perf_counter() - start),
        **after,
    }
    run.write_result(result)
    write_run_report(folder)
    return result


class _Log:
    """Takes every new evaluation to the run folder and to the screen."""

    def __init__(self, run: RunFolder, problem: Problem, total: int, progress: Progress) -> None:
        self.run, self.problem, self.progress = run, problem, progress
        self.stage = "sensitivity"
        self.task: Task | None = None
        self.seen = run.known()
        self.best: np.ndarray | None = None
        self.best_value = -np.inf
        self.start = time.perf_counter() - run.seconds()
        if self.seen:
            progress.note(f"continuing {run.path}: {len(self.seen)} evaluations are known")
        progress.stage("searching", total, len(self.seen))

    def add(self, counts: np.ndarray, evaluation: Evaluation) -> None:
        ratios = self.problem.cost.ratios(counts)
        value = -evaluation.loss if self.task is None else float(self.task.value(counts[None], np.array([evaluation.loss]))[0])
        if self.stage == "search" and value > self.best_value:
            self.best, self.best_value, self.best_loss = counts, value, evaluation.loss
        number = len(self.run.episodes) + 1
        self.run.log(
            {
                "evaluation": number,
                "stage": self.stage,
                "loss": repr(evaluation.loss),
                "accuracy": repr(evaluation.accuracy),
                "macs_ratio": f"{ratios[0]:.6f}",
                "params_ratio": f"{ratios[1]:.6f}",
                "best_loss": "" if self.best is None else f"{self.best_loss:.6f}",
                "seconds": f"{time.perf_counter() - self.start:.2f}",
                "counts": " ".join(str(int(kept)) for kept in counts),
            }
        )
        facts = {} if self.best is None else {"best_loss": f"{self.best_loss:.3f}"}
        self.progress.update(number, **facts, kept=f"{100 * ratios[0]:.1f} % MACs")


def prune(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Cut a dense checkpoint by a plan, a run's plan or a table of ratios; writes a pruned folder to `out`."""
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Prune, settings, config)
    source = given.plan / "plan.json" if given.plan.is_dir() else given.plan
    known = _read_plan(source)
    wanted = as_dict(given) | _network_settings(known, given)
    if wanted["checkpoint"] is None:
        raise UserError("--checkpoint is missing: name the file with the dense network's weights")
    problem = open_problem(wanted, progress)
    lander = Lander(problem.cost, parse_budget(given.budget), given.round_to, given.min_channels)
    if known is not None and given.budget is None:
        plan = PruningPlan(known.kept, known.channels, problem.network, known.provenance)
    else:
        ratios = read_ratios(source) if known is None else dict(zip(known.kept, known.counts() / list(known.channels.values()), strict=True))
        sizes = {group.name: group.channels for group in problem.graph.groups}
        check_same_groups({name: sizes.get(name, 0) for name in ratios}, problem.graph, "the table")
        wished = np.array([ratios[group.name] * group.channels for group in problem.graph.groups])
        rounded = lander.quantise(np.floor(wished + 0.5))
        counts = lander.land(wished[None])[0] if given.budget is not None else rounded
        scores = score_channels(given.criterion, problem.module, problem.graph, problem.calibration(), given.seed)
        plan = make_plan(problem.graph, top_mask(problem.graph, counts, scores), problem.network, _provenance(given, problem))
    mask = plan.mask(problem.graph)
    out = _new_folder(given.out or Path(f"{Path(given.plan).stem}-pruned"))
    from rlprune.evaluator import recalibrate
    from rlprune.pruner import prune as cut

    smaller = cut(problem.module, problem.graph, mask)
    recalibrate(smaller, problem.calibration()[0])
    save_pruned(smaller, plan, out)
    table = ratio_table(problem.graph, problem.cost, plan.counts())
    return {
        "pruned": str(out),
        "plan": str(out / "plan.json"),
        **described(parse_budget(given.budget), problem, time.perf_counter() - start),
        **costs(problem, plan.counts()),
        "table": table.to_dict("records"),
    }


def finetune(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Train a pruned network further; writes a pruned folder to `out`, or in place of the one it came from."""
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Finetune, settings, config)
    folder = pruned_folder(given.source)
    plan = PruningPlan.load(folder / "plan.json")
    problem = open_problem(_with_plan(as_dict(given), plan), progress)
    module = load(folder, problem.device)
    epochs = problem.data.finetune_epochs if given.epochs is None else given.epochs
    _, before = evaluate(module, problem.data.test, device=problem.device)
    out = folder if given.out is None else _new_folder(given.out)
    state = out / "finetune.state"
    fit(module, problem, epochs, {"lr": given.lr, "batch_size": given.batch_size}, given.seed, state, progress, "fine-tuning")
    save_pruned(module, plan, out)
    state.unlink(missing_ok=True)
    _, after = evaluate(module, problem.data.test, device=problem.device)
    seconds = round(time.perf_counter() - start, 1)
    return {"pruned": str(out), "before": before, "after": after, "epochs": epochs, "seconds": seconds}


def eval(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Accuracy on the test images, MACs and parameters of a run, a pruned folder or a dense checkpoint."""
    progress = progress or Progress()
    given = resolve(Eval, settings, config)
    if given.source is None:
        if given.checkpoint is None:
            raise UserError("--checkpoint is missing: name the file with the weights of the network to evaluate")
        problem = open_problem(as_dict(given) | {"data": given.data or "digits"}, progress)
        module, what = problem.module, str(given.checkpoint)
    else:
        folder = pruned_folder(given.source)
        problem = open_problem(_with_plan(as_dict(given), PruningPlan.load(folder / "plan.json")) | {"checkpoint": None}, progress)
        module, what = load(folder, problem.device), str(folder)
    progress.stage("evaluating on the test images")
    loss, accuracy = evaluate(module, problem.data.test, device=problem.device)
    macs, params = count(module, problem.data.image_size, problem.device)
    dense = problem.cost.dense
    pruned = given.source is not None
    return {
        "what": what,
        "test_accuracy": accuracy,
        "test_loss": loss,
        "macs": macs,
        "params": params,
        "macs_ratio": macs / dense[0] if pruned else None,
        "params_ratio": params / dense[1] if pruned else None,
    }


def replay(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Walk a run's policy on another checkpoint or budget: no search, only the sensitivities are measured."""
    start, progress = time.perf_counter(), progress or Progress()
    given = resolve(Replay, settings, config)
    run = resolve(Search, {}, given.source / "config.yaml")
    merged = as_dict(run) | {key: value for key, value in as_dict(given).items() if value is not None}
    merged |= {"out": None, "seed": given.seed}
    budget, (weights, balance) = parse_budget(merged["budget"]), parse_reward(run.reward)
    out = _new_folder(given.out or given.source / f"replay-{budget}")
    problem = open_problem(merged, progress)
    lander = Lander(problem.cost, budget, run.round_to, run.min_channels)
    if merged["checkpoint"] is None:
        train_dense(problem, merged, run.train_epochs, progress)
    needed = 2 + 3 * len(problem.graph.groups)
    progress.stage("measuring sensitivities", needed)
    seen: dict[tuple[int, ...], Evaluation] = {}
    evaluator = make_evaluator(problem, merged["criterion"], given.seed, seen, lambda *_: progress.update(len(seen)))
    prepared = prepare(problem, lander, evaluator, weights, balance)
    counts = _walked(given.source, prepared)
    settings_there = Search(**{**vars(run), "budget": merged["budget"], "criterion": merged["criterion"]})
    provenance = _provenance(settings_there, problem) | {"policy": str(given.source)}
    plan = make_plan(problem.graph, top_mask(problem.graph, counts, evaluator.scores), problem.network, provenance)
    options = {"lr": run.lr, "batch_size": run.batch_size}
    after = prune_and_recover(problem, plan, out, given.finetune_epochs, options, given.seed, progress)
    result = {
        "run": str(out),
        "plan": str(out / "plan.json"),
        "agent": run.agent,
        "evaluations": len(seen),
        "search_loss": evaluator(counts).loss,
        "base_loss": evaluator(prepared.base).loss,
        **described(budget, problem, time.perf_counter() - start),
        **after,
    }
    write_json(out / "result.json", {"format": "rlprune-run", "version": 1, **result})
    return result


def export(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """The ratio table of a run or a plan in another form."""
    given = resolve(Export, settings, config)
    if given.source.is_dir() and (given.source / "ratios.csv").is_file():
        table = pd.read_csv(given.source / "ratios.csv")
    else:
        path = given.source / "plan.json" if given.source.is_dir() else given.source
        plan = PruningPlan.load(path)
        channels = np.array(list(plan.channels.values()))
        counts = plan.counts()
        columns = {"group": list(plan.kept), "channels": channels, "kept": counts, "keep_ratio": np.round(counts / channels, 6)}
        table = pd.DataFrame(columns)
    text = export_table(table, given.format)
    if given.out is None:
        return {"text": text}
    data = text.encode() if isinstance(text, str) else text
    write_atomic(given.out, lambda path: path.write_bytes(data))
    return {"path": str(given.out)}


def inspect(*, config: Path | None = None, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Groups, what is coupled, each one's share of MACs and parameters, and the smallest feasible budget."""
    given = resolve(Inspect, settings, config)
    problem = open_problem(as_dict(given), progress or Progress())
    graph, cost = problem.graph, problem.cost
    lander = Lander(cost, parse_budget(None), given.round_to, given.min_channels)
    alone = np.tile(graph.sizes, (len(graph.groups), 1))
    np.fill_diagonal(alone, lander.minimum)
    shares = 1 - cost.ratios(alone)
    smallest = cost.ratios(lander.minimum)
    groups = [
        {
            "group": group.name,
            "channels": group.channels,
            "producers": list(group.producers),
            "consumers": list(group.consumers),
            "macs_share": float(share[0]),
            "params_share": float(share[1]),
        }
        for group, share in zip(graph.groups, shares, strict=True)
    ]
    return {
        "model": given.model,
        "image_size": problem.data.image_size,
        "macs": int(cost.dense[0]),
        "params": int(cost.dense[1]),
        "groups": groups,
        "refused": graph.refused,
        "smallest_macs": float(smallest[0]),
        "smallest_params": float(smallest[1]),
    }


def _walked(run: Path, prepared: Prepared) -> np.ndarray:
    return walk_policy(load_policy(run / "policy", prepared.task), prepared.task)


def _read_plan(path: Path) -> PruningPlan | None:
    """The plan in a file, or None where the file is a table of ratios."""
    if not path.is_file():
        raise UserError(f"--plan {path} does not exist: expected plan.json, a run folder or a table of ratios")
    if path.suffix != ".json" or path.read_text(encoding="utf-8", errors="replace").lstrip().startswith("["):
        return None
    return PruningPlan.load(path)


def _network_settings(plan: PruningPlan | None, given: Prune) -> dict[str, Any]:
    """Model and data of a plan wherever the settings leave them open."""
    if plan is None or given.model is not None:
        if given.model is None:
            raise UserError("--model is missing: a table of ratios does not say which network it is for")
        return {}
    there = _with_plan({}, plan)
    return {key: there[key] for key in ("model", "model_args")} | {
        key: value for key, value in there.items() if key in DATA_SETTINGS and given.data == "digits"
    }


def _with_plan(settings: dict[str, Any], plan: PruningPlan) -> dict[str, Any]:
    """Settings completed by what the plan knows of its network and its images."""
    there = dict(plan.provenance.get("data_settings", {}))
    given = {key: value for key, value in settings.items() if value not in (None, False)}
    if given.get("data") not in (None, there.get("data")):
        there = {"image_size": plan.network["image_size"]}
    network = {"model": plan.network["model"], "model_args": plan.network["args"]}
    return settings | there | network | {key: value for key, value in given.items() if key not in network}


def _provenance(given: Any, problem: Problem) -> dict[str, Any]:
    """What a plan remembers of where it comes from."""
    settings = as_dict(given)
    data = {key: settings[key] for key in (*DATA_SETTINGS, "seed") if settings.get(key) not in (None, False)}
    return {
        "budget": str(settings.get("budget")),
        "criterion": settings.get("criterion"),
        "seed": settings.get("seed"),
        "dense_weights": problem.weights(),
        "data_settings": data,
    }


def _new_folder(path: Path) -> Path:
    """A folder to write to, refused where something else is there."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not empty: choose another --out")
    path.mkdir(parents=True, exist_ok=True)
    return path
