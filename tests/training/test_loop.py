import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transfers import watched

from rlprune.errors import UserError
from rlprune.models.registry import build_model
from rlprune.training import learner
from rlprune.training.config import TrainingConfig
from rlprune.training.loop import evaluate, recover_together, train

CPU = torch.device("cpu")


class Images:
    """Images in memory, behind the interface of an image set."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        *,
        augment: str = "none",
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for chosen in order.split(batch_size):
            inputs = self.inputs[chosen]
            if augment != "none":
                assert generator is not None
                inputs = inputs + 0.1 * torch.randn(inputs.shape, generator=generator)
            yield inputs.contiguous(memory_format=torch.channels_last).to(device), self.labels[chosen].to(device)


def bright_or_dark(count: int = 64, size: int = 4) -> Any:
    """Two classes apart by brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    return Images(
        torch.randn(count, 3, size, size, generator=generator) + 4.0 * labels[:, None, None, None] - 2.0, labels
    )


def network(seed: int = 0) -> Any:
    """One of everything whose state a training changes, dropout among it."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(4, 2),
    )  # fmt: skip


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def linear() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 2))


def test_one_step_by_hand() -> None:
    images: Any = Images(torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])[:, :, None, None], torch.tensor([0, 1]))
    module = linear()
    weight, bias = module[1].weight.detach().double().clone(), module[1].bias.detach().double().clone()
    result = train(
        module,
        images,
        TrainingConfig(epochs=1, lr=0.3, batch_size=2, weight_decay=0.1, label_smoothing=0.2, augment="none"),
        device=CPU,
    )
    # The gradient of the cross-entropy by the logits is (softmax - target) / batch; smoothing spreads 0.2 evenly.
    inputs, target = images.inputs.flatten(1).double(), torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double()
    probabilities = (inputs @ weight.T + bias).softmax(1)
    slope = (probabilities - target) / 2
    # A first Nesterov step with momentum 0.9 goes (1 + 0.9) times the gradient; the decay is part of the gradient.
    rate = result.history[0]["lr"]
    assert 0 < rate <= 0.3
    torch.testing.assert_close(module[1].weight.double(), weight - rate * 1.9 * (slope.T @ inputs + 0.1 * weight))
    torch.testing.assert_close(module[1].bias.double(), bias - rate * 1.9 * slope.sum(0))
    assert result.history[0]["loss"] == pytest.approx(-(target * probabilities.log()).sum(1).mean().item(), rel=1e-5)
    hits = (probabilities.argmax(1) == images.labels).double().mean().item()
    assert result.history[0]["accuracy"] == hits


def test_one_distilled_step_by_hand() -> None:
    images: Any = Images(torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])[:, :, None, None], torch.tensor([0, 1]))
    module, teacher = linear(), linear()
    with torch.no_grad():
        teacher[1].weight.mul_(-2)
    weight = module[1].weight.detach().double().clone()
    result = train(
        module,
        images,
        TrainingConfig(epochs=1, lr=0.3, batch_size=2, weight_decay=0.0, augment="none"),
        device=CPU,
        teacher=teacher,
    )
    # The gradient of T^2 KL by the logits is T (softmax(network / T) - softmax(teacher / T)) / batch; here T = 4.
    inputs, labels = images.inputs.flatten(1).double(), torch.eye(2).double()
    bias = linear()[1].bias.detach().double()
    mine, theirs = inputs @ weight.T + bias, inputs @ (-2 * weight).T + bias
    by_labels = (mine.softmax(1) - labels) / 2
    by_teacher = 4 * ((mine / 4).softmax(1) - (theirs / 4).softmax(1)) / 2
    slope = 0.1 * by_labels + 0.9 * by_teacher
    expected = weight - result.history[0]["lr"] * 1.9 * slope.T @ inputs
    torch.testing.assert_close(module[1].weight, expected.float())
    # What is told is the loss by the labels, which other trainings can be compared with.
    assert result.history[0]["loss"] == pytest.approx(-mine.log_softmax(1).diagonal().mean().item(), rel=1e-5)


def test_a_teacher_stays_as_it_is(tmp_path: Path) -> None:
    teacher, state = network(seed=1).eval(), tmp_path / "state.pt"
    pupil, other = network(), network()
    train(pupil, bright_or_dark(), TrainingConfig(epochs=2), device=CPU, teacher=teacher, state=state)
    train(other, bright_or_dark(), TrainingConfig(epochs=2), device=CPU)
    assert same(teacher, network(seed=1))
    assert not teacher.training
    assert not same(pupil, other)
    with pytest.raises(UserError, match="distilled is True, here it is False"):
        train(network(), bright_or_dark(), TrainingConfig(epochs=2), device=CPU, state=state)


def test_evaluation_by_hand() -> None:
    module = linear()
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        module[1].bias.zero_()
    inputs = torch.tensor([[0.0, 0.0, 9.0], [math.log(3.0), 0.0, 9.0], [0.0, math.log(7.0), 9.0]])
    images: Any = Images(inputs[:, :, None, None], torch.tensor([0, 1, 1]))
    # The right classes have the probabilities 1/2 (a tie goes to the first class), 1/4 and 7/8.
    expected = (math.log(2) + math.log(4) + math.log(8 / 7)) / 3
    for batch_size in (1, 2, 250):
        loss, accuracy = evaluate(module, images, device=CPU, batch_size=batch_size)
        assert loss == pytest.approx(expected, rel=1e-6)
        assert accuracy == pytest.approx(2 / 3)


def test_evaluation_leaves_the_module_as_it_was() -> None:
    module, untouched = network().train(), network()
    module[1].eval()
    first = evaluate(module, bright_or_dark(), device=CPU)
    assert first == evaluate(module, bright_or_dark(), device=CPU)
    assert same(module, untouched)
    assert [part.training for part in module] == [True, False, True, True, True, True, True]


def test_a_separable_problem_is_learnt() -> None:
    module, steps = network(), []
    result = train(
        module,
        bright_or_dark(),
        TrainingConfig(epochs=4, lr=0.05),
        device=CPU,
        on_step=lambda done, total: steps.append((done, total)),
    )
    loss, accuracy = evaluate(module, bright_or_dark(), device=CPU)
    assert accuracy == 1.0
    assert loss < result.history[0]["loss"]
    assert steps == [(done, 16) for done in range(1, 17)]  # 64 images in batches of 16, the least by default
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4]
    assert result.history[-1]["accuracy"] > 0.9
    assert all(set(record) == {"epoch", "loss", "accuracy", "lr", "seconds"} for record in result.history)
    assert result.history[-1]["lr"] < 0.05 / 20
    assert not any(part.training for part in module.modules())


@pytest.mark.parametrize(("count", "batch_size"), [(100, 16), (1000, 25), (6000, 128)])
def test_defaults_follow_the_number_of_images(count: int, batch_size: int) -> None:
    """40 steps an epoch, of 16 to 128 images, and a learning rate of 0.1 at 128 images, in proportion to them."""
    images, steps, modules = bright_or_dark(count, size=1), [], [linear(), linear()]
    train(modules[0], images, TrainingConfig(epochs=1), device=CPU, on_step=lambda done, total: steps.append(total))
    train(modules[1], images, TrainingConfig(epochs=1, batch_size=batch_size, lr=batch_size / 1280), device=CPU)
    assert steps == [math.ceil(count / batch_size)] * math.ceil(count / batch_size)
    assert same(*modules)


def test_no_step_waits_for_a_value() -> None:
    """What a GPU has not computed yet is read once an epoch, when there is nothing left to do."""
    seen: list[str] = []
    with watched(CPU) as since:
        module = network().requires_grad_(True)
        config = TrainingConfig(epochs=2, label_smoothing=0.1)
        train(module, bright_or_dark(), config, device=CPU, on_step=lambda done, total: seen.extend(since()))
    assert seen == []


def rates(config: TrainingConfig) -> list[float]:
    """Of every step, which is one epoch."""
    return [record["lr"] for record in train(linear(), bright_or_dark(16, size=1), config, device=CPU).history]


@pytest.mark.parametrize(("schedule", "share"), [("usual", 0.3), ("long", 0.05)])
def test_the_learning_rate_rises_for_a_share_of_the_steps(schedule: str, share: float) -> None:
    """From a 25th of its peak along a cosine, and down to nothing along another, over 101 values without the last."""
    found = rates(TrainingConfig(epochs=100, lr=0.2, batch_size=16, schedule=schedule))
    peak = share * 101 - 1
    for step, rate in enumerate(found):
        low, part = (0.2 / 25, 1 - step / peak) if step <= peak else (0.2 / 25e4, (step - peak) / (100 - peak))
        assert rate == pytest.approx(low + (0.2 - low) * (1 + math.cos(math.pi * part)) / 2, rel=1e-6)


def test_states_of_older_trainings_go_on(tmp_path: Path) -> None:
    """When augmentation was there or not, and there was one schedule."""
    settings = {"epochs": 2, "lr": 0.0125, "batch_size": 16, "weight_decay": 5e-4, "label_smoothing": 0.0, "seed": 0}
    for augment, word in ((True, "standard"), (False, "none")):
        found = TrainingConfig(epochs=2, augment=word).resolved(64).identity()
        assert found == settings | {"augment": augment, "images": 64}
    others = [{"augment": "flip"}, {"augment": "cutout"}, {"schedule": "long"}]
    identities = [TrainingConfig(epochs=2, **other).resolved(64).identity() for other in others]  # type: ignore[arg-type]
    assert [{**settings, "augment": True, "images": 64, **other} for other in others] == identities


def test_the_seed_alone_decides() -> None:
    modules = [network() for _ in range(3)]
    for module, seed in zip(modules, (1, 1, 2), strict=True):
        torch.rand(3)  # what the caller drew before does not matter
        before = torch.get_rng_state()
        train(module, bright_or_dark(), TrainingConfig(epochs=2, seed=seed), device=CPU)
        assert torch.equal(torch.get_rng_state(), before)
    assert same(modules[0], modules[1])
    assert not same(modules[0], modules[2])


@pytest.mark.parametrize("moment", ["on_epoch", "on_step"])
def test_an_interrupted_training_continues_exactly(tmp_path: Path, moment: str) -> None:
    images, state = bright_or_dark(), tmp_path / "folder" / "state.pt"
    whole = network()
    expected = train(whole, images, TrainingConfig(epochs=4), device=CPU)
    hooks: dict[str, Any] = {
        "on_epoch": lambda record: interrupt(record["epoch"] == 2),
        "on_step": lambda done, total: interrupt(done == 11),
    }

    def interrupt(now: bool) -> None:
        if now:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(), images, TrainingConfig(epochs=4), device=CPU, state=state, **{moment: hooks[moment]})
    assert [file.name for file in state.parent.iterdir()] == ["state.pt"]
    continued = network(seed=5)
    result = train(continued, images, TrainingConfig(epochs=4), device=CPU, state=state)
    assert same(continued, whole)
    assert not same(continued, network())
    assert without_seconds(result.history) == without_seconds(expected.history)
    # A finished training is not repeated.
    again = network(seed=6)
    assert train(again, images, TrainingConfig(epochs=4), device=CPU, state=state).history == result.history
    assert same(again, whole)


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    state, images = tmp_path / "state.pt", bright_or_dark()
    train(network(), images, TrainingConfig(epochs=1), device=CPU, state=state)
    with pytest.raises(UserError, match="epochs is 1, here it is 2"):
        train(network(), images, TrainingConfig(epochs=2), device=CPU, state=state)


def test_a_trailing_batch_of_one_is_left_out() -> None:
    torch.manual_seed(0)
    # Batch norm on 1x1 maps refuses a batch of one.
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    steps = []
    config = TrainingConfig(epochs=2, batch_size=4)
    train(module, bright_or_dark(9, size=1), config, device=CPU, on_step=lambda *told: steps.append(told))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_epochs_change_nothing() -> None:
    module = network().train()
    assert train(module, bright_or_dark(), TrainingConfig(epochs=0), device=CPU).history == []
    assert same(module, network())
    assert not any(part.training for part in module.modules())


def test_frozen_parameters_stay() -> None:
    module = network()
    module[0].requires_grad_(False)
    train(module, bright_or_dark(), TrainingConfig(epochs=1), device=CPU)
    assert torch.equal(module[0].weight, network()[0].weight)
    assert not torch.equal(module[6].weight, network()[6].weight)


def test_divergence_is_told() -> None:
    images = bright_or_dark()
    images.inputs = images.inputs * 1e30
    with pytest.raises(UserError, match=r"diverged at epoch 1.* lower lr than 1e\+20"):
        train(linear_on(images), images, TrainingConfig(epochs=2, lr=1e20), device=CPU)


def linear_on(images: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(images.inputs[0].numel(), 2))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"epochs": -1}, "epochs = -1: it must be at least 0"),
        ({"batch_size": 1}, "batch_size = 1: it must be at least 2"),
        ({"lr": 0.0}, "lr = 0.0: it must be above 0"),
        ({"lr": math.nan}, "lr = nan"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0"),
        ({"label_smoothing": 1.5}, "label_smoothing = 1.5: it must be at most 1"),
        ({"seed": -1}, "seed = -1"),
        ({"augment": "flipp"}, "unknown augment 'flipp': did you mean 'flip'"),
        ({"schedule": "longer"}, "unknown schedule 'longer': did you mean 'long'"),
    ],
)
def test_settings_out_of_range(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        train(network(), bright_or_dark(), TrainingConfig(**{"epochs": 1, **setting}), device=CPU)


def test_bfloat16_mixed_precision(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    seen = []
    monkeypatch.setattr(learner, "evaluation_dtype", lambda device: torch.bfloat16)
    module = network()
    module[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    train(module, bright_or_dark(), TrainingConfig(epochs=4, lr=0.05), device=CPU)
    _, accuracy = evaluate(module, bright_or_dark(), device=CPU)
    assert set(seen) == {torch.bfloat16}
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    assert accuracy == 1.0
    assert capfd.readouterr().err == ""


def test_networks_recover_together_in_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several at once go forward and back in bfloat16, and each ends where it would have ended alone."""
    monkeypatch.setattr(learner, "evaluation_dtype", lambda device: torch.bfloat16)
    # Four networks at once, whatever the machine, each on one thread as alone.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    config = TrainingConfig(epochs=6, lr=0.05, recovery=True)
    together = [steady(seed) for seed in range(4)]
    recover_together(together, bright_or_dark(), config, device=CPU)
    for seed, module in enumerate(together):
        alone = steady(seed)
        train(alone, bright_or_dark(), config, device=CPU)
        assert same(module, alone)


class WithAuxiliary(nn.Module):
    """In training mode it returns the logits and those of two heads, of which one is switched off."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.body, self.head, self.side = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        x = self.body(x.mean((2, 3)))
        return self.wrap(self.head(x), None, self.side(x)) if self.training else self.head(x)


@pytest.mark.parametrize(
    "wrap", [lambda *all: all, lambda *all: dict(zip("abc", all, strict=True))], ids=["tuple", "dict"]
)
def test_auxiliary_heads(wrap: Any) -> None:
    """Their gradients are 0.3 of their losses', and what is reported is the loss of the logits."""
    torch.manual_seed(0)
    net, images = WithAuxiliary(wrap), bright_or_dark(8)
    logits, side = net.head(net.body(images.inputs.mean((2, 3)))), net.side(net.body(images.inputs.mean((2, 3))))
    main = nn.functional.cross_entropy(logits, images.labels)
    gradient = torch.autograd.grad(0.3 * nn.functional.cross_entropy(side, images.labels), net.side.bias)[0]
    before = net.side.bias.detach().clone()
    result = train(
        net, images, TrainingConfig(epochs=1, lr=0.1, batch_size=8, weight_decay=0.0, augment="none"), device=CPU
    )
    assert result.history[0]["loss"] == pytest.approx(main.item(), rel=1e-6)
    # The first step of Nesterov momentum is 1.9 gradients long.
    moved = before - net.side.bias.detach()
    torch.testing.assert_close(moved / result.history[0]["lr"], 1.9 * gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("teacher", "epochs"), [(None, 1), (network(seed=2).eval(), 1), (None, 3)])
def test_networks_that_recover_together_end_as_they_do_alone(teacher: nn.Module | None, epochs: int) -> None:
    together, alone = [steady(0), steady(1)], [steady(0), steady(1)]
    recover_together(
        together, bright_or_dark(), TrainingConfig(epochs=epochs, seed=3, recovery=True), device=CPU, teacher=teacher
    )
    for module, other in zip(together, alone, strict=True):
        train(
            other, bright_or_dark(), TrainingConfig(epochs=epochs, recovery=True, seed=3), device=CPU, teacher=teacher
        )
        assert same(module, other)
        assert not module.training
    assert not same(*together)


def test_networks_that_draw_at_random_recover_alike_every_time() -> None:
    first, second = ([network(0), network(1), network(2)] for _ in range(2))
    for modules in (first, second):
        recover_together(modules, bright_or_dark(), TrainingConfig(epochs=1, seed=3, recovery=True), device=CPU)
    assert all(same(one, other) for one, other in zip(first, second, strict=True))


def test_pruned_networks_end_the_same_in_any_company() -> None:
    """Wide enough that more threads would add up in another order."""

    def made(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build_model("resnet20", classes=2, image_size=16, args={"width": 0.5})

    company, alone = [made(0), made(1), made(2)], made(2)
    recover_together(
        company, bright_or_dark(size=16), TrainingConfig(epochs=1, batch_size=32, seed=3, recovery=True), device=CPU
    )
    recover_together(
        [alone], bright_or_dark(size=16), TrainingConfig(epochs=1, batch_size=32, seed=3, recovery=True), device=CPU
    )
    assert same(company[2], alone)


def test_a_network_that_diverges_leaves_the_others_alone() -> None:
    broken, module, other = steady(0), steady(1), steady(1)
    with torch.no_grad():
        broken[0].weight.fill_(math.inf)
    recover_together([broken, module], bright_or_dark(), TrainingConfig(epochs=1, seed=3, recovery=True), device=CPU)
    train(other, bright_or_dark(), TrainingConfig(epochs=1, recovery=True, seed=3), device=CPU)
    assert same(module, other)
    assert math.isnan(evaluate(broken, bright_or_dark(), device=CPU)[0])


def steady(seed: int) -> Any:
    """A network that draws nothing at random."""
    module = network(seed)
    del module[5]
    return module


def test_a_residual_network_with_narrow_shortcuts_can_be_trained() -> None:
    module = build_model("resnet20", classes=2, image_size=16, args={"width": 0.25})
    result = train(module, bright_or_dark(size=16), TrainingConfig(epochs=2), device=CPU)
    assert math.isfinite(result.history[-1]["loss"])


def test_a_wrapped_network_is_trained_as_it_would_be_without(tmp_path: Path) -> None:
    images = Images(torch.randn(32, 1, 2, 2), torch.arange(32) % 2)
    found = []
    for wrap in (lambda net: net, nn.DataParallel, torch.compile):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        train(wrap(net), images, TrainingConfig(epochs=1, augment="none"), device=CPU)  # type: ignore[arg-type]
        found.append(net[1].weight)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
