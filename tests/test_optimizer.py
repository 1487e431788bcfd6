"""Adam, its schedule and its average, against the float64 twin."""

import numpy as np
import pytest
import warp as wp

from ngp_warp.config import OptimizerConfig
from ngp_warp.kernels.adam import COUNT_MAX
from ngp_warp.kernels.grid import GROUP
from ngp_warp.kernels.grid_portable import FIXED_POINT
from ngp_warp.launch import run_stages
from ngp_warp.optimizer import Adam, bias_corrections, make_table, make_weights
from tests.reference.adam import AdamTwin, learning_rate

# A step's error is a few eps of the rate (float32 moments, bias correction, square root), and 20
# steps of 0.05 add up; values are O(1): 20 * 0.05 * 10 eps.
TOLERANCE = 1.2e-6
N_STEPS = 20


class Run:
    """A table and weights, stepped by the kernels and by the twin with the same gradients."""

    def __init__(
        self,
        device,
        backend,
        n_features=2,
        half=False,
        fixed_point=False,
        quantization=0.0,
        flagged=None,
        **settings,
    ):
        self.rng = np.random.default_rng(0)
        settings = {"learning_rate": 0.05, "l2_regularization": 0.1, **settings}
        self.config = config = OptimizerConfig(**settings)
        # more groups than a run of flags, and weights that fill no whole item
        self.n_features, self.fixed_point = n_features, fixed_point
        initial = self.rng.normal(size=(2051 * GROUP * n_features)).astype(np.float32)
        weights = self.rng.normal(size=301).astype(np.float32)
        self.table = make_table(
            initial,
            n_features,
            config,
            device,
            half=half,
            quantization=quantization,
            fixed_point=fixed_point,
            flagged=flagged,
        )
        self.weights = make_weights(weights, config, device)
        self.adam = Adam(config, [self.weights, self.table], device, backend)
        self.stages = [[self.adam.advance()], *self.adam.update()]
        self.table_twin = AdamTwin(initial, config, n_features)
        self.weights_twin = AdamTwin(weights, config)
        self.t = 0

    def gradients(self):
        """A few groups, in them a few entries, in them a zero here and there."""
        n_groups = self.table.count.size // GROUP
        touched = self.rng.random(n_groups) < 0.05
        touched[[0, -1]] = True
        mask = np.repeat(touched, GROUP * self.n_features)
        mask &= np.repeat(self.rng.random(n_groups * GROUP) < 0.5, self.n_features)
        mask &= self.rng.random(mask.size) < 0.9
        table = np.where(mask, self.rng.normal(size=mask.size), 0).astype(np.float32)
        return touched, table, self.rng.normal(size=301).astype(np.float32)

    def flag(self, touched):
        """Say which groups have a gradient, where somebody wants to know."""
        if self.table.touched is not None:
            self.table.touched.assign(np.asarray(touched, np.uint8))

    def step(self):
        touched, table, weights = self.gradients()
        self.flag(touched)
        self.weights.gradient.assign(weights)
        if self.fixed_point:
            table = np.round(table * FIXED_POINT).astype(np.int64)
        self.table.gradient.assign(table)
        for stage in self.stages:
            for item in stage:
                item.run()
        self.t += 1
        rate = learning_rate(self.config, self.t, int(self.adam.n_steps.numpy()[0]))
        if self.fixed_point:
            table = table / FIXED_POINT
        self.table_twin.step(table, rate)
        self.weights_twin.step(weights, rate)


@pytest.mark.parametrize("n_features", [1, 2, 4, 8])
def test_without_a_flag_a_gradient_waits(device, backend, n_features):
    run = Run(device, backend, n_features, flagged=True)
    gradient = np.ones(run.table.gradient.size, np.float32)
    flags = run.rng.random(gradient.size // n_features // GROUP) < 0.5
    run.table.gradient.assign(gradient)
    run.table.touched.assign(flags.astype(np.uint8))
    before = run.table.value.numpy().copy()
    run_stages(run.stages)
    wanted = np.repeat(flags, GROUP * n_features)
    assert np.array_equal(run.table.value.numpy() != before, wanted)
    assert np.array_equal(run.table.gradient.numpy() == 0, wanted)
    assert not run.table.touched.numpy().any()


@pytest.mark.parametrize("n_features", [1, 2, 4, 8])
def test_twenty_steps_are_the_twins(device, backend, n_features):
    run = Run(device, backend, n_features)
    for _ in range(N_STEPS):
        run.step()
    assert np.abs(run.table.value.numpy() - run.table_twin.value).max() < TOLERANCE
    assert np.abs(run.weights.value.numpy() - run.weights_twin.value).max() < TOLERANCE
    assert np.abs(run.table.first_moment.numpy() - run.table_twin.m).max() < TOLERANCE
    assert np.abs(run.table.second_moment.numpy() - run.table_twin.v).max() < TOLERANCE
    assert np.array_equal(run.table.count.numpy(), run.table_twin.count)
    assert np.all(run.table.gradient.numpy() == 0)
    assert len(np.unique(run.table_twin.count)) > 4
    # the comparison can fail
    assert np.abs(run.table.value.numpy() - np.roll(run.table_twin.value, 1)).max() > 0.1


def test_entries_without_a_gradient_are_unchanged(device, backend):
    run = Run(device, backend)
    for _ in range(3):
        run.step()
    before = {name: array.numpy().copy() for name, array in run.table.state().items()}
    run.flag(np.ones(run.table.count.size // GROUP))  # also what has no gradient
    gradient = np.zeros(run.table.gradient.size, np.float32)
    gradient[16] = 1.0
    run.table.gradient.assign(gradient)
    for item in run.stages[1]:
        item.run()
    for name, array in run.table.state().items():
        changed = np.flatnonzero(array.numpy() != before[name])
        assert changed.tolist() == [8 if name == "count" else 16]


def test_the_count_saturates(device, backend):
    run = Run(device, backend)
    run.table.count.fill_(COUNT_MAX)
    run.step()
    assert np.all(run.table.count.numpy() == COUNT_MAX)
    assert np.all(np.isfinite(run.table.value.numpy()))


def test_half_precision_copy_follows(device, backend):
    run = Run(device, backend, half=True)
    for _ in range(3):
        run.step()
    assert np.array_equal(run.table.half_value.numpy(), run.table.value.numpy().astype(np.float16))
    assert run.table.read is run.table.half_value
    assert np.abs(run.table.value.numpy() - run.table_twin.value).max() < TOLERANCE


def test_quantized_copy_follows(device, backend):
    run = Run(device, backend, n_features=4, half=True, quantization=0.5)
    run.step()
    value, read = run.table.value.numpy().copy(), run.table.half_value.numpy()
    assert np.array_equal(read, value.astype(np.float16))  # not yet
    run.adam.quantize()
    step = run.table.quantum.numpy()[0]
    assert step == np.float32(0.5 * np.sqrt(np.mean(value.astype(np.float64) ** 2)))
    assert np.array_equal(run.table.half_value.numpy(), (np.rint(value / step) * step).astype("f2"))
    for _ in range(3):
        run.step()
    run.adam.quantize()  # once for all
    assert run.table.quantum.numpy()[0] == step
    later, read = run.table.value.numpy(), run.table.half_value.numpy()
    assert np.array_equal(read, (np.rint(later / step) * step).astype(np.float16))
    assert not np.array_equal(later, value)
    # the values themselves are not rounded
    assert np.abs(later - run.table_twin.value).max() < TOLERANCE


def test_fixed_point_gradients(device):
    run = Run(device, "portable", fixed_point=True)
    for _ in range(N_STEPS):
        run.step()
    assert np.abs(run.table.value.numpy() - run.table_twin.value).max() < TOLERANCE


def test_whole_number_settings(device, backend):
    # 0 and 1 without a point are no C++ floats
    run = Run(device, backend, l2_regularization=0, beta1=0, learning_rate=1, epsilon=0)
    run.step()
    # one step of rate 1 has errors of a few eps of values of at most 5
    assert np.abs(run.weights.value.numpy() - run.weights_twin.value).max() < 3e-6


def test_the_schedule(device):
    config = OptimizerConfig(learning_rate=0.1, decay_start=0.4, final_learning_rate=0.01)
    adam = Adam(config, [], device)
    advance = adam.advance()
    adam.n_steps.fill_(10)
    rates, corrected = [], []
    for _ in range(12):
        advance.run()
        rate, with_correction = adam.schedule.numpy()
        rates.append(rate)
        corrected.append(with_correction)
    # constant for 4 steps, then 6 factors of 0.01^(1/6), and no further
    wanted = [0.1] * 4 + [0.1 * 0.01 ** (k / 6) for k in range(1, 7)] + [0.001] * 2
    assert np.allclose(rates, wanted, rtol=1e-6)
    assert np.allclose(rates, [learning_rate(config, t, 10) for t in range(1, 13)], rtol=1e-6)
    correction = bias_corrections(config)
    assert np.allclose(corrected, np.array(wanted) * correction[1:13], rtol=1e-6)
    # sqrt(1 - 0.99) / (1 - 0.9) = 1 after the first step; 1 in the end
    assert correction[[1, -1]] == pytest.approx([1.0, 1.0], rel=1e-5)
    assert int(adam.step.numpy()[0]) == 12


@pytest.mark.parametrize("decay_start", [0.4, 1.0])
def test_an_unknown_length_has_no_decay(device, decay_start):
    adam = Adam(OptimizerConfig(decay_start=decay_start), [], device)
    advance = adam.advance()
    for _ in range(5):
        advance.run()
        assert adam.schedule.numpy()[0] == np.float32(1e-2)
    adam.n_steps.fill_(6)
    advance.run()
    assert adam.schedule.numpy()[0] == pytest.approx(1e-4 if decay_start < 1 else 1e-2, rel=1e-6)


def test_the_average_is_debiased(device, backend):
    run = Run(device, backend, ema_decay=0.9)
    for _ in range(5):
        run.step()
    for parameters, twin in ((run.table, run.table_twin), (run.weights, run.weights_twin)):
        wanted = twin.average / (1 - 0.9**5)
        assert np.abs(run.adam.averaged(parameters) - wanted).max() < 5 * TOLERANCE
        assert np.abs(run.adam.averaged(parameters) - twin.value).max() > 0.01


def test_without_an_average_the_last_values_are_evaluated(device):
    run = Run(device, "auto")
    run.step()
    assert np.array_equal(run.adam.averaged(run.table), run.table.value.numpy())
    averaging = Run(device, "auto", ema_decay=0.9)
    assert np.array_equal(averaging.adam.averaged(averaging.table), averaging.table.value.numpy())


def test_a_loaded_state_continues_alike(device, backend):
    run = Run(device, backend, half=True, ema_decay=0.5)
    for _ in range(2):
        run.step()
    saved = [{k: a.numpy().copy() for k, a in p.state().items()} for p in run.adam.parameters]
    assert set(saved[1]) == {"value", "first_moment", "second_moment", "count", "average"}
    other = Run(device, backend, half=True, ema_decay=0.5)
    for parameters, arrays in zip(other.adam.parameters, saved, strict=True):
        parameters.load(arrays)
    other.adam.step.assign(run.adam.step.numpy())
    other.rng = np.random.default_rng(9)
    run.rng = np.random.default_rng(9)
    for _ in range(2):
        run.step()
        other.step()
    for mine, theirs in zip(run.adam.parameters, other.adam.parameters, strict=True):
        for name, array in mine.state().items():
            assert np.array_equal(array.numpy(), theirs.state()[name].numpy())
    assert np.array_equal(run.table.half_value.numpy(), other.table.half_value.numpy())


@pytest.mark.parametrize("scale", [np.exp(-100), np.exp(-40), np.exp(10)], ids=str)
def test_steps_stay_finite(device, backend, scale):
    run = Run(device, backend, l2_regularization=1e-6)
    before = run.weights.value.numpy().copy()
    run.weights.gradient.assign(np.full(301, scale, np.float32))
    gradient = np.zeros(run.table.gradient.size, np.float32)
    gradient[:16] = scale
    run.table.gradient.assign(gradient)
    run.flag(np.ones(run.table.count.size // GROUP))
    for stage in run.stages:
        for item in stage:
            item.run()
    assert np.all(np.isfinite(run.weights.value.numpy()))
    assert np.all(np.isfinite(run.table.value.numpy()))
    assert np.all(run.weights.value.numpy() != before)


def test_moments_are_kept_on_the_device(device):
    run = Run(device, "auto")
    for parameters in run.adam.parameters:
        assert {str(a.device) for a in parameters.state().values()} == {str(wp.get_device(device))}
