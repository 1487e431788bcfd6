"""tiny-cuda-nn's torch modules: the same constructors, attributes, parameters and conventions.

What is the same: configs, the number and order of the parameters (one flat float32 ``params``, the
network's matrices first, row-major, then the encoding's), padding, so that a ``state_dict`` of one
is one of the other; activations, signs, gradients.

What is not:

- Where parameters are made: on torch's default device, a CPU unless told otherwise; ``.to`` moves
  them. Inputs on another device are an error, where there they are moved.
- Outputs are float32 on a CPU. On CUDA they are float16, as there, but for Encoding(dtype=float32):
  the network works with float16 operands and float32 sums, an encoding reads float32 parameters.
- Initial parameters have the reference's distributions, not its random numbers.
- Second order is complete, and exact for every activation; a third order is refused.
- Unknown settings are ignored with a warning that names them, there without a word.

Sources: tiny-cuda-nn's bindings/torch/tinycudann/modules.py and src/cpp_api.cu (BSD-3).
"""

import copy
import gc
from numbers import Integral
from typing import Any

import torch

from ngp_warp.errors import ConfigError, ShapeError
from ngp_warp.torch.config import NetworkSettings, network_settings
from ngp_warp.torch.functions import evaluate
from ngp_warp.torch.layout import from_blocked, to_blocked
from ngp_warp.torch.memory import warp_device
from ngp_warp.torch.native import Native

HALF_LOSS_SCALE = 128.0


def free_temporary_memory() -> None:
    """Collect garbage; there is no other memory to free: nothing outlives the call it is for."""
    gc.collect()


def supports_jit_fusion(device: Any = None) -> bool:
    """Return False: kernels are compiled when they are first used, and there is no other mode."""
    return False


class Module(torch.nn.Module):
    """What all modules share: ``params``, and the way from points to outputs.

    Attributes:
        n_input_dims: columns of the input.
        n_output_dims: columns of the output.
        params: flat Parameter, float32 when made. Of another dtype (``half()``, ``double()``) it is
            read as float32, which all is computed in.
        seed: of its initial values.
        loss_scale: what half-precision gradients of a network are carried times on CUDA, and
            divided by again; on a CPU it changes nothing.
        jit_fusion: ignored.

    Modules can be copied, pickled, moved, and trained by several threads or processes.
    ``torch.compile`` leaves them as they are (a break in the graph; ``fullgraph=True`` fails), and
    autocast does too.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_output_dims: int,
        encoding_config: dict[str, Any],
        network: NetworkSettings | None,
        seed: int,
    ):
        super().__init__()
        self.n_input_dims = _whole("n_input_dims", n_input_dims, 1)
        self.n_output_dims = _whole("n_output_dims", n_output_dims, 1)
        self.seed = _whole("seed", seed, 0)
        self.loss_scale = HALF_LOSS_SCALE
        self.jit_fusion = False
        # read again on other devices and by copies, when its owner may have changed it
        self._encoding_json = copy.deepcopy(encoding_config)
        self._network = network
        self._precision: torch.dtype | None = None
        self._natives: dict[str, Native] = {}
        native = self._native("cpu")
        initial = torch.from_numpy(native.initial_params(self.seed))
        self.params = torch.nn.Parameter(initial.to(torch.get_default_device()))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the outputs."""
        if self._precision is not None:
            return self._precision
        return torch.float32 if self.params.device.type == "cpu" else torch.float16

    @torch.compiler.disable
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        """Return the outputs [n, n_output_dims] of points, differentiable twice in x and params.

        Args:
            x: [n, n_input_dims] of any real dtype and strides, n from 0; on the device of
                ``params``.

        Returns:
            Contiguous, of ``dtype``.

        Raises:
            ShapeError: another shape, integers, a sparse tensor, or another device; parameters of
                another number; 2^31 values or more of points, features or outputs.
            ConfigError: inside of torch.func's transforms or torch.jit.trace, or on neither a CPU
                nor CUDA.
        """
        self._check(x)
        native = self._native(warp_device(self.params.device))
        if self.params.shape != (native.n_params,):
            raise ShapeError(
                f"params must have shape [{native.n_params}], as the config says, got "
                f"{list(self.params.shape)}"
            )
        if len(x) == 0:
            # keeps the graph, so that an empty batch has gradients (of zero) too, twice
            empty = x.new_zeros((0, self.n_output_dims), dtype=self.dtype)
            return empty + (x.square().sum() * self.params.sum() * 0).to(self.dtype)
        params = self.params.to(torch.float32).contiguous()
        y = evaluate(native, to_blocked(x.to(torch.float32)), params, self.loss_scale)
        return from_blocked(y, len(x)).to(self.dtype)

    def extra_repr(self) -> str:
        """Return what a printed model shows."""
        return (
            f"n_input_dims={self.n_input_dims}, n_output_dims={self.n_output_dims}, "
            f"seed={self.seed}, dtype={self.dtype}, "
            f"hyperparams={self._native('cpu').hyperparams()}"
        )

    def _native(self, device: str) -> Native:
        """Return what computes on a device; made once for each."""
        native = self._natives.get(device)
        if native is None:
            native = Native(
                self.n_input_dims, self._encoding_json, self._network, self.n_output_dims, device
            )
            self._natives[device] = native
        return native

    def _check(self, x: torch.Tensor) -> None:
        """Raise unless x is what ``forward`` takes."""
        if not isinstance(x, torch.Tensor):
            raise ShapeError(f"the input must be a tensor, got {type(x).__name__}")
        if torch._C._functorch.peek_interpreter_stack() is not None:  # pyright: ignore
            raise ConfigError(
                "modules do not run inside of torch.func's transforms (vmap, grad, jvp): their "
                "kernels take whole batches; use torch.autograd.grad on a batch instead"
            )
        if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            raise ConfigError(
                "modules cannot be traced (torch.jit.trace, ONNX): a trace would hold their memory "
                "but not their kernels"
            )
        wanted = f"[n, {self.n_input_dims}]"
        if x.ndim != 2 or x.shape[1] != self.n_input_dims:
            raise ShapeError(f"the input must have shape {wanted}, got {list(x.shape)}")
        if x.is_complex():
            raise ShapeError(f"the input must be real, got {x.dtype}")
        if x.layout != torch.strided:
            raise ShapeError(f"the input must be strided, got {x.layout}; use its to_dense()")
        if x.device != self.params.device:
            raise ShapeError(
                f"the input must be on the parameters' device {self.params.device}, got "
                f"{x.device}; move the module or the input with .to"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_natives": {}}


def _whole(name: str, value: Any, least: int) -> int:
    """Return a whole number of any type, NumPy's too."""
    if not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


class Encoding(Module):
    """An encoding: points [n, n_input_dims] to features [n, n_output_dims].

    Rows are not padded, as in the reference's bindings; n_output_dims follows from the config.

    Args:
        n_input_dims: columns of the input.
        encoding_config: tiny-cuda-nn's JSON (``encodings.make``).
        seed: of the initial parameters (grids: uniform in +-1e-4).
        dtype: of the outputs: torch.float32 or torch.float16; None: float32 on a CPU, float16 on
            CUDA.

    Raises:
        ConfigError: a config that describes no encoding, or another dtype.
    """

    def __init__(
        self,
        n_input_dims: int,
        encoding_config: dict[str, Any],
        seed: int = 1337,
        dtype: torch.dtype | None = None,
    ):
        if dtype not in (None, torch.float32, torch.float16):
            raise ConfigError(f"dtype must be torch.float32 or torch.float16, got {dtype}")
        super().__init__(n_input_dims, 1, encoding_config, None, seed)
        self.encoding_config = copy.deepcopy(encoding_config)
        self.n_output_dims = self._native("cpu").n_out
        self._precision = dtype


class Network(Module):
    """A network: [n, n_input_dims] to [n, n_output_dims].

    Inputs are padded to a multiple of 16 with ones, outputs in the matrices alone: it is a network
    behind the encoding Identity, as in the reference's bindings.

    Args:
        n_input_dims: columns of the input.
        n_output_dims: columns of the output.
        network_config: tiny-cuda-nn's JSON (``config.network_settings``).
        seed: of the initial parameters (Xavier-uniform).

    Raises:
        ConfigError: a config that describes no network.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_output_dims: int,
        network_config: dict[str, Any],
        seed: int = 1337,
    ):
        network = network_settings(network_config)
        super().__init__(n_input_dims, n_output_dims, {"otype": "Identity"}, network, seed)
        self.network_config = copy.deepcopy(network_config)


class NetworkWithInputEncoding(Module):
    """An encoding and a network behind it: [n, n_input_dims] to [n, n_output_dims].

    Faster than the two one after another: features stay in blocks, and are never turned.

    Args:
        n_input_dims: columns of the input.
        n_output_dims: columns of the output.
        encoding_config: tiny-cuda-nn's JSON (``encodings.make``); padded to a multiple of 16 rows.
        network_config: tiny-cuda-nn's JSON (``config.network_settings``).
        seed: of the initial parameters.

    Raises:
        ConfigError: a config that describes no encoding or no network.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_output_dims: int,
        encoding_config: dict[str, Any],
        network_config: dict[str, Any],
        seed: int = 1337,
    ):
        network = network_settings(network_config)
        super().__init__(n_input_dims, n_output_dims, encoding_config, network, seed)
        self.encoding_config = copy.deepcopy(encoding_config)
        self.network_config = copy.deepcopy(network_config)
