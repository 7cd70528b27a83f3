"""The command line: commands and their options, derived from their settings; what they do is in ``rlprune.api``."""

import json
import math
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import MISSING, Field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any, get_args, get_type_hints

import click

from rlprune import registry
from rlprune._version import __version__
from rlprune.config.commands import COMMANDS
from rlprune.config.options import Paths, Settings
from rlprune.config.resolve import sections, spelled
from rlprune.errors import UserError, unknown

INTERRUPTED = 130  # 128 + SIGINT, as shells count
BUDGETS = """A budget is the fraction of the dense network that may be KEPT: 0.3 keeps at most 30 % of its MACs
(1 MAC = one multiply-accumulate) and removes at least 70 %. macs=0.3,params=0.4 bounds MACs and parameters at once.
latency=0.5 and latency=8ms are measured on this machine."""

ABOUT = {
    "train": (
        "Train a dense network, to have something to prune.",
        "rlprune train --model resnet20 --data cifar10 --download --out runs/dense",
        "rlprune train --model vgg16 --model-args width=0.25 --epochs 12 --lr 0.05",
    ),
    "search": (
        f"Let the agent decide how much of every layer to keep, prune, and fine-tune.\n\n{BUDGETS} A range such as "
        "0.2:0.8 trains one policy for all of it, which `rlprune replay` then lands on any budget.",
        "rlprune search --model vgg16 --budget 0.3",
        "rlprune search --model resnet20 --data cifar10 --checkpoint dense.safetensors --budget macs=0.3,params=0.4",
        "rlprune search --model vgg16 --budget 0.2:0.8 --out runs/any",
        "rlprune search --model resnet20,vgg16 --budget 0.2:0.8 --evaluations 600 --out runs/both",
        "rlprune search --model vgg16 --budget latency=0.5 --backend onnxruntime --threads 1 --round-to auto",
        "rlprune search --config search.yaml --seed 1 --json",
    ),
    "compare": (
        f"Let search methods compete: one evaluator, one budget, one number of evaluations for all.\n\n{BUDGETS}",
        "rlprune compare --model vgg16 --budget 0.3",
        "rlprune compare --model resnet20 --data cifar10 --checkpoint dense.safetensors --budget 0.3 "
        "--methods ppo,cma-es,uniform --seeds 5",
    ),
    "prune": (
        "Remove channels for real: by a plan as it stands, or by a table of ratios.",
        "rlprune prune --plan runs/vgg16 --checkpoint other.safetensors",
        "rlprune prune --ratios ratios.csv --model vgg16 --checkpoint dense.safetensors --budget 0.3",
    ),
    "finetune": (
        "Train a pruned network further, to bring its accuracy back.",
        "rlprune finetune runs/vgg16 --epochs 20",
        "rlprune finetune pruned/ --data folder:photos --lr 0.01",
    ),
    "eval": (
        "Measure the accuracy on the test images, and the cost.",
        "rlprune eval runs/vgg16",
        "rlprune eval --model resnet20 --checkpoint dense.safetensors --data cifar10 --json",
    ),
    "replay": (
        "Apply the policy of a finished search to another checkpoint, budget, data set or network, without searching "
        "again.\n\nNo plan is evaluated unless --evaluations allows it. The policy folder holds all that the policy "
        "needs to know of the network that it was trained on, and can be taken anywhere.",
        "rlprune replay runs/any --budget 0.45 --finetune-epochs 6",
        "rlprune replay runs/vgg16/policy --checkpoint other.safetensors --finetune-epochs 6",
        "rlprune replay runs/vgg16 --model vgg11 --checkpoint vgg11.safetensors --evaluations 20",
    ),
    "export": (
        "Write the table of kept channels and ratios of every layer, or the pruned network as onnx.\n\n"
        "torch-pruning takes the names as modules: "
        "pruning_ratio=0.0, pruning_ratio_dict={network.get_submodule(name): ratio for name, ratio in "
        "json.load(file).items()}. nni is the config list of a pruner of NNI 3. amc is the list of its --ratios, which "
        "wants a 1 in front for the image.",
        "rlprune export runs/vgg16",
        "rlprune export runs/vgg16 --format latex --out ratios.tex",
        "rlprune export runs/vgg16 --format torch-pruning --out ratios.json",
        "rlprune export runs/vgg16 --format onnx --int8",
    ),
    "bench": (
        "Measure how long a forward pass takes, dense beside pruned, in a process of its own.",
        "rlprune bench runs/vgg16",
        "rlprune bench runs/vgg16 --backend torch,compile,onnxruntime --batch 1,64 --threads 1",
        "rlprune bench --model torchvision/resnet18 --backend onnxruntime",
    ),
    "report": (
        "Write a page to look at: what stays of every layer, the search, accuracy and MACs, what the policy reacted to."
        "\n\nOne file without any other, to be opened from disk; several runs stand side by side on one page.",
        "rlprune report runs/vgg16",
        "rlprune report runs/vgg16-0.3 runs/vgg16-0.5 --out side-by-side.html --figures",
    ),
    "methods": (
        "List the methods that can be named: criteria, allocators, agents, with their settings, papers and examples."
        "\n\nSettings follow a name after a colon: --criterion taylor:order=2. Other packages add methods by entry "
        "points.",
        "rlprune methods",
        "rlprune methods criterion --json",
    ),
    "inspect": (
        "Show what can be pruned in a network: groups of channels that go together and why, MACs, parameters, traps.",
        "rlprune inspect --model torchvision/mobilenet_v3_small",
        "rlprune inspect --model timm/resnet18 --data imagenet --round-to 8",
    ),
}


class Failure(click.ClickException):
    """A mistake of the user: the message alone, on the standard error stream."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"rlprune: error: {self.message}", file=file or sys.stderr)


class CommandLine(click.Command):
    """A command whose options are listed under the titles of their sections."""

    def __init__(self, name: str, settings: type[Settings]) -> None:
        about, *examples = ABOUT[name]
        types = get_type_hints(settings)
        self.sections = {
            title: [_parameter(entry, types[entry.name]) for entry in entries]
            for title, entries in sections(settings).items()
        }
        self.sections["General"] = [
            click.Option(["--config"], type=click.Path(), metavar="FILE", help="YAML file of settings; options win."),
            click.Option(["--json", "as_json"], is_flag=True, help="Print the result as one JSON object."),
        ]
        super().__init__(
            name,
            params=[parameter for parameters in self.sections.values() for parameter in parameters],
            callback=partial(_run, name),
            help=about,
            short_help=about.partition("\n")[0],
            epilog="\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples),
        )
        self.sections["General"].append(click.Option(["--help"], is_flag=True, help="Show this message and exit."))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, parameters in self.sections.items():
            with formatter.section(title):
                records = [
                    item.told if isinstance(item, Positional) else item.get_help_record(ctx) for item in parameters
                ]
                formatter.write_dl([record for record in records if record])


class Positional(click.Argument):
    """An argument that is listed in ``--help`` among the options of its section."""

    def __init__(self, name: str, metavar: str, told: str, many: bool) -> None:
        super().__init__([name], required=False, metavar=metavar, nargs=-1 if many else 1)
        self.told = (metavar, told)


class CommandGroup(click.Group):
    """The group of all commands, in the order of their use, each built only when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return CommandLine(name, COMMANDS[name]) if name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise Failure(str(unknown("command", args[0], COMMANDS)))
        return super().resolve_command(ctx, args)


def _parameter(entry: Field[Any], kind: Any) -> click.Parameter:
    """The option or argument of a field; it takes any text, for the checks are those of ``rlprune.config.resolve``."""
    about, choices, flag = entry.metadata["help"], _choices(entry), spelled(entry)
    default = entry.metadata["unset"] if entry.default is None else "no" if entry.default is False else entry.default
    told = f"{about}: {', '.join(choices)}" if choices else about
    told += "  [required]" if entry.default is MISSING else f"  [default: {default}]"
    if entry.metadata["positional"]:
        return Positional(entry.name, flag, told, many=kind == Paths)
    if bool in (kind, *get_args(kind)):
        return click.Option([f"{flag}/--no-{flag[2:]}", entry.name], default=None, help=told)
    return click.Option([flag, entry.name], metavar="NAME" if choices else _metavar(kind), help=told)


def _choices(entry: Field[Any]) -> tuple[str, ...]:
    """The values that a field takes: methods by their names, and others."""
    kind = entry.metadata["method"]
    return (*(registry.names(kind) if kind else ()), *entry.metadata["choices"])


def _metavar(kind: Any) -> str:
    """What to write, by the first type a field takes that is more telling than text."""
    text = str(kind)
    names = {
        "Path": "PATH",
        "tuple": "R,G,B",
        "Sides": "N|HxW",
        "str": "TEXT",
        "int": "N",
        "float": "X",
        "Literal": "N",
    }
    return next(name for part, name in names.items() if part in text)


def _run(command: str, config: str | None, as_json: bool, **_: Any) -> None:
    """Call the function of the same name in ``rlprune.api`` with what was given explicitly, and print its result."""
    context = click.get_current_context()
    explicit = click.core.ParameterSource.COMMANDLINE
    given = {name: context.params[name] for name in context.params if context.get_parameter_source(name) is explicit}
    settings = {name: value for name, value in given.items() if name not in ("config", "as_json")}
    if config is not None:
        settings["config"] = Path(config)
    try:
        result = _call(command, settings)
    except UserError as error:
        raise Failure(str(error)) from None
    except KeyboardInterrupt as interrupt:
        click.echo(f"rlprune: {': '.join(['interrupted', *map(str, interrupt.args)])}", err=True)
        context.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps(_plain(result), allow_nan=False))
    elif command == "export" and "text" in result:
        click.echo(result["text"].removesuffix("\n"))
    else:
        _show(command, result)


def _call(command: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    # Loaded here, for it brings torch with it. Libraries print as they like; standard output is for the result alone.
    with redirect_stdout(sys.stderr):
        from rlprune.utils.progress_display import make_progress

        with make_progress(sys.stderr) as progress:
            function = getattr(import_module("rlprune.api"), command)
            return function(progress=progress, **settings)


def _show(command: str, result: Mapping[str, Any]) -> None:
    from rich.console import Console

    import_module("rlprune.cli.output").show(command, result, Console())


def _plain(value: Any) -> Any:
    """The same value in what JSON has: NumPy's and torch's numbers become plain ones, what is not finite null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


@click.group(
    cls=CommandGroup,
    subcommand_metavar="COMMAND ...",
    context_settings={"max_content_width": 120},
    help=f"Prune the channels of a trained PyTorch network with a reinforcement-learning agent.\n\n{BUDGETS}",
    epilog="""\b
Examples:
  rlprune inspect --model resnet20
  rlprune search --model vgg16 --budget 0.3 --out runs/vgg16
  rlprune eval runs/vgg16

`rlprune COMMAND --help` tells the settings and more examples of a command.""",
)
@click.version_option(__version__, message="rlprune %(version)s")
def main() -> None:
    """The entry point of the console script."""
