"""Small valid image files of every kind that is read, made from one seed."""

import io

import numpy as np
from PIL import Image as PilImage

WIDTH, HEIGHT = 24, 17


def pixels(channels, dtype, seed=0):
    """Return smooth pixels with a little noise, shape [17, 24, channels]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [np.sin(0.3 * x + 0.2 * c) * np.cos(0.4 * y - c) for c in range(channels)]
    unit = np.clip(
        0.5 + 0.4 * np.stack(waves, -1) + rng.normal(0, 0.02, (*x.shape, channels)), 0, 1
    )
    if np.dtype(dtype).kind == "u":
        return np.rint(unit * np.iinfo(dtype).max).astype(dtype)
    return (unit * 8 - 1).astype(dtype)  # with negative values


def squeezed(array):
    return array[..., 0] if array.shape[2] == 1 else array


def pillow_bytes(array, image_format, **options):
    file = io.BytesIO()
    mode = options.pop("mode", None)
    picture = PilImage.fromarray(squeezed(array))
    if mode is not None:
        picture = picture.convert(mode)
    picture.save(file, image_format, **options)
    return file.getvalue()


def jpegs():
    rgb, exif = pixels(3, "uint8"), PilImage.Exif()
    exif[0x0112] = 6
    return {
        "rgb": pillow_bytes(rgb, "JPEG", quality=90),
        "turned": pillow_bytes(rgb, "JPEG", exif=exif),
        "progressive": pillow_bytes(rgb, "JPEG", progressive=True),
        "grey": pillow_bytes(pixels(1, "uint8"), "JPEG"),
        "cmyk": pillow_bytes(rgb, "JPEG", mode="CMYK"),
    }


def pngs():
    import imagecodecs

    files = {
        f"{channels}x{dtype}": imagecodecs.png_encode(squeezed(pixels(channels, dtype)))
        for channels in (1, 2, 3, 4)
        for dtype in ("uint8", "uint16")
    }
    palette = PilImage.fromarray(pixels(3, "uint8")).quantize(16)
    for name, options in {"palette": {}, "palette-alpha": {"transparency": 3}}.items():
        file = io.BytesIO()
        palette.save(file, "PNG", **options)
        files[name] = file.getvalue()
    files["bit"] = pillow_bytes(pixels(1, "uint8"), "PNG", mode="1")
    files["key"] = pillow_bytes(pixels(3, "uint8"), "PNG", transparency=(1, 2, 3))
    return files


def tiffs():
    import tifffile

    tiled = {"tile": (16, 16)}
    kinds = {
        "strips": (3, "uint8", {"rowsperstrip": 5}),
        "tiled": (3, "uint8", tiled),
        "deflate": (4, "uint16", {"compression": "zlib", "predictor": True, **tiled}),
        "lzw": (3, "uint8", {"compression": "lzw", "rowsperstrip": 4}),
        "packbits": (1, "uint8", {"compression": "packbits"}),
        "jpeg": (3, "uint8", {"compression": "jpeg", **tiled}),
        "webp": (3, "uint8", {"compression": "webp", **tiled}),
        "zstd": (3, "float32", {"compression": "zstd", **tiled}),
        "jpeg2000": (3, "uint8", {"compression": "jpeg2000", **tiled}),
        "lzma": (1, "uint16", {"compression": "lzma"}),
        "planar": (3, "uint8", {"planarconfig": "separate", "rowsperstrip": 6}),
        "float": (3, "float32", {}),
        "half": (1, "float16", {}),
        "double": (2, "float64", {"compression": "zlib"}),
        "big": (3, "uint16", {"bigtiff": True}),
        "big-endian": (3, "uint16", {"byteorder": ">"}),
        "white-is-zero": (1, "uint8", {"photometric": "miniswhite"}),
        "cmyk": (4, "uint8", {"photometric": "separated"}),
    }
    files = {}
    for name, (channels, dtype, options) in kinds.items():
        array = pixels(channels, dtype)
        if options.get("planarconfig") == "separate":
            array = np.moveaxis(array, -1, 0)
        defaults = {"photometric": "rgb" if channels > 2 else "minisblack"}
        if channels in (2, 4) and options.get("photometric") != "separated":
            defaults["extrasamples"] = ["unassalpha"]
        file = io.BytesIO()
        tifffile.imwrite(file, squeezed(array), metadata=None, **(defaults | options))
        files[name] = file.getvalue()
    return files


def webps():
    return {
        "lossy": pillow_bytes(pixels(3, "uint8"), "WEBP"),
        "lossless": pillow_bytes(pixels(4, "uint8"), "WEBP", lossless=True, exact=True),
        "alpha": pillow_bytes(pixels(4, "uint8"), "WEBP", quality=70),
    }


def avifs():
    import imagecodecs

    return {
        "deep": imagecodecs.avif_encode(pixels(3, "uint16") >> 6, bitspersample=10, level=100),
        "rgb": pillow_bytes(pixels(3, "uint8"), "AVIF", speed=10),
        "alpha": pillow_bytes(pixels(4, "uint8"), "AVIF", speed=10),
        "grey": pillow_bytes(pixels(1, "uint8"), "AVIF", speed=10),
    }


def exrs(folder):
    import OpenEXR

    files = {}
    names = ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB"]
    for i, name in enumerate([*names, "tiled", "parts"]):
        array = pixels(1 + i % 4, "float16" if i % 3 == 1 else "float32", seed=i)
        keys = {1: "Y", 2: "YA", 3: "RGB", 4: "RGBA"}[array.shape[2]]
        channels = {key: np.ascontiguousarray(array[..., c]) for c, key in enumerate(keys)}
        kind = getattr(OpenEXR, f"{name if name in names else 'ZIP'}_COMPRESSION")
        header = {"compression": kind, "type": OpenEXR.scanlineimage}
        if name == "tiled":
            header = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
        parts = [OpenEXR.Part(header | {"name": "first"}, channels)]
        if name == "parts":
            parts.append(OpenEXR.Part(header | {"name": "second"}, {"Z": array[..., 0].copy()}))
        path = folder / f"{name}.exr"
        (OpenEXR.File(parts) if name == "parts" else OpenEXR.File(header, channels)).write(
            str(path)
        )
        files[name] = path.read_bytes()
    return files


def radiances():
    import imagecodecs

    array = np.abs(pixels(3, "float32"))
    coded = imagecodecs.rgbe_encode(array, header=True)
    flat = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 17 +X 24\n"
    mantissas = pixels(3, "uint8")
    rgbe = np.concatenate([mantissas | 128, np.full_like(mantissas[..., :1], 129)], -1)
    return {"rle": coded, "flat": flat + rgbe.tobytes()}


def npys():
    files = {}
    for channels, dtype, order in [
        (3, "uint8", "C"),
        (1, "uint16", "C"),
        (4, "float32", "C"),
        (3, "float64", "F"),
        (3, "float16", "C"),
        (2, ">u2", "C"),
    ]:
        file = io.BytesIO()
        array = pixels(channels, np.dtype(dtype).newbyteorder("=")).astype(dtype, order=order)
        np.save(file, squeezed(array))
        files[f"{channels}x{np.dtype(dtype).str[1:]}{order}"] = file.getvalue()
    return files


def all_samples(folder):
    """Return {format: {kind: file's bytes}}; ``folder`` is for a writer that needs a path."""
    return {
        "jpeg": jpegs(),
        "png": pngs(),
        "tiff": tiffs(),
        "webp": webps(),
        "avif": avifs(),
        "exr": exrs(folder),
        "hdr": radiances(),
        "npy": npys(),
    }
