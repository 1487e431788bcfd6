"""Adam over a network's weights and a grid's table, learning-rate decay, moving average."""

from dataclasses import dataclass, field

import numpy as np
import warp as wp

from ngp_warp import exchange, launch
from ngp_warp.config import OptimizerConfig
from ngp_warp.errors import ConfigError
from ngp_warp.halves import to_half
from ngp_warp.kernels import adam as kernels
from ngp_warp.kernels import adam_portable as portable
from ngp_warp.kernels.grid import GROUP


@dataclass
class Parameters:
    """A flat array of trained values with what the optimizer keeps for it.

    A grid's table has ``n_features`` > 0: its entries are stepped only where they got a gradient.
    """

    value: wp.array
    gradient: wp.array
    first_moment: wp.array
    second_moment: wp.array
    n_features: int = 0
    touched: wp.array | None = None
    """uint8 [n_groups]: if any of ``GROUP`` entries got a gradient; None: Adam looks itself."""
    count: wp.array | None = None
    half_value: wp.array | None = None
    average: wp.array | None = None
    quantization: float = 0.0
    """Step of the values that are read, as a share of their root mean square; 0: not rounded."""
    quantum: wp.array | None = None
    """The step itself, float32 [1]; 0 until ``quantize``."""
    read: wp.array = field(init=False)
    """What the encoding or network reads: the float16 copy where there is one."""

    def __post_init__(self):
        self.read = self.half_value if self.half_value is not None else self.value

    def state(self) -> dict[str, wp.array]:
        """Return what a checkpoint holds, by name."""
        arrays = {
            "value": self.value,
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "count": self.count,
            "average": self.average,
            "quantum": self.quantum,
        }
        return {name: a for name, a in arrays.items() if a is not None and a.size}

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Copy a checkpoint's arrays in, and make the float16 copy anew."""
        for name, array in self.state().items():
            array.assign(arrays[name])
        self.assign(arrays["value"])

    def assign(self, values: np.ndarray) -> None:
        """Set the values, float32 [n], and make the float16 copy anew."""
        self.value.assign(values)
        if self.half_value is not None:
            self.half_value.assign(to_half(rounded(values, self.step)))

    @property
    def step(self) -> float:
        """The step of the values that are read; 0: they are not rounded, or not yet."""
        return 0.0 if self.quantum is None else float(self.quantum.numpy()[0])

    def quantize(self) -> None:
        """Choose the step from the values as they are; what is read is rounded from now on."""
        if self.quantum is None or self.step > 0:
            return
        values = self.value.numpy()
        mean_square = float(np.square(values, dtype=np.float64).mean())
        self.quantum.fill_(self.quantization * mean_square**0.5)
        self.assign(values)


def rounded(values: np.ndarray, quantum: float) -> np.ndarray:
    """Return values, float32, rounded to multiples of ``quantum``; 0: as they are.

    In float32 as kernels/adam.py does it.
    """
    if quantum == 0:
        return values
    return np.rint(values / np.float32(quantum)) * np.float32(quantum)


def make_weights(
    values: np.ndarray, config: OptimizerConfig, device: str, *, trainable: bool = True
) -> Parameters:
    """Return a network's weights, float32 [n], ready for ``Adam`` unless not ``trainable``."""
    return _make(
        values,
        config,
        device,
        0,
        half=False,
        quantization=0.0,
        fixed_point=False,
        flagged=False,
        trainable=trainable,
    )


def make_table(
    values: np.ndarray,
    n_features: int,
    config: OptimizerConfig,
    device: str,
    *,
    half: bool = False,
    quantization: float = 0.0,
    fixed_point: bool = False,
    flagged: bool | None = None,
    trainable: bool = True,
) -> Parameters:
    """Return a grid's table, float32 [n_entries * n_features], ready for ``Adam``.

    Args:
        values: initial values.
        n_features: of an entry.
        config: says whether an average is kept.
        device: "cpu" or a CUDA device.
        half: keep a float16 copy that is read.
        quantization: round that copy, see ``Parameters.quantization``.
        fixed_point: int64 gradients, whose sum does not depend on the order (CUDA).
        flagged: there are flags of what got a gradient; None: on a CPU, which always needs them.
        trainable: allocate gradients and moments, four times the values.
    """
    return _make(
        values,
        config,
        device,
        n_features,
        half=half,
        quantization=quantization,
        fixed_point=fixed_point,
        flagged=device == "cpu" if flagged is None else flagged,
        trainable=trainable,
    )


def _make(
    values: np.ndarray,
    config: OptimizerConfig,
    device: str,
    n_features: int,
    *,
    half: bool,
    quantization: float,
    fixed_point: bool,
    flagged: bool,
    trainable: bool,
) -> Parameters:
    n = values.size
    n_trained = n if trainable else 0

    def zeros(size: int, dtype: type = wp.float32) -> wp.array:
        return wp.zeros(size, dtype=dtype, device=device)

    table = n_features > 0
    return Parameters(
        value=wp.array(values, dtype=wp.float32, device=device),
        gradient=zeros(n_trained, wp.int64 if fixed_point else wp.float32),
        first_moment=zeros(n_trained),
        second_moment=zeros(n_trained),
        n_features=n_features,
        touched=zeros(n_trained // n_features // GROUP, wp.uint8) if flagged else None,
        count=zeros(n_trained // n_features, wp.uint16) if table else None,
        half_value=wp.array(to_half(values), device=device) if half else None,
        average=zeros(n) if config.ema_decay > 0 else None,
        quantization=quantization,
        quantum=zeros(1) if quantization > 0 else None,
    )


class Adam:
    """One optimizer step as recorded launches; the step number lives on the device.

    Args:
        config: settings.
        parameters: what is optimized; their gradients are set by the launches before.
        device: "cpu" or a CUDA device.
        backend: "vector" (CPU only), "portable", or "auto": the faster one.
        leader: another optimizer, whose step and number of steps are this one's too: its
            ``advance`` runs in an earlier stage.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        parameters: list[Parameters],
        device: str,
        backend: str = "auto",
        *,
        leader: "Adam | None" = None,
    ):
        if config.learning_rate is None or config.decay_start is None:
            raise ConfigError("give optimizer.learning_rate and optimizer.decay_start")
        self.config = config
        self.parameters = parameters
        self.device = device
        vector = backend == "vector" or (backend == "auto" and device == "cpu")
        self._kernels = kernels if vector else portable
        self._increment = 0 if leader else 1
        self.step = leader.step if leader else wp.zeros(1, dtype=wp.int64, device=device)
        self.n_steps = leader.n_steps if leader else wp.zeros(1, dtype=wp.int64, device=device)
        self.schedule = wp.zeros(kernels.N_SCHEDULE, dtype=wp.float32, device=device)
        self._correction = wp.array(bias_corrections(config), dtype=wp.float32, device=device)
        self._none = wp.zeros(1, dtype=wp.float16, device=device)
        self._no_quantum = wp.zeros(1, dtype=wp.float32, device=device)

    def advance(self) -> launch.Launch:
        """Record: the step number plus one (unless a leader's), and this step's learning rate."""
        c = self.config
        args = [self.n_steps, c.learning_rate, c.decay_start, c.final_learning_rate]
        args += [c.beta1, c.beta2, self._increment, self.step, self.schedule]
        return launch.record(kernels.advance_kernel, 1, args, self.device)

    def update(self) -> list[list[launch.Launch]]:
        """Record the step of all parameters: stages of launches that may run side by side.

        Where several processes train, their gradients are averaged first.
        """
        stages = exchange.sum_gradients(self.parameters, self.device)
        stages.append([self._update(p) for p in self.parameters])
        if self._kernels is portable and self.device == "cpu":
            # its items share flags, so that none may clear one while another has not read it
            flags = [p.touched for p in self.parameters if p.touched is not None]
            stages += [[self._clear(touched)] for touched in flags]
        averages = [self._update_average(p) for p in self.parameters if p.average is not None]
        return stages + ([averages] if averages else [])

    def quantize(self) -> None:
        """Begin to round what is read of the parameters that are to be quantized."""
        for p in self.parameters:
            p.quantize()

    def _update(self, p: Parameters) -> launch.Launch:
        c, k = self.config, self._kernels
        if p.n_features:
            return self._update_table(p)
        # float(): a setting given as 0 would be an integer in the kernels' text
        moments = float(c.beta1), float(c.beta2), float(c.epsilon)
        kernel = k.weights_kernel(*moments, float(c.l2_regularization))
        args = [p.value.size, self.schedule, p.gradient]
        args += [p.value, p.first_moment, p.second_moment]
        return launch.record(kernel, k.weight_items(p.value.size), args, self.device)

    def _update_table(self, p: Parameters) -> launch.Launch:
        c, k = self.config, self._kernels
        step = kernels.TableStep(
            n_features=p.n_features,
            beta1=float(c.beta1),
            beta2=float(c.beta2),
            epsilon=float(c.epsilon),
            half=p.half_value is not None,
            fixed_point=p.gradient.dtype == wp.int64,
            quantized=p.quantum is not None,
            flagged=p.touched is not None,
        )
        n_groups = p.gradient.size // p.n_features // GROUP
        args = [n_groups, self.schedule, self._correction, p.gradient, p.touched, p.value]
        args += [p.half_value or self._none, p.first_moment, p.second_moment, p.count]
        args += [p.quantum or self._no_quantum]
        n_items = k.table_items(n_groups, step, self.device)
        kernel = k.table_kernel(step)
        return launch.record(kernel, n_items, args, self.device, block_dim=portable.BLOCK)

    def _clear(self, touched: wp.array) -> launch.Launch:
        return launch.Launch([launch.Call(touched.zero_)], self.device)

    def _update_average(self, p: Parameters) -> launch.Launch:
        kernel = self._kernels.average_kernel(self.config.ema_decay)
        args = [p.value.size, p.value, p.average]
        return launch.record(kernel, self._kernels.average_items(p.value.size), args, self.device)

    def use_average(self) -> None:
        """Replace the parameters by their moving average, for evaluation; a no-op without one."""
        for p in self.parameters:
            if p.average is not None:
                p.assign(self.averaged(p))

    def averaged(self, p: Parameters) -> np.ndarray:
        """Return the parameters that are evaluated: the debiased average, or the last values."""
        if p.average is None:
            return p.value.numpy()
        steps = int(self.step.numpy()[0])
        if steps == 0:
            return p.value.numpy()
        return p.average.numpy() / np.float32(1.0 - self.config.ema_decay**steps)


def bias_corrections(config: OptimizerConfig) -> np.ndarray:
    """Return float32 [COUNT_MAX + 1]: sqrt(1 - beta2^n) / (1 - beta1^n) after n steps."""
    n = np.arange(1, kernels.COUNT_MAX + 1, dtype=np.float64)
    values = np.sqrt(1 - config.beta2**n) / (1 - config.beta1**n)
    return np.concatenate([[0.0], values]).astype(np.float32)
