import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlprune.errors import UserError
from rlprune.utils.arguments import parse_model_args, write_model_args


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("", {}),
        ("width=0.25,depth=3", {"width": 0.25, "depth": 3}),
        (["width=0.25", "flag=true, name=a b"], {"width": 0.25, "flag": True, "name": "a b"}),
        (["width=1", "width=2"], {"width": 2}),
        ({"width": [1, 2]}, {"width": [1, 2]}),
        ("empty=,text='1',equals=a=b", {"empty": None, "text": "1", "equals": "a=b"}),
        ("layers=[8,16,32],width=2", {"layers": [8, 16, 32], "width": 2}),
        ("stem={channels: 8, sizes: [3, 3]},act=relu", {"stem": {"channels": 8, "sizes": [3, 3]}, "act": "relu"}),
        ("""text="a,b",other='[',name=it's,last=1""", {"text": "a,b", "other": "[", "name": "it's", "last": 1}),
    ],
)
def test_arguments_are_read(text: object, expected: dict[str, object]) -> None:
    assert parse_model_args(text) == expected  # type: ignore[arg-type]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="ascii")),
    lambda inner: st.lists(inner) | st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), VALUES))
def test_mappings_round_trip(args: dict[str, object]) -> None:
    assert parse_model_args(write_model_args(args)) == args


@pytest.mark.parametrize("args", [{"net": object()}, {"a=b": 1}, {3: 1}, {"sizes": {1, 2}}])
def test_what_yaml_does_not_have(args: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        write_model_args(args)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.integers() | st.booleans()))
def test_arguments_round_trip(args: dict[str, object]) -> None:
    written = [f"{name}={str(value).lower()}" for name, value in args.items()]
    assert parse_model_args(",".join(written)) == parse_model_args(written) == args


@pytest.mark.parametrize("text", ["width", "width=1,depth", "=3", "width=[1", ["width=1", "0.5"]])
def test_bad_arguments_are_explained(text: str | list[str]) -> None:
    with pytest.raises(UserError, match="cannot read the"):
        parse_model_args(text)
