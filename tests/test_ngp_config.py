"""Network configs of instant-ngp as settings: published ones, their children, malformed ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from ngp_warp.cli import app, options
from ngp_warp.config import from_dict
from ngp_warp.errors import ConfigError
from ngp_warp.json_files import MAX_PARENTS, merge, parse_json, read_json, with_parents
from ngp_warp.ngp_config import is_ngp_config, settings_from_ngp
from ngp_warp.primitives import get

# Keys and values as published: configs/{image,sdf,nerf,volume}/base.json.


def _chain(rate: float, start: int, interval: int, ema: float | None) -> dict[str, Any]:
    adam = {"learning_rate": rate, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-15, "l2_reg": 1e-6}
    decay = {"decay_start": start, "decay_interval": interval, "decay_base": 0.33}
    chain = {"otype": "ExponentialDecay", **decay, "nested": {"otype": "Adam", **adam}}
    return chain if ema is None else {"otype": "Ema", "decay": ema, "nested": chain}


def _grid(levels: int, features: int, log2: int) -> dict[str, Any]:
    sizes = {"n_levels": levels, "n_features_per_level": features, "log2_hashmap_size": log2}
    return {"otype": "HashGrid", **sizes, "base_resolution": 16}


def _mlp(layers: int, output: str = "None") -> dict[str, Any]:
    names = {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": output}
    return {**names, "n_neurons": 64, "n_hidden_layers": layers}


BASE: dict[str, dict[str, Any]] = {
    "image": {
        "loss": {"otype": "L2"},
        "optimizer": _chain(1e-2, 20000, 10000, None),
        "encoding": _grid(16, 2, 24),
        "network": _mlp(2),
    },
    "sdf": {
        "loss": {"otype": "MAPE"},
        "optimizer": _chain(1e-4, 10000, 5000, 0.95),
        "encoding": _grid(16, 2, 19),
        "network": _mlp(2),
    },
    "volume": {
        "loss": {"otype": "L2"},
        "optimizer": _chain(1e-4, 10000, 5000, 0.95),
        "encoding": _grid(16, 2, 19),
        "network": _mlp(2, "ReLU"),
    },
    "nerf": {
        "loss": {"otype": "Huber"},
        "optimizer": _chain(1e-2, 20000, 10000, 0.95),
        "encoding": _grid(8, 4, 19),
        "network": _mlp(1),
        "dir_encoding": {
            "otype": "Composite",
            "nested": [
                {"n_dims_to_encode": 3, "otype": "SphericalHarmonics", "degree": 4},
                {"otype": "Identity"},
            ],
        },
        "rgb_network": _mlp(2),
        "distortion_map": {"resolution": [32, 32]},
        "envmap": {"loss": {"otype": "RelativeL2"}},
    },
}
NETWORK = {"image": "network", "sdf": "network", "volume": "network", "nerf": "density_network"}


def _read(values: dict[str, Any], primitive: str, folder: Path) -> tuple[Any, list[str]]:
    settings, notes = settings_from_ngp(values, primitive, folder / "base.json")
    return from_dict(get(primitive).config, settings), notes


@pytest.mark.parametrize("primitive", BASE)
def test_a_published_config_is_taken_over(primitive: str, tmp_path: Path) -> None:
    base = BASE[primitive]
    assert is_ngp_config(base)
    config, _ = _read(base, primitive, tmp_path)
    assert config.loss == base["loss"]["otype"].lower()
    for name in ("n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution"):
        assert getattr(config.encoding, name) == base["encoding"][name]
    assert config.encoding.grid_type == "hash"
    assert config.encoding.finest_resolution == (2048 if primitive == "sdf" else None)
    network = getattr(config, NETWORK[primitive])
    assert (network.n_neurons, network.activation) == (64, "relu")
    assert network.n_hidden_layers == base["network"]["n_hidden_layers"]
    assert network.output_activation == ("relu" if primitive == "volume" else "none")
    optimizer = config.optimizer
    assert optimizer.ema_decay == (0.0 if primitive == "image" else 0.95)
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.99, 1e-15)
    assert optimizer.l2_regularization == 1e-6
    slow = primitive in ("sdf", "volume")
    assert optimizer.learning_rate == (1e-4 if slow else 1e-2)
    # falls at 20k and 30k, or at 10k, 15k, ... 35k, of 35k steps
    assert optimizer.decay_start == pytest.approx((10 if slow else 20) / 35)
    assert optimizer.final_learning_rate == pytest.approx(0.33 ** (6 if slow else 2))


def test_what_is_not_taken_over_is_named(tmp_path: Path) -> None:
    config, notes = _read(BASE["nerf"], "nerf", tmp_path)
    assert config.color_network.n_hidden_layers == 2
    assert config.color_network.n_neurons == 64
    for name in ("envmap", "distortion_map"):
        assert f"not taken over: {name}" in notes
    assert any("2048 times" in note for note in notes)
    adam = {"otype": "Adam", "beta3": 0.9, "adabound": False, "identity": 1e-4}
    network = {**_mlp(1), "feedback_alignment": True}
    values = {"optimizer": adam, "network": network, "other": 1, "rgb_network": _mlp(2)}
    _, notes = _read(values, "image", tmp_path)
    left = {note for note in notes if note.startswith("not taken over")}
    names = ("optimizer.beta3", "optimizer.identity", "network.feedback_alignment", "other")
    assert left == {f"not taken over: {name}" for name in (*names, "rgb_network")}


def test_what_is_left_out_has_the_documented_defaults(tmp_path: Path) -> None:
    values = {
        "optimizer": {"otype": "ExponentialDecay", "nested": {}},
        "encoding": {"otype": "Grid", "type": "Tiled", "interpolation": "Smoothstep"},
        "network": {"otype": "CutlassMLP"},
    }
    config, _ = _read(values, "image", tmp_path)
    assert (config.optimizer.learning_rate, config.optimizer.beta2) == (1e-3, 0.999)
    assert config.optimizer.final_learning_rate == pytest.approx(0.1**3)
    assert (config.network.n_neurons, config.network.n_hidden_layers) == (128, 5)
    encoding = config.encoding
    assert (encoding.grid_type, encoding.interpolation) == ("tiled", "smoothstep")
    assert (encoding.n_levels, encoding.n_features_per_level) == (16, 2)


def test_without_a_decay_the_rate_stays(tmp_path: Path) -> None:
    config, _ = _read({"optimizer": {"otype": "Adam"}}, "image", tmp_path)
    assert (config.optimizer.decay_start, config.optimizer.final_learning_rate) == (1.0, 1.0)
    late = {"otype": "ExponentialDecay", "decay_start": 40000, "nested": {"otype": "Adam"}}
    config, notes = _read({"optimizer": late}, "image", tmp_path)
    assert config.optimizer.final_learning_rate == 1.0
    assert any("0 falls" in note for note in notes)
    ended = {**late, "decay_start": 10000, "decay_interval": 5000, "decay_end": 15000}
    config, _ = _read({"optimizer": ended}, "image", tmp_path)
    assert config.optimizer.final_learning_rate == pytest.approx(0.1**2)


def test_parents_lie_below_their_children(tmp_path: Path) -> None:
    folder = tmp_path / "up"
    folder.mkdir()
    (folder / "base.json").write_text("// as published\n" + json.dumps(BASE["nerf"]))
    small = {
        "parent": "up/base.json",
        "optimizer": {"nested": {"decay_start": 10000, "decay_interval": 5000}},
        "encoding": {"log2_hashmap_size": 15},
        "envmap": None,
    }
    (tmp_path / "small.json").write_text(json.dumps(small))
    dense = {
        "parent": "small.json",
        "encoding": {"otype": "DenseGrid", "per_level_scale": 1.405},
    }
    assert is_ngp_config(dense)
    config, notes = _read(dense, "nerf", tmp_path)
    assert config.encoding.grid_type == "dense"
    assert config.encoding.per_level_scale == 1.405
    assert config.encoding.log2_hashmap_size == 15
    assert config.encoding.n_features_per_level == 4
    assert config.optimizer.decay_start == pytest.approx(10 / 35)
    assert config.optimizer.ema_decay == 0.95
    assert "not taken over: distortion_map" in notes
    assert not any("envmap" in note for note in notes)


def test_merging_replaces_arrays_and_removes_what_is_null() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merge(below, {"a": {"c": [3], "b": None}, "e": {"f": 1}}) == {
        "a": {"c": [3]},
        "d": 3,
        "e": {"f": 1},
    }
    assert below == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_comments_are_left_out_but_not_in_strings() -> None:
    text = '{ // "a": 1,\n "b": "//no /*", /* "c":\n 2 */ "d": "\\"//" }'
    assert parse_json(text) == {"b": "//no /*", "d": '"//'}
    with pytest.raises(ValueError, match="Expecting"):
        parse_json("// nothing else")


def test_an_error_below_a_comment_names_its_own_place() -> None:
    text = '{\n// a comment\n/* of two\nlines */ "a": 1,\n"b": 2,\n}'
    with pytest.raises(ValueError, match="line 6 column 1"):
        parse_json(text)


def test_a_byte_order_mark_is_none_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(file) == {"a": 1}


def test_as_many_parents_as_are_said_are_read(tmp_path: Path) -> None:
    for index in range(MAX_PARENTS + 1):
        (tmp_path / f"{index}.json").write_text(json.dumps({"parent": f"{index + 1}.json"}))
    last = tmp_path / f"{MAX_PARENTS}.json"
    last.write_text(json.dumps({"loss": {"otype": "L1"}}))
    values = {"parent": "1.json"}
    assert with_parents(values, tmp_path / "0.json") == {"loss": {"otype": "L1"}}
    last.write_text(json.dumps({"parent": f"{MAX_PARENTS + 1}.json"}))
    (tmp_path / f"{MAX_PARENTS + 1}.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"more than {MAX_PARENTS}"):
        with_parents(values, tmp_path / "0.json")


def test_parents_that_are_no_paths_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in ("a", "null\0.json", "x" * 5000):
        with pytest.raises(ConfigError, match=r"base\.json: parent|cannot read settings"):
            settings_from_ngp({"parent": name}, "image", tmp_path / "base.json")


def test_nesting_without_end_is_one_error(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    (tmp_path / "up.json").write_text("{}")
    with pytest.raises(ConfigError, match="nested too deeply"):
        settings_from_ngp({**deep, "parent": "up.json"}, "image", tmp_path / "base.json")


def test_what_directions_have_besides_is_named(tmp_path: Path) -> None:
    harmonics = {"otype": "SphericalHarmonics", "degree": 4, "a": 1}
    nested = [harmonics, {"otype": "Identity", "scale": 2.0}]
    values = {"dir_encoding": {"otype": "Composite", "nested": nested, "b": 1}}
    _, notes = settings_from_ngp(values, "nerf", tmp_path / "base.json")
    assert {note.removeprefix("not taken over: dir_encoding.") for note in notes[1:]} == {
        "b",
        "nested[0].a",
        "nested[1].scale",
    }
    _, notes = settings_from_ngp({"dir_encoding": harmonics}, "nerf", tmp_path / "base.json")
    assert notes[1:] == ["not taken over: dir_encoding.a"]


def _chained(*otypes: str) -> dict[str, Any]:
    value: dict[str, Any] = {"otype": "Adam"}
    for otype in reversed(otypes):
        value = {"otype": otype, "nested": value}
    return {"optimizer": value}


def _directions(reduction: str = "Concatenation", **settings: Any) -> dict[str, Any]:
    parts = [{"otype": "SphericalHarmonics", "degree": 4, **settings}, {"otype": "Identity"}]
    return {"dir_encoding": {"otype": "Composite", "nested": parts, "reduction": reduction}}


@pytest.mark.parametrize(
    ("primitive", "values", "message"),
    [
        ("image", {"loss": {"otype": "CrossEntropy"}}, "loss CrossEntropy .* Huber, L1, L2"),
        ("image", {"loss": {"otype": 3}}, "loss.otype must be a name"),
        ("image", _chained("Ema", "Shampoo"), r"optimizer\.nested Shampoo .* Ema, Exp"),
        ("image", _chained("Ema", "Ema"), r"optimizer\.nested Ema is there twice"),
        ("image", {"optimizer": {"otype": "Ema"}}, "must have a nested optimizer"),
        ("image", {"optimizer": {"nested": []}, "loss": {}}, None),
        ("image", {"optimizer": {"otype": "Ema", "nested": []}}, "must be an object"),
        ("image", {"optimizer": {"otype": "Adam", "beta1": "x"}}, r"optimizer\.beta1 must be a n"),
        ("image", {"optimizer": {"otype": "Adam", "beta1": float("nan")}}, "must be a number"),
        ("image", {"network": {"otype": "MLP", "n_neurons": 10**400}}, "must be a number"),
        ("image", {"encoding": {"otype": "Frequency"}}, "encoding Frequency .* HashGrid"),
        ("sdf", {"encoding": {"otype": "Takikawa"}}, "encoding Takikawa .* HashGrid"),
        ("image", {"encoding": {"otype": "HashGrid", "hash": "Rng"}}, "must be CoherentPrime"),
        ("image", {"encoding": {"otype": "HashGrid", "n_levels": 1.5}}, "a whole number"),
        ("image", {"encoding": {"otype": "Grid", "type": "Cubic"}}, "hash, dense, tiled"),
        (
            "image",
            {"encoding": {"otype": "HashGrid", "stochastic_interpolation": True}},
            "is not to be had",
        ),
        ("image", {"network": {"otype": "CutlassResNet"}}, "CutlassResNet .* FullyFusedMLP"),
        ("image", {"network": {"otype": "MLP", "activation": "Snake"}}, "Snake .* ReLU"),
        ("nerf", {"dir_encoding": {"otype": "Frequency"}}, "SphericalHarmonics of degree 4"),
        ("nerf", {"dir_encoding": {"otype": "SphericalHarmonics", "degree": 3}}, "of degree 3"),
        ("nerf", {"dir_encoding": {"otype": "Composite", "nested": 1}}, "an array"),
        ("nerf", _directions(reduction="Product"), "reduction must be Concatenation"),
        ("nerf", _directions(dims_to_encode_begin=1), "in the first 3 dimensions"),
        ("image", {"parent": 3}, "parent must be the name"),
        ("image", {"parent": "gone.json"}, "cannot read settings from .*gone.json"),
        ("image", {"parent": "base.json"}, "its parents have no end"),
        ("image", {"parent": "bad.json"}, "bad.json is not a JSON file"),
        ("image", {"parent": "list.json"}, "list.json must hold an object"),
    ],
)
def test_what_cannot_be_is_one_error_that_says_where(
    primitive: str, values: dict[str, Any], message: str | None, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    path = tmp_path / "base.json"
    path.write_text(json.dumps(values))
    assert is_ngp_config(values)
    if message is None:
        settings_from_ngp(values, primitive, path)
        return
    with pytest.raises(ConfigError, match=message) as caught:
        settings_from_ngp(values, primitive, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [{}, [], None, {"loss": "l2"}, {"encoding": {"n_levels": 8}}, {"training": {"steps": 7}}],
)
def test_settings_of_ours_are_not_mistaken(values: Any) -> None:
    assert not is_ngp_config(values)


@pytest.mark.parametrize("command", ["fit-image", "fit-sdf", "nerf", "fit-volume"])
def test_the_commands_take_it_and_flags_stand_over_it(
    command: str, fake_core: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # the fake primitives have an image's settings
    values = {**BASE["image"], "envmap": {}}
    file = tmp_path / "base.json"
    file.write_text(json.dumps(values))
    if command == "nerf":
        del values["network"]
        file.write_text(json.dumps(values))
    args = [command, "a.jpg", "--config", str(file), "--encoding.n-levels", "4"]
    assert app.main(args) == 0
    config = fake_core.last[2]["config"]
    assert config.encoding.n_levels == 4
    assert config.encoding.log2_hashmap_size == 24
    out, err = capfd.readouterr()
    assert out == ""
    assert "not taken over: envmap" in err
    assert app.main([*args, "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    assert app.main([*args, "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["psnr"] == 41.5
    assert "not taken over: envmap" in err


def test_our_own_file_has_nothing_to_say(tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    file.write_text('{"loss": "l1"}')
    assert options.read_config(get("image").config, file, "image") == ({"loss": "l1"}, [])


@pytest.mark.parametrize(
    "values",
    [
        {"encoding": {"otype": "HashGrid", "n_levels": -1}},
        {"optimizer": {"otype": "Adam", "beta1": 2}},
        {"encoding": {"n_levels": 10**400}},
        {"optimizer": {"learning_rate": -(10**400)}},
        {"encoding": {"n_levels": [1] * 10000}},
        {"network": {"otype": "MLP", "n_neurons": 10**400}},
        {"network": {"otype": "MLP", "activation": [1] * 10000}},
    ],
)
def test_a_wrong_value_is_a_short_error_that_names_the_file(
    values: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"wrong\.json") as caught:
        options.read_config(get("image").config, file, "image")
    assert len(str(caught.value)) < len(str(file)) + 150


def test_names_from_a_file_cannot_write_to_the_terminal(
    fake_core: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "base.json"
    file.write_text(json.dumps({**BASE["image"], "a\n\x1b[31mb": 1}))
    assert app.main(["fit-image", "a.jpg", "--config", str(file)]) == 0
    assert "not taken over: a\\n\\x1b[31mb\n" in capfd.readouterr().err
