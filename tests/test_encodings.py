"""Every encoding against its float64 twin, to second order, and the laws of their interface."""

import numpy as np
import pytest
import warp as wp

from ngp_warp import launch
from ngp_warp.encodings.make import make_encoding
from ngp_warp.errors import ShapeError
from tests.encoding_case import CASES, Runner, run
from tests.grid_case import along

# float32 sums of some tens of O(1) terms, positions rounded to 2^-19 of a cell (see test_grid.py)
TOLERANCE = 3e-5
TRAINED = [case for case in CASES if case.twin.n_params]
LINEAR = [case for case in TRAINED if not case.product]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def runner(request, device):
    return Runner(request.param, device)


def error(got, wanted):
    """Largest difference over the largest value, which may be 0 or little."""
    assert got.shape == wanted.shape
    assert np.all(np.isfinite(got))
    return np.abs(got - wanted).max(initial=0) / max(np.abs(wanted).max(initial=0), 1)


def test_features_are_the_twins(runner):
    assert runner.encoding.n_params == runner.case.twin.n_params
    assert runner.encoding.n_dims == runner.case.twin.n_dims
    y = runner.forward()
    assert error(y, runner.twin_forward()) < TOLERANCE
    moved = runner.twin_forward(np.clip(runner.x + 0.03, 0, 1))
    assert error(y, moved) > 100 * TOLERANCE or runner.case.name == "harmonics 1"


def test_gradients_are_the_twins(runner):
    got, (dx, d_params) = runner.backward(), runner.twin_backward()
    assert error(got["dx"], dx) < TOLERANCE
    assert error(got["d_params"], d_params) < TOLERANCE
    if np.any(dx):
        assert error(np.roll(got["dx"], 1, axis=0), dx) > 100 * TOLERANCE
    if len(d_params):
        assert error(np.roll(got["d_params"], 8), d_params) > 100 * TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_twins_gradients_are_differences(case):
    r = Runner(case, "cpu", n=12)
    dx, d_params = r.twin_backward()
    slope = np.sum(along(r.twin_forward, r.x, r.v) * r.dy, axis=1)
    # central differences: h^2 times third derivatives, up to (16 pi)^3
    assert error(np.sum(dx * r.v, axis=1), slope) < 1e-6
    if r.case.twin.n_params:
        u = np.random.default_rng(3).normal(size=r.params.shape)
        change = along(lambda p: r.twin_forward(params=p), r.params, u)
        assert np.sum(change * r.dy) == pytest.approx(np.sum(d_params * u), rel=1e-6, abs=1e-6)


def test_second_order_is_a_derivative_along_v(runner):
    # <v, dx> is the derivative of <y, dy> along v: so are its gradients those of y, dx, d_params
    got = runner.second_order()
    assert error(got["d_dy"], along(runner.twin_forward, runner.x, runner.v)) < TOLERANCE
    dx = along(lambda x: runner.twin_backward(x)[0], runner.x, runner.v)
    # curvatures cancel once more
    assert error(got["dx"], dx) < 3 * TOLERANCE
    d_params = along(lambda x: runner.twin_backward(x)[1], runner.x, runner.v)
    assert error(got["d_params"], d_params) < 3 * TOLERANCE
    if np.abs(dx).max() > 0.1:
        assert error(np.roll(got["dx"], 1, axis=0), dx) > 100 * TOLERANCE
    if np.any(got["d_dy"]):
        assert error(-got["d_dy"], got["d_dy"]) > 100 * TOLERANCE


def test_results_may_be_left_out(runner):
    for method in (runner.backward, runner.second_order):
        for name, value in method().items():
            # atomics have no order on a GPU
            assert error(method((name,))[name], value) < 1e-6
        assert method(()) == {}


def test_gradients_add_up(runner):
    # twice is as good as once with twice the gradient
    once = runner.backward()["d_params"]
    x, dy = runner.blocked(runner.x), runner.gradient(runner.dy)
    d_params = runner.ones()
    launches = runner.encoding.backward(x, runner.array(runner.params), dy, d_params=d_params)
    run(launches)
    run(launches)
    assert error(d_params.numpy() - 1, 2 * once) < 1e-6


@pytest.mark.parametrize("case", LINEAR, ids=lambda case: case.name)
def test_features_are_linear_in_the_parameters(case, device):
    r = Runner(case, device)
    y, params = r.forward(), r.params
    r.params = np.zeros_like(params)
    constant = r.forward()
    r.params = -2 * params
    assert error(r.forward() - constant, -2 * (y - constant)) < 1e-6


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_threads_change_nothing(case):
    results = []
    for n_threads in (1, 4):
        launch.set_num_threads(n_threads)
        r = Runner(case, "cpu", n=32 * 5)
        results.append([r.forward(), *r.backward().values(), *r.second_order().values()])
    launch.set_num_threads(None)
    for one, four in zip(*results, strict=True):
        assert np.array_equal(one, four)


def test_no_points_are_fine(runner):
    e, params = runner.encoding, runner.array(runner.params)
    none = wp.zeros(0, dtype=float, device=runner.device)
    d_params = runner.ones()
    run(e.forward(none, params, none))
    run(e.backward(none, params, none, dx=none, d_params=d_params))
    run(e.second_order(none, params, none, none, d_dy=none, dx=none, d_params=d_params))
    assert np.all(d_params.numpy() == 1)


def test_padding_changes_nothing(runner):
    # 45 points fill a block and a part of one; here they come with 19 others without gradients
    y, first, second = runner.forward(), runner.backward(), runner.second_order()
    more = Runner(runner.case, runner.device, n=64)
    more.params = runner.params
    more.x[:45], more.dy[:45], more.v[:45] = runner.x, runner.dy, runner.v
    more.dy[45:] = 0
    assert np.array_equal(more.forward()[:45], y)
    for old, new in ((first, more.backward()), (second, more.second_order())):
        assert np.array_equal(new["dx"][:45], old["dx"])
        assert error(new["d_params"], old["d_params"]) < 1e-6


def test_arrays_that_do_not_fit_are_refused(runner):
    e, x, params = runner.encoding, runner.blocked(runner.x), runner.array(runner.params)
    y, small = runner.empty(e.n_outputs), wp.zeros(3, dtype=float, device=runner.device)
    with pytest.raises(ShapeError, match="y must have"):
        e.forward(x, params, small)
    with pytest.raises(ShapeError, match="dx must have"):
        e.backward(x, params, y, dx=small)
    with pytest.raises(ShapeError, match="v must have"):
        e.second_order(x, params, y, small, d_dy=None, dx=None, d_params=None)
    if e.n_params:
        with pytest.raises(ShapeError, match=r"params must have .* got none"):
            e.forward(x, None, y)
    else:
        run(e.forward(x, None, y))


def test_initial_parameters_follow_from_the_seed(runner):
    first, again, other = (runner.encoding.initial_params(seed) for seed in (3, 3, 4))
    assert first.dtype == np.float32
    assert first.shape == (runner.encoding.n_params,)
    assert np.array_equal(first, again)
    if len(first):
        assert not np.array_equal(first, other)
        assert 0 < np.abs(first).max() <= 1e-4


@pytest.mark.parametrize("case", [c for c in CASES if c.config], ids=lambda case: case.name)
def test_hyperparams_make_the_same_encoding(case):
    made = case.make("cpu")
    again = make_encoding(made.n_dims, made.hyperparams(), "cpu")
    assert again.hyperparams() == made.hyperparams()
    assert (again.n_params, again.n_outputs) == (made.n_params, made.n_outputs)
