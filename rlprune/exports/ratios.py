"""The ratio table as text for people and for other tools."""

import io
import json
from typing import Any

import pandas as pd

from rlprune.errors import UserError, unknown

STYLE = "body{font:1rem system-ui;margin:2rem}table{border-collapse:collapse}th,td{padding:.3rem .8rem;text-align:left}"


def page(table: pd.DataFrame) -> str:
    """A page with nothing but the table, which needs no other file."""
    # Long lists of layers would end in dots.
    with pd.option_context("display.max_colwidth", None):
        body = table.to_html(index=False, escape=True, border=1)
    head = f'<meta charset="utf-8"><title>Ratios</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def torch_pruning(table: pd.DataFrame) -> str:
    """Layer -> fraction removed, as JSON. Names become the modules of torch-pruning's `pruning_ratio_dict` by

        {network.get_submodule(name): ratio for name, ratio in json.load(file).items()}

    beside `pruning_ratio=0.0` for all other layers.
    """
    kept, channels = _by_layer(_without_blocks(table, "torch-pruning"))
    return _json({layer: _removed(kept[layer], channels[layer]) for layer in kept})


def nni(table: pd.DataFrame) -> str:
    """The config list of a pruner of NNI 3, as JSON: one entry a group, whose layers lose the same channels.

    NNI 3 calls the fraction removed `sparse_ratio`, where NNI 2 called it `sparsity_per_layer`.
    """
    entries: list[dict[str, Any]] = []
    for row, layers in zip(_without_blocks(table, "nni").to_dict("records"), _layers(table), strict=True):
        tied = {"dependency_group_id": row["group"]} if len(layers) > 1 else {}
        ratio = 1 - row["kept"] / row["channels"]
        entries.append({"op_names": layers, "sparse_ratio": round(ratio, 6), "granularity": "out_channel", **tied})
    return _json(entries)


def amc(table: pd.DataFrame) -> str:
    """The keep ratio of every group in order, with commas, as `--ratios` of AMC's release (He et al., 2018) has them.

    AMC lists the layers by their inputs: where its first layer reads the image, it wants a 1 in front.
    """
    table = _without_blocks(table, "amc")
    return ",".join(f"{ratio:.6g}" for ratio in table["kept"] / table["channels"]) + "\n"


def _by_layer(table: pd.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """Kept and all channels of every layer; one whose channels are in several groups has the sums."""
    kept: dict[str, int] = {}
    channels: dict[str, int] = {}
    for row, layers in zip(table.to_dict("records"), _layers(table), strict=True):
        for layer in layers:
            kept[layer] = kept.get(layer, 0) + int(row["kept"])
            channels[layer] = channels.get(layer, 0) + int(row["channels"])
    return kept, channels


def _without_blocks(table: pd.DataFrame, tool: str) -> pd.DataFrame:
    """The same table; UserError where a group keeps nothing, for other tools know of no block that goes whole."""
    if gone := table["group"][table["kept"] == 0].tolist():
        raise UserError(
            f"the plan takes out the residual block of '{gone[0]}', which ratios for {tool} cannot say: export the "
            "network itself, with --format onnx, torch-export or python"
        )
    return table


def _layers(table: pd.DataFrame) -> list[list[str]]:
    if "layers" not in table.columns:
        raise UserError(
            "this run or plan is older than the list of each group's layers: make it anew with "
            "`rlprune prune --plan RUN_OR_PLAN` and export that"
        )
    return [str(cell).split() for cell in table["layers"]]


def _removed(kept: int, channels: int) -> float:
    """torch-pruning rounds down what stays: a hair less where that would lose a channel."""
    ratio = (channels - kept) / channels
    return ratio if int(channels * (1 - ratio)) == kept else ratio - 1e-9


def _json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


ELSEWHERE = {"html": page, "torch-pruning": torch_pruning, "nni": nni, "amc": amc}
FORMATS = ("csv", "json", "latex", "md", "parquet", *ELSEWHERE)


def export_table(table: pd.DataFrame, format: str) -> str | bytes:
    """A table as text for a file or the screen; parquet as bytes.

    Args:
        table: any table for the first six formats, a ratio table for the others; its index is left out.
        format: csv, json (a list of records), latex (booktabs), md, parquet, html, torch-pruning, nni or amc.

    Raises:
        UserError: no such format, pyarrow is missing for parquet, or the layers that another tool asks for.
    """
    if format == "csv":
        return table.to_csv(index=False, lineterminator="\n")
    if format == "json":
        return table.to_json(orient="records", indent=2, double_precision=15) + "\n"
    if format == "latex":
        return table.to_latex(index=False, escape=True, float_format="%.3f")
    if format == "md":
        # A group may be named "0.10": numbers are read from number columns only.
        names = [i for i, dtype in enumerate(table.dtypes) if not pd.api.types.is_numeric_dtype(dtype)]
        return str(table.to_markdown(index=False, disable_numparse=names)) + "\n"
    if format == "parquet":
        return _parquet(table)
    if format in ELSEWHERE:
        return ELSEWHERE[format](table)
    raise unknown("format", format, FORMATS)


def _parquet(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    try:
        table.to_parquet(stream, engine="pyarrow", index=False)
    except ImportError:
        raise UserError("writing parquet needs pyarrow: pip install 'rlprune[parquet]'") from None
    return stream.getvalue()
