"""Transfer functions: presets, files, and what is wrong with some."""

import json
import math

import numpy as np
import pytest

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.primitives.pictures import srgb_to_linear
from ngp_warp.primitives.volume.transfer_function import N_ENTRIES, PRESETS, TransferFunction

LOW, HIGH = [0, 0.1, 0.2, 0.3, 0.0], [2, 1.0, 0.8, 0.6, 0.5]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_span_a_range_and_show_nothing_at_its_low_end(name):
    made = TransferFunction.preset(name, -1000, 3000)
    assert (made.low, made.high) == (-1000, 3000)
    at = made.at(np.linspace(-1000, 3000, 50))
    assert at[0, 3] == 0
    assert (np.diff(at[:, 3]) >= 0).all()
    # brighter with the value, so that structure reads
    luminance = srgb_to_linear(at[:, :3]) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1e-6).all()
    assert at[-1, 3] > 0.1
    assert TransferFunction.parse(name, -1000, 3000) == made


def test_between_points_it_is_linear_and_beyond_them_constant():
    made = TransferFunction((tuple(LOW), (1, 0.5, 0.5, 0.5, 0.1), tuple(HIGH)))
    got = made.at(np.array([-5, 0, 0.5, 1, 1.5, 2, 9]))
    np.testing.assert_allclose(got[:2], [LOW[1:]] * 2)
    np.testing.assert_allclose(got[2], [0.3, 0.35, 0.4, 0.05])
    np.testing.assert_allclose(got[4], [0.75, 0.65, 0.55, 0.3])
    np.testing.assert_allclose(got[5:], [HIGH[1:]] * 2)


def test_the_table_holds_linear_light_and_extinctions():
    made = TransferFunction((tuple(LOW), (*HIGH[:4], 1.0)))
    table = made.table()
    assert table.shape == (N_ENTRIES, 4)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    at = made.at(np.linspace(0, 2, N_ENTRIES))
    np.testing.assert_allclose(table[:, :3], srgb_to_linear(at[:, :3]), atol=1e-6)
    np.testing.assert_allclose(1 - np.exp(-table[:, 3]), at[:, 3], atol=1e-6)


def test_a_file_is_what_was_written(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"points": [LOW, HIGH], "comment": "anything else"}))
    made = TransferFunction.load(path)
    assert made.points == (tuple(LOW), tuple(HIGH))
    assert TransferFunction.parse(str(path), 0, 1) == made
    other = tmp_path / "without an extension"
    other.write_bytes(path.read_bytes())
    assert TransferFunction.parse(str(other), 0, 1) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("\xff", "not JSON"),
        ("[" * 100000, "not JSON"),
        ("[]", 'no "points"'),
        ("{}", 'no "points"'),
        ('{"points": 3}', "must be a list"),
        ('{"points": [3, 4]}', "must be a list"),
        ('{"points": []}', "at least 2"),
        (f'{{"points": [{LOW}]}}', "at least 2"),
        (f'{{"points": [{LOW}, [1, 0, 0, 0]]}}', "point 1 .* five numbers"),
        (f'{{"points": [{LOW}, [1, 0, 0, "0", 0]]}}', "point 1 .* no numbers"),
        (f'{{"points": [{LOW}, [1, 0, 0, true, 0]]}}', "point 1 .* no numbers"),
        (f'{{"points": [{LOW}, [NaN, 0, 0, 0, 0]]}}', "point 1 .* not finite"),
        (f'{{"points": [{LOW}, [1e999, 0, 0, 0, 0]]}}', "point 1 .* not finite"),
        (f'{{"points": [{LOW}, [1{"0" * 400}, 0, 0, 0, 0]]}}', "point 1 .* not finite"),
        (f'{{"points": [{LOW}, [1, 0, 0, 0, 1.5]]}}', "point 1 .* outside"),
        (f'{{"points": [{LOW}, [1, -0.1, 0, 0, 1]]}}', "point 1 .* outside"),
        (f'{{"points": [{HIGH}, {LOW}]}}', "must rise: point 1"),
        (f'{{"points": [{LOW}, {LOW}]}}', "must rise: point 1"),
    ],
)
def test_malformed_files_are_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=message) as caught:
        TransferFunction.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_files_that_are_not_there_and_names_that_are_none(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        TransferFunction.load(tmp_path / "a.json")
    with pytest.raises(DataError, match="cannot read"):
        TransferFunction.parse(str(tmp_path / "a.json"), 0, 1)
    with pytest.raises(DataError, match="cannot read"):
        TransferFunction.load(tmp_path)
    with pytest.raises(ConfigError, match="grey, bone"):
        TransferFunction.parse("gray", 0, 1)
    for low, high in ((1, 1), (2, 1), (0, math.inf), (math.nan, 1)):
        with pytest.raises(ConfigError, match="range"):
            TransferFunction.preset("grey", low, high)
