"""Arguments of a network as people write them: names and values in one line of text."""

import json
from collections.abc import Iterator, Mapping, Sequence

import yaml

from rlprune.errors import UserError


def parse_model_args(text: str | Mapping[str, object] | Sequence[str] | None) -> dict[str, object]:
    """Arguments of a network as the user writes them.

    Args:
        text: ``"width=0.25,layers=[8,16]"``, several such strings of which the last wins, or a mapping, taken as it is.

    Returns:
        Names to values; the values in the strings are read as YAML.

    Raises:
        UserError: a part without ``=``, or a value that is not YAML.
    """
    if isinstance(text, Mapping):
        return dict(text)
    strings = [text] if isinstance(text, str) else text or ()
    return dict(_assignments(strings))


def _assignments(strings: Sequence[str]) -> Iterator[tuple[str, object]]:
    for string in strings:
        for part in split_outside(string, ","):
            if part.strip():
                yield _assignment(part)


def _assignment(part: str) -> tuple[str, object]:
    name, equals, value = (piece.strip() for piece in part.partition("="))
    if not equals or not name:
        raise UserError(
            f"cannot read the model argument '{part.strip()}': write name=value, such as width=0.25 or layers=[8,16]"
        )
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"cannot read the value of the model argument '{part.strip()}' as YAML") from error


def write_model_args(args: Mapping[str, object]) -> str:
    """The reverse of `parse_model_args`: a mapping as one line of text.

    Raises:
        TypeError: a value is none of what YAML has: text, numbers, true, false, null, lists and mappings of them.
    """
    written = [f"{_name(name)}={_written(value)}" for name, value in args.items()]
    # The order of keywords means nothing, and the same settings should be the same text.
    return ",".join(sorted(written))


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"{name!r} is no name of an argument")
    return name


def _written(value: object) -> str:
    if value is None or isinstance(value, (bool, int, str)):
        return json.dumps(value)
    if isinstance(value, float):
        # YAML reads 1e-05 as text and 1.0e-05 as a number.
        return yaml.safe_dump(value).splitlines()[0]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_written(key)}: {_written(inner)}" for key, inner in value.items()) + "}"
    raise TypeError(f"{value!r} cannot be written as YAML")


def split_outside(text: str, separator: str) -> list[str]:
    """Split text wherever a separator is in no brackets and in no quotes."""
    parts, depth, quote, before = [""], 0, "", "="
    for sign in text:
        # After a backslash a quote does not end, and after a quote it is a quote itself.
        escaped = quote == '"' and before == "\\"
        if quote:
            quote = "" if sign == quote and not escaped else quote
        elif sign in "\"'" and before and before in "=,[{:'":
            # Elsewhere it is an apostrophe.
            quote = sign
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        if sign == separator and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += sign
        if quote or not sign.isspace():
            before = "" if escaped else sign
    return parts
