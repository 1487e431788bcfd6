"""``python -m benchmarks``, from the checkout's root."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report
from ngp_warp import launch
from ngp_warp.errors import ConfigError, NgpError

_ROOT = Path(__file__).resolve().parent.parent


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser("step", help="parts of a training step, their limits, two twins")
    step.add_argument("--dims", type=int, choices=(2, 3), default=2)
    step.add_argument("--batch-log2", type=int, default=18, help="log2 of the points of a batch")
    step.add_argument("--table-log2", type=int, default=19, help="log2 of a level's most entries")
    step.add_argument("--no-twins", action="store_true", help="do not time PyTorch")
    step.set_defaults(run=_step)
    image = commands.add_parser("image", help="PSNR of a fitted photo against seconds")
    image.add_argument("photo", type=Path)
    image.add_argument("--seconds", type=float, nargs="+", default=[10.0, 20.0, 60.0])
    image.add_argument("--peers", action="store_true", help="give the two twins as long")
    image.add_argument("--peer-batch-log2", type=int, default=14)
    image.add_argument(
        "--plot", type=Path, metavar="FILE", default=_ROOT / "docs" / "psnr_over_seconds.png"
    )
    image.set_defaults(run=_image)
    mosaic = commands.add_parser(
        "mosaic", help="make a huge TIFF from a photo, turned and mirrored"
    )
    mosaic.add_argument("photo", type=Path)
    mosaic.add_argument("out", type=Path, metavar="OUT.tif")
    mosaic.add_argument("--size", type=int, default=32768, help="width and height")
    mosaic.add_argument("--cell", type=int, help="side of a copy; the photo's shorter if not given")
    mosaic.add_argument("--compression", choices=("none", "deflate"), default="none")
    mosaic.set_defaults(run=_mosaic)
    gigapixel = commands.add_parser(
        "gigapixel",
        help="memory and quality of a huge image's fit",
        epilog="Flags of ngp fit-image may follow after --",
    )
    gigapixel.add_argument("image", type=Path, metavar="IMAGE.tif")
    gigapixel.add_argument("--seconds", type=float, default=300.0)
    gigapixel.add_argument(
        "--out", type=Path, help="the run's folder; a temporary one if not given"
    )
    gigapixel.add_argument("--cache-dir", type=Path, help="as ngp fit-image's")
    gigapixel.add_argument("--crop", default="100,100,1000,1000", metavar="x,y,w,h")
    gigapixel.set_defaults(run=_gigapixel)
    others = _add_fields(commands)
    _add_gpu(commands)
    for command in (step, image, gigapixel, *others):
        command.add_argument("--threads", type=int, help="CPU threads; every core if not given")
    for name, command in commands.choices.items():
        if name != "gpu":
            command.add_argument("--json", type=Path, metavar="FILE", help="also write the results")
    return parser


def _add_fields(commands: Any) -> list[argparse.ArgumentParser]:
    """Add the benchmarks of distances, scenes, volumes, encodings and torch modules."""
    distance = commands.add_parser("distance", help="exact signed distances to a mesh a second")
    distance.add_argument("mesh", type=Path)
    distance.add_argument("--points-log2", type=int, default=18, help="log2 of a query's points")
    distance.set_defaults(run=_distance)
    radiance = commands.add_parser("radiance", help="a scene's training step and a view of it")
    radiance.add_argument("scene", type=Path)
    radiance.add_argument("--seconds", type=float, default=30.0, help="training before measuring")
    radiance.set_defaults(run=_radiance)
    volume = commands.add_parser("volume", help="a volume's training steps, and pictures of it")
    volume.add_argument("volume", type=Path)
    volume.add_argument("--seconds", type=float, default=20.0, help="training before measuring")
    volume.set_defaults(run=_volume)
    encodings = commands.add_parser("encodings", help="other encodings, in equal time and size")
    encodings.add_argument("--image", type=Path, default=_ROOT / "examples" / "seeding.jpg")
    encodings.add_argument("--mesh", type=Path, default=_ROOT / "examples" / "spot.obj")
    encodings.add_argument("--scene", type=Path, help="also a radiance field of this scene")
    encodings.add_argument("--seconds", type=float, default=30.0, help="training of each")
    encodings.add_argument("--scene-seconds", type=float, default=60.0)
    encodings.add_argument("--scene-downscale", type=float, default=4.0, metavar="FACTOR")
    encodings.add_argument("--only", metavar="NAME,NAME", help="of image, photo, distance, scene")
    encodings.add_argument("--plots", type=Path, metavar="DIR", default=_ROOT / "docs")
    encodings.set_defaults(run=_encodings)
    modules = commands.add_parser("torch", help="a torch module, its twin, our step's parts")
    modules.add_argument("--dims", type=int, choices=(2, 3), default=3)
    modules.add_argument("--batch-log2", type=int, default=18, help="log2 of the points of a batch")
    modules.add_argument("--table-log2", type=int, default=19, help="log2 of a level's entries")
    modules.set_defaults(run=_torch)
    registers = commands.add_parser("registers", help="registers of the hot CUDA kernels, no GPU")
    registers.add_argument("--out", type=Path, default=_ROOT / "docs" / "registers.md")
    registers.set_defaults(run=_registers)
    traffic = commands.add_parser("traffic", help="what a step asks of a GPU, counted without one")
    traffic.add_argument("--batch-log2", type=int, default=18, help="log2 of the points of a batch")
    traffic.add_argument("--out", type=Path, default=_ROOT / "docs" / "traffic.md")
    traffic.set_defaults(run=_traffic)
    return [distance, radiance, volume, encodings, modules]


def _add_gpu(commands: Any) -> None:
    """Add the check of a GPU; it writes its results as it goes, wherever --out says."""
    gpu = commands.add_parser("gpu", help="whether a GPU agrees with the CPU, and how fast it is")
    gpu.add_argument("--device", help="auto, cpu, cuda or cuda:N; auto if not given")
    gpu.add_argument("--only", metavar="PART,PART", help="run these parts alone")
    gpu.add_argument("--small", action="store_true", help="small sizes; always so without a GPU")
    gpu.add_argument("--budget-seconds", type=float, default=480.0)
    gpu.add_argument("--out", type=Path, metavar="FILE", help="benchmarks/results/DEVICE.json")
    gpu.add_argument("--no-isolation", action="store_true", help="run all parts in this process")
    gpu.add_argument("--data", type=Path, metavar="DIR", help="folder of the usual inputs")
    for name in ("image", "mesh", "scene", "volume"):
        gpu.add_argument(f"--{name}", type=Path, metavar="FILE", help="instead of the usual one")
    gpu.add_argument(
        "--report", type=Path, metavar="RESULT.json", help="run nothing; print it as Markdown"
    )
    gpu.set_defaults(run=_gpu, json=None)


def _gpu(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import gpu, gpu_report
    from ngp_warp.json_files import read_json

    if args.report is not None:
        results = read_json(args.report)
        return gpu_report.markdown(results), results
    device = launch.resolve_device(args.device)
    inputs = {"image": args.image, "sdf": args.mesh, "nerf": args.scene, "volume": args.volume}
    # whole paths: the parts' processes run in the checkout's root
    given = {name: path.resolve() for name, path in inputs.items() if path is not None}
    data = args.data.resolve() if args.data else None
    if missing := [str(p) for p in (data, *given.values()) if p is not None and not p.exists()]:
        raise ConfigError(f"not there: {', '.join(missing)}")
    small = args.small or device == "cpu"
    name = gpu.file_name(gpu.device_facts(device)["device_name"])
    options = gpu.Options(
        device=device,
        small=small,
        budget=args.budget_seconds,
        out=args.out or gpu.RESULTS / (f"small_{name}" if small else name),
        only=tuple(args.only.split(",")) if args.only else (),
        isolate=not args.no_isolation,
        data=data,
        given=given,
    )
    results = gpu.run(options, lambda line: print(line, file=sys.stderr, flush=True))
    return gpu.describe(results) + f"\n\nwritten to {options.out}", results


def _step(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import step
    from benchmarks.training_step import StepSize

    size = StepSize(n_dims=args.dims, batch_log2=args.batch_log2, table_log2=args.table_log2)
    results = step.run(size, twins=not args.no_twins)
    return step.describe(results), results


def _image(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import image

    peer_batch = args.peer_batch_log2 if args.peers else None
    results = image.run(args.photo, args.seconds, peer_batch)
    image.plot(results, args.plot)
    return image.describe(results) + f"\n\nplot {args.plot}", results


def _mosaic(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import mosaic
    from benchmarks.training_step import read_photo

    made = mosaic.Mosaic(read_photo(args.photo), args.size, args.cell)
    made.write(args.out, compress=args.compression == "deflate")
    results = {"file": str(args.out), "size": args.size, "cell": made.cell}
    return f"{args.out}: {args.size}x{args.size}, copies of {made.cell}x{made.cell}", results


def _gigapixel(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import gigapixel

    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary) / "run"
        results = gigapixel.run(
            args.image,
            args.seconds,
            out,
            crop=args.crop,
            cache_dir=args.cache_dir,
            fit_flags=args.fit_flags,
        )
    return gigapixel.describe(results), results


def _distance(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import distance

    results = distance.run(args.mesh, args.points_log2)
    return distance.describe(results), results


def _radiance(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import radiance

    results = radiance.run(args.scene, args.seconds)
    return radiance.describe(results), results


def _volume(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import volume

    results = volume.run(args.volume, args.seconds)
    return volume.describe(results), results


def _encodings(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import encodings
    from benchmarks.encoding_problems import image_problem, mesh_problem, scene_problem

    made: dict[str, Callable[[], encodings.Problem]] = {
        "image": lambda: image_problem(args.image, "image", 1024),
        "photo": lambda: image_problem(args.image, "photo"),
        "distance": lambda: mesh_problem(args.mesh),
        "scene": lambda: scene_problem(args.scene, downscale=args.scene_downscale),
    }
    names = args.only.split(",") if args.only else [n for n in made if n != "scene" or args.scene]
    if unknown := [name for name in names if name not in made]:
        raise ConfigError(f"--only must name some of {', '.join(made)}, got {', '.join(unknown)}")
    if "scene" in names and not args.scene:
        raise ConfigError("give --scene")
    results = {}
    for name in names:
        seconds = args.scene_seconds if name == "scene" else args.seconds
        results |= encodings.run([made[name]()], seconds)
    plots = encodings.plot(results, args.plots)
    return encodings.describe(results) + "\n\nplots " + ", ".join(map(str, plots)), results


def _torch(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import torch_modules
    from benchmarks.training_step import StepSize

    size = StepSize(n_dims=args.dims, batch_log2=args.batch_log2, table_log2=args.table_log2)
    results = torch_modules.run(size)
    return torch_modules.describe(results), results


def _registers(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import registers

    results = registers.run(args.out)
    return registers.describe(results), results


def _traffic(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from benchmarks import traffic

    results = traffic.run(args.out, args.batch_log2)
    return traffic.describe(results), results


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark; return 0, or 2 where the input is at fault."""
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    parser = _parser()
    args = parser.parse_args(given[:end])
    if end < len(given) and args.command != "gigapixel":
        parser.error("only gigapixel takes flags of ngp after --")
    args.fit_flags = given[end + 1 :]
    try:
        launch.init()
        if getattr(args, "threads", None) is not None:
            launch.set_num_threads(args.threads)
        text, results = args.run(args)
        report.publish(text, results, args.json)
    except NgpError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
