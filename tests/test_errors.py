from rlprune.errors import UserError, unknown


def test_nearest_name_comes_first() -> None:
    error = unknown("model", "vgg61", ["vgg16", "resnet20"])
    assert isinstance(error, UserError)
    assert str(error) == "unknown model 'vgg61': did you mean 'vgg16'? known: resnet20, vgg16"


def test_no_guess_without_a_near_name() -> None:
    assert str(unknown("model", "zzz", iter(["b", "a"]))) == "unknown model 'zzz': known: a, b"
