"""The twins that the benchmarks time are the functions that they are compared with."""

import math

import numpy as np
import pytest

from benchmarks import report
from benchmarks.limits import LimitKernels, size_class
from benchmarks.training_step import StepSize, TrainingStep, least_times


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(params=[2, 3])
def step(request, photo):
    """A step of 2^10 points, with features of the order of one."""
    size = StepSize(n_dims=request.param, batch_log2=10, table_log2=12)
    step = TrainingStep(size, photo)
    table = step.field.table.value
    table.assign(table.numpy() * np.float32(1e4))
    for name in ("sample", "fetch targets"):
        step.parts.get(name, lambda: None)()
    return step


def test_the_torch_twin_has_our_loss_and_gradients(step):
    from benchmarks import twin_torch

    found = twin_torch.check_same(step)
    # float32 sums of 2^10 terms in another order
    assert found["loss"] < 1e-6
    assert max(found["weights"], found["table"]) < 1e-4


def test_another_table_differs(step):
    from benchmarks import twin_torch

    original = twin_torch.TorchField
    table = step.field.table.value.numpy().copy()

    class Rolled(original):
        def __init__(self, field):
            field.table.value.assign(np.roll(table, 2))
            super().__init__(field)
            field.table.value.assign(table)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin_torch, "TorchField", Rolled)
        with pytest.raises(AssertionError, match="twin differs"):
            twin_torch.check_same(step)


def test_the_parts_train_like_the_whole_step(step, photo):
    other = TrainingStep(step.size, photo)
    other.field.table.value.assign(step.field.table.value.numpy())
    other.parts["sample"]()  # the fixture's has drawn its first batch
    for _ in range(3):
        for part in step.parts.values():
            part()
        other.whole()
    for name, p in step.field.parameters().items():
        np.testing.assert_array_equal(p.value.numpy(), other.field.parameters()[name].value.numpy())


def test_a_step_touches_what_its_batch_reads(step):
    n_touched = step.count_touched()
    corners = 2**step.size.n_dims * step.size.n_points * step.field.encoding.n_levels
    assert 0 < n_touched <= min(corners, step.field.table.touched.size)
    assert not step.field.table.touched.numpy().any()


def test_limits_and_least_times_are_positive_and_finite(step):
    levels = [level.size for level in step.field.encoding.levels]
    kernels = LimitKernels(levels, state_bytes=1, n_rounds_share=1e-3)
    limits = kernels.limits(report.medians(report.interleave(kernels.parts, 3)))
    rates = [limits.flops, limits.bandwidth, *limits.gather.values(), *limits.update.values()]
    least = least_times(step, limits, n_touched=1)
    assert set(step.parts) < set(least)
    assert all(0 < value < math.inf for value in (*rates, *least.values()))
    assert limits.gather_rate(max(levels)) == limits.gather[size_class(max(levels))]


def test_the_pyramid_learns(photo):
    import torch

    from benchmarks import twin_pyramid, twin_torch

    torch.manual_seed(0)
    for n_dims in (2, 3):
        model = twin_pyramid.Pyramid(n_dims, 1, finest_resolution=32)
        x = torch.rand(256, n_dims)
        target = x.sum(1, keepdim=True)
        step = twin_torch.torch_step(
            model, twin_pyramid.make_optimizer(model), lambda x=x, t=target: (x, t)
        )
        before = (model(x) - target).square().mean().item()
        for _ in range(20):
            step()
        assert (model(x) - target).square().mean().item() < 0.1 * before


def test_parts_are_timed_in_turns():
    order = []
    times = report.interleave({name: lambda n=name: order.append(n) for name in "ab"}, 3)
    assert order == list("ab") * 4  # one untimed round first
    assert [len(t) for t in times.values()] == [3, 3]
