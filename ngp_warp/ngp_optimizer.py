"""Optimizers of instant-ngp's network configs: a chain of Ema, ExponentialDecay and Adam in ours.

Decay: instant-ngp multiplies the learning rate by ``decay_base`` at ``decay_start`` and every
``decay_interval`` steps after, in runs of ``STEPS`` steps. Ours falls evenly from a share of any
run's steps to its end, so ``decay_start / STEPS`` becomes ``decay_start``, and ``decay_base`` to
the power of the falls until step ``STEPS`` becomes ``final_learning_rate``.
"""

from typing import Any

from ngp_warp.json_values import JsonValues

STEPS = 35_000
"""Steps that instant-ngp's decays are made for."""

_ADAM = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "l2_reg": 1e-8}
_DECAY = {"decay_start": 10000, "decay_interval": 10000, "decay_base": 0.1, "decay_end": 10_000_000}


def read_optimizer(reader: JsonValues, value: Any) -> dict[str, Any]:
    """Return our settings of an optimizer's chain; what is not in the chain is not done.

    Raises:
        ConfigError: an optimizer that there is none of, or values that are out of range.
    """
    result: dict[str, Any] = {
        "ema_decay": 0.0,
        "decay_start": 1.0,
        "final_learning_rate": 1.0,
    }
    where, seen = "optimizer", set()
    while True:
        value = reader.object(value, where)
        otype = reader.otype(value, where, "Adam")
        kind = otype.lower()
        if kind in seen:
            raise reader.error(where, f"{otype} is there twice")
        seen.add(kind)
        if kind == "adam":
            _adam(reader, value, result, where)
            return result
        if kind == "ema":
            decay = reader.number(value.get("decay", 0.99), f"{where}.decay")
            result["ema_decay"] = float(decay)
            reader.leave_rest(value, {"otype", "nested", "decay"}, where)
        elif kind == "exponentialdecay":
            _decay(reader, value, result, where)
        else:
            raise reader.error(
                where, f"{otype} is not among what there is: Ema, ExponentialDecay, Adam"
            )
        if "nested" not in value:
            raise reader.error(where, f"{otype} must have a nested optimizer")
        value, where = value["nested"], f"{where}.nested"


def _adam(reader: JsonValues, value: dict[str, Any], result: dict[str, Any], where: str) -> None:
    for name, usual in _ADAM.items():
        ours = "l2_regularization" if name == "l2_reg" else name
        result[ours] = float(reader.number(value.get(name, usual), f"{where}.{name}"))
    reader.leave_rest(value, {"otype", *_ADAM}, where)


def _decay(reader: JsonValues, value: dict[str, Any], result: dict[str, Any], where: str) -> None:
    given = {k: reader.number(value.get(k, usual), f"{where}.{k}") for k, usual in _DECAY.items()}
    start, interval, base = (given[f"decay_{k}"] for k in ("start", "interval", "base"))
    if start < 0 or interval < 1 or not 0 < base <= 1:
        raise reader.error(
            where,
            f"must have a decay_start of 0 or more, a decay_interval of 1 or more and a "
            f"decay_base above 0 and up to 1, got {start:g}, {interval:g} and {base:g}",
        )
    end = min(given["decay_end"], STEPS)
    falls = int((end - start) // interval) + 1 if end >= start else 0
    if falls:
        # float32 ends at 1e-38; a rate that small is none
        result["decay_start"] = start / STEPS
        result["final_learning_rate"] = max(float(base) ** falls, 1e-12)
    reader.notes.append(
        f"{where}: of {STEPS:,} steps, {falls} falls by {base:g} from step {start:g} on; here "
        f"an even fall to {result['final_learning_rate']:.4g} of the learning rate from "
        f"{result['decay_start']:.0%} of the run's steps on"
    )
    reader.leave_rest(value, {"otype", "nested", *_DECAY}, where)
