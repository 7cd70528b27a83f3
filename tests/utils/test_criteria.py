import pytest

from rlprune.errors import UserError
from rlprune.utils.criteria import Criteria, check_one_rule, parse_criteria


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l1", Criteria(("l1",))),
        ("l1, taylor", Criteria(("l1", "taylor"))),
        ("taylor:order=2,l1", Criteria(("taylor:order=2", "l1"))),
        ("taylor:order=1,taylor:order=2", Criteria(("taylor:order=1", "taylor:order=2"))),
        ("conv1=l2", Criteria(("l1",), (("conv1", "l2"),))),
        ("conv1=taylor:order=2,layer3.*=l2", Criteria(("l1",), (("conv1", "taylor:order=2"), ("layer3.*", "l2")))),
        ("conv1=l1, *=random", Criteria(("l1",), (("conv1", "l1"), ("*", "random")))),
    ],
)
def test_names_or_patterns(text: str, expected: Criteria) -> None:
    assert parse_criteria(text) == expected
    assert parse_criteria(text).several == (len(expected.names) > 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tailor", "unknown criterion 'tailor': did you mean 'taylor'?"),
        ("l1,tailor:order=2", "unknown criterion 'tailor': did you mean 'taylor'?"),
        ("conv1=tailor", "unknown criterion 'tailor': did you mean 'taylor'?"),
        ("taylor:ordr=2", "unknown setting of criterion taylor 'ordr': did you mean 'order'?"),
        ("l1,l2,l1", "--criterion l1,l2,l1 names l1 twice: give it once"),
        ("a=l1,a=l2", "--criterion a=l1,a=l2 names a twice: give it once"),
        ("l1,a=l2", "names 'l1' beside a criterion of some groups"),
        ("a=l2,l1", "such as '*=l1' for all other groups"),
        ("a=", "'a=' names no criterion, expected such as a=l1"),
        (" , ", "names no criterion, expected such as l1"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_criteria(text)
    assert message in str(raised.value)


def test_several_are_for_somebody_who_chooses() -> None:
    check_one_rule("a=l1,b=l2")
    with pytest.raises(UserError, match="nobody chooses here: give one, or one for each group"):
        check_one_rule("l1,l2")
