"""A volume larger than memory, from disk to disk under a limit: ``python -m nconv.bench.stream --gigabytes 10``.

Writes a volume of noise to zarr, filters it with `nconv.dask` into another, and compares samples with the result in
memory. The operating system enforces the limit: beyond it an allocation fails, and the program with it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from .. import ndimage, threads
from .held import peak_memory

_PLANE = (1024, 1024)
_DEPTH = 16                                  # planes of a chunk: 64 MiB of float32
_BLOCKS = 2                                  # at a time: each holds its input with halo, a padded copy, its output


def limit_memory(n_bytes: int) -> bool:
    """Forbid this process to hold more of its own; False where the system knows no such limit."""
    if not sys.platform.startswith("linux"):
        return False
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))
    return True


def planes(start: int, stop: int, plane: tuple[int, int]) -> np.ndarray:
    """Planes of the volume: the same numbers whoever asks, in whichever portions."""
    return np.stack([np.random.default_rng(z).random(plane, "f4") for z in range(start, stop)])


def stream(folder: Path, count: int, plane: tuple[int, int], depth: int, weights: np.ndarray) -> dict[str, float]:
    """Write `count` planes, filter them from disk to disk, compare samples; seconds of writing and of filtering."""
    import dask
    import dask.array as da
    import zarr

    from .. import dask as ours

    shape, chunks = (count, *plane), (depth, *plane)
    start = time.perf_counter()
    source = zarr.create_array(folder / "in.zarr", shape=shape, chunks=chunks, dtype="f4", compressors=None)
    for z in range(0, count, depth):
        source[z:z + depth] = planes(z, min(z + depth, count), plane)
    written = time.perf_counter()
    zarr.create_array(folder / "out.zarr", shape=shape, chunks=chunks, dtype="f4", compressors=None)
    filtered = ours.ndimage.correlate(da.from_zarr(folder / "in.zarr"), weights, mode="nearest")
    with dask.config.set(scheduler="threads", num_workers=min(_BLOCKS, threads.max_threads())):
        da.store(filtered, zarr.open_array(folder / "out.zarr"), lock=False)
    done = time.perf_counter()

    result = zarr.open_array(folder / "out.zarr", mode="r")
    reach = weights.shape[0]
    for z in sorted({0, depth - 1, count // 2, count - 1}):          # edges and seams
        low, high = max(0, z - reach), min(count, z + reach + 1)
        expected = ndimage.correlate(planes(low, high, plane), weights, mode="nearest")[z - low]
        np.testing.assert_allclose(result[z], expected, atol=1e-5)
    return {"write": written - start, "filter": done - written}


@click.command(help=__doc__.splitlines()[0])
@click.option("--gigabytes", type=float, default=10.0, show_default=True, help="Size of the volume.")
@click.option("--depth", type=int, default=_DEPTH, show_default=True, help="Planes of a chunk, 4 MiB each.")
@click.option("--limit", type=float, default=2.0, show_default=True, help="Gigabytes that this process may hold.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path),
              help="Where the two volumes lie while it runs; by default among the system's temporary files.")
def main(gigabytes: float, depth: int, limit: float, folder: Path | None) -> None:
    limited = limit_memory(int(limit * 1e9))
    count = depth * max(1, round(gigabytes * 1e9 / (4 * _PLANE[0] * _PLANE[1] * depth)))
    weights = np.random.default_rng(0).standard_normal((3, 3, 3)).astype("f4")
    with tempfile.TemporaryDirectory(prefix="nconv-stream-", dir=folder) as work:
        seconds = stream(Path(work), count, _PLANE, depth, weights)
    size = count * 4 * _PLANE[0] * _PLANE[1] / 1e9
    peak = peak_memory()
    click.echo(f"{size:.2f} GB of float32, 3 x 3 x 3: written in {seconds['write']:.0f} s, filtered from disk to disk "
               f"in {seconds['filter']:.0f} s ({size / seconds['filter']:.2f} GB/s); "
               f"limit {f'{limit:.2f} GB' if limited else 'none on this system'}, "
               f"largest held {'unknown' if peak is None else f'{peak / 1e9:.2f} GB'}")


if __name__ == "__main__":
    main()
