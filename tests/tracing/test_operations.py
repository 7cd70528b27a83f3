"""Operations of ATen by name, and the table of their rules."""

import torch

from rlprune.tracing.operations import RULES, Call, rule

aten = torch.ops.aten


def test_arguments_of_an_operation_have_names() -> None:
    one = Call(aten.conv2d.default, (1, 2, 3), {"groups": 4}, result=[torch.zeros(1), None])
    assert [one[name] for name in ("input", "weight", "bias", "groups")] == [1, 2, 3, 4]
    assert one["stride"] == [1, 1]
    assert one["nothing"] is None
    assert one.name == "conv2d"
    assert one.out is one.result[0]
    assert Call.tensors({"a": [one.out, 3, (None, one.out)]}) == [one.out, one.out]


def test_rules_are_registered_with_their_forms_in_place() -> None:
    try:
        own = rule("cumprod", "no_such_operation")(lambda trace, call: None)
        assert RULES[aten.cumprod] is RULES[aten.cumprod_] is own
        assert not any(packet.__name__.startswith("no_such") for packet in RULES)
    finally:
        del RULES[aten.cumprod], RULES[aten.cumprod_]
