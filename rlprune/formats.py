"""The ratio table as text for people and for other tools."""

import io

import pandas as pd

from rlprune import exchange
from rlprune.errors import UserError, unknown

ELSEWHERE = {
    "html": exchange.page,
    "torch-pruning": exchange.torch_pruning,
    "nni": exchange.nni,
    "amc": exchange.amc,
}
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
