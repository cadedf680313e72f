"""Compression: bytes that other tools read, that depend on nothing but the input, and errors that are ours."""

import bz2
import gzip
import io
import lzma
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from layers.compress import STREAMS, Compression, CompressionError, compressor, decompressed

TEXT = b"".join(b"line %d of a text that can be compressed\n" % number for number in range(100_000))
NOISE = random.Random(1).randbytes(1 << 20)

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
}


def compressed(data: bytes, kind: Compression, level: int | None = None) -> bytes:
    work = compressor(kind, level)
    blocks = [data[start : start + work.block_size] for start in range(0, len(data), work.block_size)]
    jobs = [work.job(block) for block in blocks]
    results = [job() for job in reversed(jobs)]  # in any order
    return b"".join([work.start(), *reversed(results), work.finish()])


def plain(data: bytes) -> bytes:
    return decompressed(io.BytesIO(data)).read()


@pytest.mark.parametrize(
    "data", [b"", b"a", TEXT, NOISE + NOISE, bytes(5 << 20)], ids=["none", "a", "text", "noise", "0"]
)
@pytest.mark.parametrize("kind", STREAMS)
def test_what_is_compressed_is_read(kind: Compression, data: bytes) -> None:
    assert plain(compressed(data, kind)) == data


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4, 6, 9])
def test_gzip_is_one_member_that_zlib_reads(level: int) -> None:
    data = TEXT + NOISE

    reader = zlib.decompressobj(wbits=31)
    result = reader.decompress(compressed(data, Compression.GZIP, level))

    assert result == data
    assert reader.eof
    assert reader.unused_data == b""


def test_gzip_says_neither_name_nor_time() -> None:
    assert compressed(TEXT, Compression.GZIP)[:10] == b"\x1f\x8b\x08" + bytes(6) + b"\xff"


def test_blocks_cost_next_to_nothing() -> None:
    in_blocks = len(compressed(TEXT, Compression.GZIP))

    from isal import isal_zlib

    assert in_blocks < len(isal_zlib.compress(TEXT, 2, 31)) * 1.02


@pytest.mark.kernel
@pytest.mark.parametrize(("kind", "command"), [(Compression.GZIP, "gzip"), (Compression.ZSTD, "zstd")])
def test_other_tools_read_it(kind: Compression, command: str) -> None:
    result = subprocess.run([command, "-dc"], input=compressed(TEXT, kind), capture_output=True, check=True)

    assert result.stdout == TEXT


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD])
def test_a_level_that_is_none_is_refused(kind: Compression) -> None:
    with pytest.raises(ValueError, match="has no level 99"):
        compressor(kind, 99)


def test_each_form_has_a_media_type() -> None:
    assert [kind.media_type.rpartition("layer.v1.")[2] for kind in STREAMS] == ["tar+gzip", "tar+zstd", "tar"]


@pytest.mark.parametrize("data", [b"", b"a", b"plain text, and more of it", b"\x1f", b"BZ", NOISE], ids=range(6))
def test_what_is_not_compressed_stays_as_it_is(data: bytes) -> None:
    assert plain(data) == data


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("size", [0, 1, 100_000, 1_000_000])
def test_each_form_is_recognised(form: str, size: int) -> None:
    assert plain(COMPRESS[form](TEXT[:size])) == TEXT[:size]


@pytest.mark.parametrize("form", COMPRESS)
def test_members_in_a_row_are_one_stream(form: str) -> None:
    pieces = [TEXT[:300_000], b"", b"x", NOISE[:70_000]]

    assert plain(b"".join(COMPRESS[form](piece) for piece in pieces)) == b"".join(pieces)


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("garbage", [b"\0", bytes(1000), b"garbage that follows"])
def test_garbage_at_the_end_is_left_alone(form: str, garbage: bytes) -> None:
    assert plain(COMPRESS[form](TEXT[:100_000]) + garbage) == TEXT[:100_000]


@pytest.mark.parametrize("form", COMPRESS)
@pytest.mark.parametrize("keep", [0.0001, 0.5, 0.9999])
def test_an_early_end_is_an_error(form: str, keep: float) -> None:
    data = COMPRESS[form](TEXT)
    cut = data[: max(6, int(len(data) * keep))]

    with pytest.raises(CompressionError, match=f"{form} data is cut off"):
        plain(cut)


@pytest.mark.parametrize("form", COMPRESS)
def test_damage_is_an_error(form: str) -> None:
    data = COMPRESS[form](NOISE)
    middle = len(data) // 2

    with pytest.raises(CompressionError):
        plain(data[:6] + bytes(40) + data[middle:])


def test_a_frame_of_zstd_that_says_nothing_is_skipped() -> None:
    skipped = b"\x5a\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100)

    assert plain(skipped + COMPRESS["zstd"](b"text")) == b"text"


def test_few_bytes_that_become_many_are_read_in_pieces() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 27))
    assert len(bomb) < 10_000

    stream = decompressed(io.BytesIO(bomb))

    assert stream.read(100) == bytes(100)


def test_the_stream_stays_open() -> None:
    stream = io.BytesIO(COMPRESS["gzip"](TEXT))

    decompressed(stream).close()

    assert not stream.closed


@pytest.mark.property
@given(
    st.sampled_from([b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b"\x50\x2a\x4d\x18", b""]),
    st.binary(),
)
def test_any_bytes_are_read_or_an_error_of_ours(magic: bytes, data: bytes) -> None:
    with suppress(CompressionError):
        plain(magic + data)


def test_importing_it_imports_no_library() -> None:
    code = "import sys, layers.compress, layers.layout, layers.layer; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"isal", "zstandard", "bz2", "lzma", "threading", "concurrent", "tempfile", "layers.tar"} & set(modules)
