"""The settings of every command: which options it has, and what they may be together."""

# ruff: noqa: RUF009  (`setting` makes a dataclass field, which is what a default may call)

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rlprune import registry
from rlprune.config.options import (
    BACKENDS,
    BUDGET,
    CHANNELS,
    CHECKPOINT,
    CRITERION,
    DATA,
    DISTILL,
    FOLDER,
    IMAGE_SIZE,
    KNOWN,
    MODEL,
    MODEL_ARGS,
    REPAIR,
    UNIT,
    USUAL_REPAIR,
    BothTrainings,
    Channels,
    Data,
    Device,
    ModelArgs,
    Network,
    NewNetwork,
    Paths,
    Pruning,
    Recovery,
    Rounding,
    Run,
    RunData,
    Settings,
    Sides,
    Structure,
    Timing,
    Training,
    setting,
)
from rlprune.config.units import CHANNEL, check_unit
from rlprune.errors import UserError, unknown
from rlprune.utils.criteria import DEFAULT, check_one_rule, parse_criteria
from rlprune.utils.shapes import LARGEST_SIDE
from rlprune.utils.text import seconds

TABLES = ("csv", "json", "md", "latex", "parquet", "html", "torch-pruning", "nni", "amc")
RECURRENT = "recurrent-ppo"
MODES = ("static", "runtime")
CONTROLS = ("fbs", "rnp")
USUAL_METHODS = "uniform,global-l1,sensitivity,additive-dp,random,evolution,cma-es,ppo"
"""That a comparison is of."""
CHANNELS_ALONE = "channels"
"""What agents have always decided."""
BLOCKS_TOO = "channels,blocks"
DECIDE = "what agents decide: channels, or channels,blocks, where residual blocks may be taken out whole"
DECIDE_UNSET = "channels, under a bound on the latency channels,blocks"
CRITERIA = "criteria"
"""The decision that comes with several criteria."""
SEVERAL = f"{CRITERION}, of several as in l1,taylor agents choose"


def decisions_in(text: str, criterion: str) -> list[str]:
    """The decisions that settings name, one by one; channels go without saying, and so does a choice of criteria."""
    found, criteria = dict.fromkeys([CHANNELS_ALONE, *registry.split(text)]), parse_criteria(criterion)
    if criteria.several:
        found[f"{CRITERIA}:number={len(criteria.names)}"] = None
    return list(found)


def check_decide(text: str | None) -> None:
    """Raise UserError unless a `--decide` names decisions that it may switch on."""
    check_each("--decide", text or CHANNELS_ALONE, "decision")
    if any(name.partition(":")[0] == CRITERIA for name in registry.split(text or "")):
        raise UserError(f"--decide {text}: to let the agent choose criteria name several, as in --criterion l1,taylor")


def usual_decisions(budget: str | float | None) -> str:
    """What agents decide where nobody says: under a latency thin blocks cost time and do little work."""
    return BLOCKS_TOO if "latency" in str(budget) else CHANNELS_ALONE


def check_each(option: str, text: str, kind: str) -> None:
    """Raise UserError unless there are all methods of a kind that an option names, and it names each once."""
    names = registry.split(text)
    for number, name in enumerate(names):
        registry.check(kind, name)
        if name in names[:number]:
            raise UserError(f"{option} {text} names {name} twice: give it once")


def check_repair(text: str) -> None:
    """Raise UserError unless there are all repairs that an option names, and it names each once."""
    names = registry.split(text)
    if not names:
        raise UserError(f"--repair is empty: expected some of {', '.join(registry.names('recovery'))}")
    for number, name in enumerate(names):
        registry.check("recovery", name, "repair")
        kind = name.partition(":")[0]
        if kind in (other.partition(":")[0] for other in names[:number]):
            raise UserError(f"--repair {text} names {kind} twice: give it once")


def _decides(name: str) -> bool:
    """Whether an allocator takes other decisions than channels; those of other packages may not say."""
    return bool(getattr(registry.find("allocator", name.partition(":")[0]), "decides", False))


@dataclass(frozen=True, kw_only=True)
class Train(Training, Run, Data, NewNetwork):
    """Settings of ``train``."""

    out: Path | None = setting(None, help="file for the weights", unset="MODEL-DATA.safetensors")
    snapshots: int | None = setting(
        None,
        help="how often the weights on the way are written, evenly spaced, to a folder beside that file, for the "
        "criteria kmp and kgp",
        unset="never",
        minimum=3,
    )

    def __post_init__(self) -> None:
        if self.snapshots is not None and self.epochs == 0:
            raise UserError(f"--snapshots {self.snapshots}: there is nothing on the way of --epochs 0")


@dataclass(frozen=True, kw_only=True)
class Search(BothTrainings, Timing, Pruning, Run, Data, NewNetwork):
    """Settings of ``search``."""

    title: ClassVar[str] = "Search"
    model: str = setting(help=f"{MODEL}; several, as in resnet20,vgg16, train one policy for all of them")
    model_args: ModelArgs | str | None = setting(
        None, help=f"{MODEL_ARGS}; with several networks 'width=0.25;width=0.5'", unset="none"
    )
    checkpoint: Path | None = setting(
        None, help=f"{CHECKPOINT}; with several networks one each, as in a.pt,b.pt", unset="it is trained first"
    )
    budget: str | float | None = setting(
        None,
        help=f"{BUDGET}, or a range such as 0.2:0.8 for one policy that serves all of it",
        unset="none; needed for the reward 'loss'",
    )
    agent: str = setting(
        "ppo",
        help=f"the agent that walks the network; {RECURRENT}, which remembers, is for --mode runtime",
        choices=(RECURRENT,),
        method="agent",
    )
    reward: str = setting(
        "loss", help="loss, under the budget, or balance:macs=A,params=B, where the agent decides how much goes"
    )
    decide: str | None = setting(None, help=DECIDE, unset=DECIDE_UNSET)
    repair: str = setting(USUAL_REPAIR, help=REPAIR)
    evaluations: int = setting(300, help="plans that are scored on the search images", minimum=1)
    criterion: str = setting(DEFAULT, help=SEVERAL + KNOWN, method="criterion", check=parse_criteria)
    tunings: int | None = setting(
        None,
        help="plans that are fine-tuned briefly, and half as many for longer: the search is for what that leaves",
        unset="what --time allows, without it none",
        minimum=4,
    )
    time: str | None = setting(
        None, help="how long the search may take before the final fine-tuning, such as 10m or 1.5h", unset="no limit"
    )
    mode: str = setting("static", help="one plan for all images, or at run time a plan for each of them", choices=MODES)
    mix: str = setting(
        "0.5",
        help="with --mode runtime: from 0, the storage shrinks as much as the work, to 1, every channel stays to be "
        "chosen from; several with commas make a table",
    )
    controls: str | None = setting(
        None, help=f"with --mode runtime, compared with: {', '.join(CONTROLS)}", unset="nothing"
    )
    rounds: int = setting(4, help="with --mode runtime: how often agents and network take turns", minimum=1)
    rollouts: int = setting(40, help="with --mode runtime: batches that an agent learns from in its turn", minimum=1)
    out: Path | None = setting(
        None,
        help="folder of the results",
        unset="runs/MODEL-DATA-BUDGET-AGENT-SEED, the same command continues it",
    )

    def __post_init__(self) -> None:
        self.check_schedule()
        check_repair(self.repair)
        if self.mode == "runtime":
            self._check_runtime()
        elif self.agent == RECURRENT:
            raise UserError(
                f"--agent {RECURRENT} is for --mode runtime: take one of {', '.join(registry.names('agent'))}"
            )
        check_decide(self.decide)
        kind = self.reward.partition(":")[0]
        if kind not in ("loss", "balance"):
            raise unknown("reward", self.reward, ("loss", "balance:macs=A,params=B"))
        if self.budget is None and kind == "loss":
            raise UserError("--budget is missing: say what may be kept, such as 0.3 for 30 % of the MACs")
        if self.time is not None:
            seconds(self.time)
        if self.tunes and isinstance(self.budget, str) and ":" in self.budget:
            raise UserError(f"--budget {self.budget} is a range: --tunings and --time work under a single budget")
        if self.tunes and "," in self.model:
            raise UserError(f"--model {self.model} are several networks: --tunings and --time work for a single one")
        check_unit(self)

    def _check_runtime(self) -> None:
        """What runtime pruning leaves no room for."""
        if "," in self.model:
            raise UserError(f"--model {self.model}: --mode runtime works for a single network")
        check_one_rule(self.criterion)
        reward = None if self.reward == "loss" else self.reward
        decide = None if self.decide == CHANNELS_ALONE else self.decide
        repair = None if self.repair == USUAL_REPAIR else self.repair
        given = {"--tunings": self.tunings, "--time": self.time, "--reward": reward, "--decide": decide}
        given["--repair"] = repair
        for name, value in given.items():
            if value is not None:
                raise UserError(f"{name} {value} is for --mode static")
        if self.agent not in ("ppo", RECURRENT):
            raise UserError(f"--agent {self.agent}: with --mode runtime agents are ppo, or {RECURRENT}")
        for name in self.compared:
            if name not in CONTROLS:
                raise unknown("control", name, CONTROLS)
        if not self.mixes:
            raise UserError(f"--mix {self.mix}: expected numbers from 0 to 1 such as 0.5 or 0,0.5,1")

    @property
    def tunes(self) -> bool:
        """Whether plans are fine-tuned on the way."""
        return self.tunings is not None or self.time is not None

    @property
    def decisions(self) -> list[str]:
        """What the agent decides, one by one."""
        return decisions_in(self.usual_decide if self.decide is None else self.decide, self.criterion)

    @property
    def usual_decide(self) -> str:
        """What it decides where nobody says."""
        return usual_decisions(self.budget) if self.mode == "static" else CHANNELS_ALONE

    @property
    def mixes(self) -> list[float]:
        """The mixes one by one; none where they cannot be read."""
        try:
            found = [float(part) for part in self.mix.split(",")]
        except ValueError:
            return []
        return found if all(0 <= part <= 1 for part in found) and len(set(found)) == len(found) else []

    @property
    def compared(self) -> list[str]:
        """The controls one by one."""
        return [name.strip() for name in (self.controls or "").split(",") if name.strip()]


@dataclass(frozen=True, kw_only=True)
class Compare(BothTrainings, Timing, Pruning, Run, Data, NewNetwork):
    """Settings of ``compare``."""

    title: ClassVar[str] = "Comparison"
    checkpoint: Path | None = setting(None, help=CHECKPOINT, unset="it is trained first")
    budget: str | float = setting(help=BUDGET)
    methods: str | None = setting(
        None, help="allocators that take part, see `rlprune methods allocator`", unset=USUAL_METHODS
    )
    criteria: str | None = setting(
        None, help="every method with every one of these criteria, such as l1,taylor", unset="--criterion alone"
    )
    seeds: int = setting(3, help="runs of every method, from --seed upwards", minimum=1)
    criterion: str = setting(
        DEFAULT,
        help=f"{SEVERAL}, other methods take the first{KNOWN}",
        method="criterion",
        check=parse_criteria,
    )
    decide: str | None = setting(None, help=f"{DECIDE}; other methods decide channels alone", unset=DECIDE_UNSET)
    repair: str = setting(USUAL_REPAIR, help=REPAIR)
    evaluations: int = setting(300, help="plans that a run may score on the search images", minimum=1)
    finetune_epochs: int = setting(0, help="epochs of every final network", minimum=0)
    out: Path | None = setting(
        None, help="folder of the results", unset="runs/compare-MODEL-DATA-BUDGET, the same command continues it"
    )

    def __post_init__(self) -> None:
        self.check_schedule()
        check_repair(self.repair)
        check_decide(self.decide)
        check_each("--methods", self.methods or USUAL_METHODS, "allocator")
        if self.criteria is not None:
            check_each("--criteria", self.criteria, "criterion")
            if self.criterion != type(self).criterion:
                raise UserError(f"--criterion {self.criterion} and --criteria {self.criteria}: give one of them")
        if self.seed + self.seeds > 2**32:
            raise UserError(f"--seed {self.seed} and {self.seeds} runs go beyond the largest seed, {2**32 - 1}")
        if self.decide and registry.split(self.decide) != [CHANNELS_ALONE] and not self.agents:
            raise UserError(f"--decide {self.decide} is for agents, and --methods {self.methods} has none: add ppo")
        if parse_criteria(self.criterion).several and not self.agents:
            raise UserError(
                f"--criterion {self.criterion}: agents choose among several, and --methods {self.methods} has none: "
                "add ppo, or name one criterion"
            )
        check_unit(self)

    @property
    def names(self) -> list[str]:
        """The methods one by one."""
        return registry.split(self.methods or USUAL_METHODS)

    @property
    def grid(self) -> list[str]:
        """The criteria that every method is combined with, one by one; none where --criterion goes without saying."""
        return registry.split(self.criteria or "")

    @property
    def agents(self) -> list[str]:
        """Those of them that take other decisions than channels, too."""
        return [name for name in self.names if _decides(name)]

    @property
    def decisions(self) -> list[str]:
        """What agents decide, one by one."""
        return decisions_in(self.usual_decide if self.decide is None else self.decide, self.criterion)

    @property
    def usual_decide(self) -> str:
        """What they decide where nobody says."""
        return usual_decisions(self.budget) if self.agents else CHANNELS_ALONE


@dataclass(frozen=True, kw_only=True)
class Prune(Timing, Pruning, Run, RunData, Network):
    """Settings of ``prune``."""

    title: ClassVar[str] = "Plan"
    plan: Path | None = setting(None, help="plan.json, a run folder or a pruned folder", unset="--ratios")
    ratios: Path | None = setting(
        None, help="table of ratios (csv, json or parquet), maybe edited: keep_ratio counts, not kept", unset="--plan"
    )
    budget: str | float | None = setting(
        None, help="land the ratios on what may be KEPT, such as macs=0.3 or latency=8ms", unset="taken as they are"
    )
    repair: str | None = setting(None, help=REPAIR, unset="that of the plan")

    def __post_init__(self) -> None:
        if self.plan is None and self.ratios is None:
            raise UserError("--plan is missing: name plan.json or a run folder, or a table of ratios with --ratios")
        check_one_rule(self.criterion)
        if self.plan is not None and self.ratios is not None:
            raise UserError(f"--plan {self.plan} and --ratios {self.ratios} are two plans: give one of them")
        if self.repair is not None:
            check_repair(self.repair)
        if self.plan is not None and self.unit != CHANNEL:
            raise UserError(f"--unit {self.unit}: {self.plan} says itself what goes, leave it out")
        check_unit(self)


@dataclass(frozen=True, kw_only=True)
class Finetune(Training, Recovery, Run, RunData):
    """Settings of ``finetune``."""

    title: ClassVar[str] = "Source"
    source: Path = setting(help=FOLDER, positional="RUN_OR_PRUNED")
    teacher: Path | None = setting(None, help=f"{CHECKPOINT}, to learn from its outputs, too", unset="none")


@dataclass(frozen=True, kw_only=True)
class Eval(Device, RunData, Network):
    """Settings of ``eval``."""

    title: ClassVar[str] = "Source"
    source: Path | None = setting(None, help=FOLDER, unset="--model with --checkpoint", positional="RUN_OR_PRUNED")

    def __post_init__(self) -> None:
        if self.source is not None and (self.model or self.checkpoint):
            raise UserError(f"expected either {FOLDER}, or --model and --checkpoint, and not both")
        if self.source is None and self.model is None:
            raise UserError(f"RUN_OR_PRUNED is missing: name {FOLDER}, or --model and --checkpoint")


@dataclass(frozen=True, kw_only=True)
class Replay(BothTrainings, Timing, Structure, Run, RunData, Network):
    """Settings of ``replay``."""

    title: ClassVar[str] = "Replay"
    source: Path = setting(help="a run folder or its policy folder, wherever it is now", positional="RUN_OR_POLICY")
    budget: str | float | None = setting(None, help=BUDGET, unset="the run's")
    evaluations: int = setting(0, help="plans that may be scored on the search images, to refine", minimum=0)
    criterion: str | None = setting(
        None, help=CRITERION + KNOWN, unset="the run's", method="criterion", check=parse_criteria
    )
    repair: str | None = setting(None, help=REPAIR, unset="the run's")
    seed: int | None = setting(  # type: ignore[assignment]
        None, help="of everything random", unset="the run's", minimum=0, maximum=2**32 - 1
    )
    checkpoint: Path | None = setting(None, help=CHECKPOINT, unset="the run's; that of another network is trained")
    finetune_epochs: int = setting(0, help="epochs of the pruned network", minimum=0)
    distill: bool | None = setting(None, help=DISTILL, unset="as in the run")

    def __post_init__(self) -> None:
        self.check_schedule()
        if self.repair is not None:
            check_repair(self.repair)


@dataclass(frozen=True, kw_only=True)
class Export(Settings):
    """Settings of ``export``."""

    title: ClassVar[str] = "Export"
    source: Path = setting(help="a run folder or plan.json", positional="RUN_OR_PLAN")
    format: str = setting(
        "csv",
        help="form of the table, the ratios as another tool takes them, or the pruned network without rlprune",
        choices=(*TABLES, "torch-export", "python", "onnx"),
    )
    int8: bool = setting(False, help="with onnx: also an 8-bit file, quantised on the calibration images")
    out: Path | None = setting(
        None, help="file to write, with python a folder", unset="standard output, with a network the pruned folder"
    )

    def __post_init__(self) -> None:
        if self.int8 and self.format != "onnx":
            raise UserError(f"--int8 is for --format onnx, not {self.format}")
        if self.format == "parquet" and self.out is None:
            raise UserError("--out is missing: parquet is binary, name a file such as --out ratios.parquet")


@dataclass(frozen=True, kw_only=True)
class Report(Settings):
    """Settings of ``report``."""

    title: ClassVar[str] = "Report"
    runs: Paths = setting(help="run folders, finished or not; several stand side by side", positional="RUN...")
    out: Path | None = setting(
        None, help="page to write", unset="report.html in the run folder, for several runs in the current one"
    )
    figures: bool = setting(False, help="also write every chart as PNG and SVG to figures/ beside the page")


@dataclass(frozen=True, kw_only=True)
class Bench(Device):
    """Settings of ``bench``."""

    title: ClassVar[str] = "Latency"
    source: Path | None = setting(
        None, help=f"{FOLDER}, timed beside its dense network", unset="--model alone", positional="RUN_OR_PRUNED"
    )
    model: str | None = setting(None, help=MODEL, unset="that of the run")
    model_args: ModelArgs | str | None = setting(None, help=MODEL_ARGS, unset="none")
    image_size: int | Sides | None = setting(
        None, help=f"with --model: {IMAGE_SIZE}", unset="224 for torchvision and timm, else 32", minimum=1,
        maximum=LARGEST_SIDE,
    )  # fmt: skip
    channels: Channels | None = setting(None, help=f"with --model: {CHANNELS}", unset="3")
    backend: str | None = setting(
        None,
        help=f"what runs the network, with commas: {', '.join(BACKENDS)}",
        unset="torch, and onnxruntime where it is installed",
    )
    batch: str = setting("1", help="images at once, with commas: 1,64")
    threads: int | None = setting(None, help="threads of a CPU", unset="as many as torch takes", minimum=1)

    def __post_init__(self) -> None:
        if (self.source is None) == (self.model is None):
            raise UserError(f"expected either {FOLDER}, or --model, and not both")
        for name in self.backends:
            if name not in BACKENDS:
                raise unknown("backend", name, BACKENDS)
        if not self.batches or min(self.batches) < 1:
            raise UserError(f"--batch {self.batch}: expected numbers of images such as 1,64")

    @property
    def backends(self) -> list[str]:
        """The backends one by one; none where it is left open."""
        return [name.strip() for name in (self.backend or "").split(",") if name.strip()]

    @property
    def batches(self) -> list[int]:
        """The numbers of images one by one; 0 for what is none."""
        parts = [part.strip() for part in self.batch.split(",") if part.strip()]
        return [int(part) if part.isdecimal() else 0 for part in parts]


@dataclass(frozen=True, kw_only=True)
class Inspect(Rounding, Device, Data, NewNetwork):
    """Settings of ``inspect``."""

    data: str | None = setting(  # type: ignore[assignment]
        None, help=DATA, unset="no images are read; torchvision and timm networks have 1000 classes, others 10"
    )
    image_size: int | Sides | None = setting(
        None, help=IMAGE_SIZE, unset="the data set's; without one 224 for torchvision and timm, else 32",
        minimum=1, maximum=LARGEST_SIDE,
    )  # fmt: skip
    unit: str = setting("channel", help=UNIT, method="unit")

    def __post_init__(self) -> None:
        if self.round_to == "auto":
            raise UserError("--round-to auto is measured by search, compare and prune; name a number here")


@dataclass(frozen=True, kw_only=True)
class Methods(Settings):
    """Settings of ``methods``."""

    title: ClassVar[str] = "Methods"
    kind: str | None = setting(
        None, help="only these", unset="all kinds", choices=tuple(registry.KINDS), positional="KIND"
    )


COMMANDS: dict[str, type[Settings]] = {
    "train": Train,
    "search": Search,
    "compare": Compare,
    "prune": Prune,
    "finetune": Finetune,
    "eval": Eval,
    "replay": Replay,
    "export": Export,
    "report": Report,
    "bench": Bench,
    "inspect": Inspect,
    "methods": Methods,
}
SECTIONS = (
    "Source", "Plan", "Network", "Search", "Comparison", "Replay", "Pruning", "Latency", "Training", "Data", "Run",
    "Export", "Report", "Methods",
)  # fmt: skip
