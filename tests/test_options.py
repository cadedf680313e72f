"""What the options of a build mean together."""

import pytest

from builder.caches import CachePlace, CacheTarget, Kind
from builder.export.output import Form, Output, Packing, Squash
from builder.options import BuildOptions
from layers.compress import Compression

ZSTD = Packing(Compression.ZSTD)
FOLDER, INLINE = CachePlace(Kind.LOCAL), CachePlace(Kind.INLINE)


def options(*packings: Packing, cache_to: tuple[CacheTarget, ...] = (), files: bool = False) -> BuildOptions:
    outputs = tuple(Output(Form.OCI, "x", packing=packing) for packing in packings)
    return BuildOptions(".", "store", outputs=(*outputs, *[Output(Form.LOCAL, "y")] * files), cache_to=cache_to)


@pytest.mark.parametrize(
    "wanted",
    [
        options(ZSTD),
        options(ZSTD, ZSTD, files=True),
        options(ZSTD, cache_to=(CacheTarget(INLINE), CacheTarget(FOLDER, compression=Compression.ZSTD))),
    ],
)
def test_layers_are_written_as_all_want_them(wanted: BuildOptions) -> None:
    assert wanted.compression is Compression.ZSTD


@pytest.mark.parametrize(
    "wanted",
    [
        options(),
        options(files=True),
        options(ZSTD, Packing()),
        options(ZSTD, Packing(Compression.NONE)),
        options(Packing(Compression.ESTARGZ)),
        options(Packing(Compression.ZSTD, 19)),
        options(Packing(Compression.ZSTD, squash=Squash.NEW)),
        options(ZSTD, cache_to=(CacheTarget(FOLDER),)),
        options(ZSTD, cache_to=(CacheTarget(FOLDER, compression=Compression.ZSTD, level=1),)),
    ],
)
def test_layers_are_written_by_gzip_where_something_is_to_be_made_of_them(wanted: BuildOptions) -> None:
    assert wanted.compression is Compression.GZIP
