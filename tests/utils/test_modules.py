import pytest
import torch
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel

from rlprune.utils.modules import (
    copy_module,
    copy_sharing_weights,
    cuts_whole_groups,
    evaluating,
    named_tensors,
    safe_backward,
    shapes_of,
    unwrapped,
)


@pytest.mark.parametrize(
    ("groups", "channels", "expected"),
    [(4, 4, True), (32, 128, True), (32, 1024, True), (32, 1056, False), (2, 8, False), (1, 1, False), (8, 8, True)],
)
def test_narrow_groups_go_whole(groups: int, channels: int, expected: bool) -> None:
    assert cuts_whole_groups(groups, channels) == expected


def test_named_tensors_are_those_of_the_state_dict_and_the_hidden_buffers() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    module.register_buffer("hidden", torch.zeros(1), persistent=False)
    assert set(named_tensors(module)) == {*module.state_dict(), "hidden"}


def test_a_shared_copy_has_the_very_tensors() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    copied = copy_sharing_weights(module)
    assert all(
        copied.state_dict(keep_vars=True)[name] is one for name, one in module.state_dict(keep_vars=True).items()
    )
    assert copied[0] is not module[0]


@pytest.mark.parametrize("shares", [True, False])
def test_copies_of_what_gradients_flow_through(shares: bool) -> None:
    """Features that a module keeps are copied as numbers, wherever they are; parameters as they should be."""
    module = nn.Linear(2, 3)
    module.features = {"last": [module(torch.ones(1, 2))]}  # type: ignore[assignment]
    copied = copy_sharing_weights(module) if shares else copy_module(module)
    assert (copied.weight is module.weight) == shares
    assert torch.equal(copied.get_parameter("weight"), module.weight)
    kept = copied.features["last"][0]  # type: ignore[index]
    assert torch.equal(kept, module(torch.ones(1, 2)))
    assert kept.grad_fn is None


def test_shapes_are_those_of_the_tensors_alone() -> None:
    assert shapes_of({"a": torch.zeros(2, 3), "b": torch.zeros(()), "_extra_state": {"steps": 3}}) == {
        "a": (2, 3),
        "b": (),
    }


def test_evaluating_restores_the_mode_of_every_module() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout(), nn.BatchNorm1d(1))
    module[2].eval()

    def ends_badly() -> None:
        with evaluating(module) as inside:
            assert not any(part.training for part in inside.modules())
            raise KeyError

    with pytest.raises(KeyError):
        ends_badly()
    assert [part.training for part in module.modules()] == [True, True, True, False]


@pytest.mark.parametrize(("channels", "stride"), [(2, 2), (4, 2), (7, 3), (15, (2, 1)), (16, 2)])
def test_strided_shortcuts_have_the_gradients_of_a_matrix_product(channels: int, stride: int | tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(channels, 5, 1, stride, bias=False).to(memory_format=torch.channels_last)
    before = layer.stride
    images = torch.randn(16, channels, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    weight, seen = layer.weight.detach().flatten(1).requires_grad_(), images.detach().clone().requires_grad_()
    met = seen[:, :, :: before[0], :: before[1]]
    expected = torch.einsum("oc,ncyx->noyx", weight, met)
    for _ in range(20):  # the overflow that this is about does not always show at once
        with safe_backward(nn.Sequential(layer)):
            found = layer(images)
            found.square().mean().backward()
    expected.square().mean().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.weight.grad.flatten(1) / 20, weight.grad)
    torch.testing.assert_close(images.grad / 20, seen.grad)
    assert layer.stride == before
    assert layer(images).shape == found.shape


def test_the_network_inside() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        around = nn.parallel.DistributedDataParallel(net)
    finally:
        distributed.destroy_process_group()
    compiled = torch.compile(net)
    for module in (net, nn.DataParallel(net), around, compiled, nn.DataParallel(compiled), torch.compile(around)):
        assert unwrapped(module) is net
    averaged = unwrapped(AveragedModel(net))
    assert list(averaged.state_dict()) == list(net.state_dict())


def test_a_network_with_a_part_called_module_is_no_wrapper() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)
            self._orig_mod = nn.Linear(2, 2)

    assert isinstance(unwrapped(Own()), Own)
