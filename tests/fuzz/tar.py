"""Any bytes are a tar, or a PybuildError: decompressing, reading, indexing, and looking things up.

python tests/fuzz/tar.py -max_total_time=600 -timeout=10
"""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import product

_COMPRESSIONS: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, bz2.compress, lzma.compress)


def load() -> Callable[[bytes], None]:
    """Import what is fuzzed; imports before this would not be instrumented."""
    from layers.compress import decompressed
    from layers.errors import PybuildError
    from layers.index import LayerIndex
    from layers.indexing import IndexBuilder
    from layers.tar import read_tar
    from layers.view import View

    def target(data: bytes) -> None:
        index = IndexBuilder()
        try:
            for entry, stream in read_tar(decompressed(io.BytesIO(data))):
                index.add(entry, stream)
                while stream.read(1 << 16):
                    pass
            layer = index.finish()
            assert LayerIndex.parse(layer.serialise()) == layer
            view = View([layer, layer])
            for path in list(layer.entries)[:50]:
                view.children(view.resolve(path))
        except PybuildError:
            return

    return target


def seeds() -> Iterator[bytes]:
    """A tar of everything that has a form of its own, in each dialect and each compression."""
    for dialect, compress in product((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT), _COMPRESSIONS):
        yield compress(_tar(dialect))


def _tar(dialect: int) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=dialect) as tar:
        long = dialect != tarfile.USTAR_FORMAT
        for name, kind in (
            ("./", tarfile.DIRTYPE),
            ("d/", tarfile.DIRTYPE),
            ("d/f", tarfile.REGTYPE),
            ("d/" + "n" * (120 if long else 20), tarfile.REGTYPE),
            ("d/l", tarfile.SYMTYPE),
            ("d/h", tarfile.LNKTYPE),
            ("d/p", tarfile.FIFOTYPE),
            ("dev/c", tarfile.CHRTYPE),
            ("d/.wh.gone", tarfile.REGTYPE),
            ("d/.wh..wh..opq", tarfile.REGTYPE),
            ("etc/passwd", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "d/f" if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
            info.uid, info.mode, info.mtime = 3_000_000 if long else 7, 0o4755, 1_000_000_000
            content = b"root:x:0:0::/:/\n" if kind == tarfile.REGTYPE and ".wh." not in name else b""
            info.size = len(content)
            if dialect == tarfile.PAX_FORMAT:
                info.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1000000000.5"}
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


if __name__ == "__main__":
    import_module("harness").fuzz(load, seeds())
