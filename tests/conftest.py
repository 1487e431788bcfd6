"""The device fixture, and a fake core for the tests of the command line.

Every kernel test runs on the CPU, and on a GPU where there is one. The fake core records its calls
and trains nothing.
"""

import contextlib
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from ngp_warp import config as c
from ngp_warp.primitive import Progress

# No test asserts a time: on a busy machine any example may be slow.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--emulate-cuda``: the tests of "cuda:0" run, slowly, on tests/emulator."""
    parser.addoption("--emulate-cuda", action="store_true", help="run CUDA's kernels without a GPU")
    parser.addoption("--races", action="store_true", help="with it: look for races as well")
    text = "with it: skip what takes longer"
    parser.addoption("--emulate-seconds", type=int, default=60, metavar="N", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach what tests start; put the emulated device in place for the session."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("emulate_cuda"):
        from tests.emulator.driver import emulated

        config.stash[_EMULATED] = contextlib.ExitStack()
        driver = config.stash[_EMULATED].enter_context(emulated())
        driver.looks_for_races = config.getoption("races")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take it away."""
    if _EMULATED in config.stash:
        config.stash[_EMULATED].close()


_EMULATED = pytest.StashKey[contextlib.ExitStack]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip on the emulated device what needs torch to have it too."""
    if config.getoption("emulate_cuda"):
        for item in items:
            if item.path.name.startswith("test_torch") and "cuda:0" in item.name:
                item.add_marker(pytest.mark.skip(reason="torch has no emulated device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Skip a test that takes too long on the emulated device."""
    if _EMULATED not in item.config.stash:
        return (yield)
    seconds = item.config.getoption("emulate_seconds")

    def too_long(*_: Any) -> None:
        pytest.skip(f"takes more than {seconds} s on the emulated device")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """Settings of the fake primitive."""

    encoding: c.GridEncodingConfig = field(default_factory=c.GridEncodingConfig)
    network: c.NetworkConfig = field(default_factory=c.NetworkConfig)
    optimizer: c.OptimizerConfig = field(default_factory=c.OptimizerConfig)
    training: c.TrainingConfig = field(default_factory=c.TrainingConfig)
    loss: c.Loss = "l2"
    """What is made small,
    in [channel units]."""
    clip: bool = True
    """Clip to the displayable range."""
    cache: str | None = None
    """Folder of the cache."""


@dataclass
class FakeCore:
    """Records the calls; ``do`` runs inside each."""

    path: Path
    calls: list[tuple[str, tuple, dict[str, Any]]] = field(default_factory=list)
    do: Callable[[], Any] = lambda: None
    metrics: dict[str, Any] = field(default_factory=lambda: {"psnr": 41.5, "steps": 1000})
    config: Any = field(default_factory=FakeConfig)
    Config: type = FakeConfig

    def record(self, name: str, result: Any = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            if "progress" in kwargs:
                kwargs["progress"](Progress(stage="train", step=1, total=2, metric=40.0))
            self.do()
            made = {"output": args[1] if len(args) > 1 else None, "n_faces": 12}
            return {"metrics": self.metrics, "made": made}.get(result) or self.run

        return call

    @property
    def run(self) -> Any:
        return types.SimpleNamespace(
            path=self.path,
            metrics=self.metrics,
            config=self.config,
            primitive="image",
            render=self.record("render"),
            export=self.record("export", "made"),
        )

    @property
    def last(self) -> tuple[str, tuple, dict[str, Any]]:
        return self.calls[-1]


@pytest.fixture
def fake_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCore]:
    """Put a fake core in place of ngp_warp.fitting, ngp_warp.run and the image primitive."""
    monkeypatch.delenv("NGP_NUM_THREADS", raising=False)
    fake = FakeCore(tmp_path / "run")
    (fake.path / "renders").mkdir(parents=True)
    (fake.path / "renders" / "result.png").write_bytes(b"")
    primitive = types.SimpleNamespace(
        config=FakeConfig,
        evaluate=fake.record("evaluate", "metrics"),
    )
    modules = {
        "ngp_warp.fitting": {"fit": fake.record("fit")},
        "ngp_warp.run": {
            "open_run": fake.record("open_run"),
            "describe": fake.record("describe", "metrics"),
        },
        "ngp_warp.primitives": {
            "get": dict.fromkeys(("image", "sdf", "nerf", "volume"), primitive).__getitem__
        },
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    # Built anew, from the fake's config: the flags are made when the module is imported.
    for name in ("fit_image", "fit_image_blocks", "fit_sdf", "nerf", "fit_volume", "fit"):
        monkeypatch.delitem(sys.modules, f"ngp_warp.cli.{name}", raising=False)
    yield fake
    for name in ("fit_image", "fit_image_blocks", "fit_sdf", "nerf", "fit_volume", "fit"):
        sys.modules.pop(f"ngp_warp.cli.{name}", None)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every path below a folder with what it holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `ngp` in an own folder; it must refuse in one line and change nothing."""
    from ngp_warp.cli import app

    monkeypatch.chdir(tmp_path)

    def check(*args: str) -> str:
        before = contents(tmp_path)
        capfd.readouterr()
        status = app.main([args[0], "--quiet", *args[1:]])
        out, err = capfd.readouterr()
        assert status == 2, err
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("ngp: error: ")
        assert contents(tmp_path) == before
        return line

    return check


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def jobs_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the jobs in this process; returns the names of those that ran."""
    from ngp_warp import jobs as jobs_module

    ran: list[str] = []

    def run_all(self: Any, folder: Path, works: list[Any], watch: Any) -> list[jobs_module.Outcome]:
        ended = []
        for work in works:
            ran.append(work.name)
            result = work()
            error, log = result.get("error", ""), folder / "log"
            outcome = jobs_module.Outcome(work, result["state"], error, log)
            ended.append(outcome)
            watch(ended)
        return ended

    monkeypatch.setattr(jobs_module.Jobs, "run_all", run_all)
    return ran


@pytest.fixture(scope="session")
def volume_runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Small volumes and their runs, for all tests of the session."""
    from volume_runs import VolumeRuns

    return VolumeRuns(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def emulated_cuda() -> Iterator[Any]:
    """The emulated device's driver; skips where there is a GPU."""
    import warp as wp

    from ngp_warp import launch
    from tests.emulator import driver

    launch.init()
    if wp.is_cuda_available():
        if not driver.is_emulated():
            pytest.skip("there is a GPU")
        yield driver.installed()
        return
    with driver.emulated() as found:
        yield found


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.cuda)])
def device(request):
    """Name of a Warp device; "cuda:0" skips where there is no GPU."""
    if request.param.startswith("cuda"):
        import warp as wp

        if not wp.is_cuda_available():
            pytest.skip("no NVIDIA GPU or driver on this machine")
    return request.param


@pytest.fixture(params=["vector", "portable"])
def backend(request, device):
    """Name of a backend of the grid and of Adam; "vector" skips on a GPU."""
    if request.param == "vector" and device != "cpu":
        pytest.skip("the vector kernels are for a CPU")
    return request.param
