"""A package that an image has, and the names by which scanners know packages and images: package URLs."""

from contextlib import suppress
from urllib.parse import quote

from layers.data import dataclass, replace
from layers.errors import ImageError
from layers.oci import Platform
from layers.registry.reference import Reference

_PLAIN = ":"
"""What a package URL need not escape, beside letters, digits and `.-_~` (purl-spec, "Character encoding")."""


class DatabaseError(ImageError):
    """A database of packages that cannot be read; the message says why, and the path is not in it."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What os-release(5) says of an image: ID and VERSION_ID. Either may be empty."""

    id: str = ""
    version: str = ""

    @classmethod
    def parse(cls, data: bytes) -> "Distribution":
        """Of the bytes of an os-release."""
        lines = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
        values = {name.strip(): value.strip().strip("\"'") for name, _, value in lines}
        return cls(values.get("ID", ""), values.get("VERSION_ID", ""))

    def __str__(self) -> str:
        return f"{self.id}-{self.version}" if self.version else self.id


@dataclass(frozen=True, slots=True)
class Package:
    """One package, as the database says that has it."""

    type: str
    """That of the package URL: deb, apk, rpm, pypi or npm."""
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    """The package that it was built from, if that has another name; of an RPM, the file name of the source package."""
    license: str = ""
    """In the package's own words."""
    epoch: str = ""
    """Of an RPM."""

    def purl(self, distribution: Distribution) -> str:
        """The package URL (https://github.com/package-url/purl-spec)."""
        if self.type == "pypi":
            return f"pkg:pypi/{_escaped(self.name.lower().replace('_', '-'))}@{_escaped(self.version)}"
        if self.type == "npm":
            return f"pkg:npm/{'/'.join(map(_escaped, self.name.lower().split('/')))}@{_escaped(self.version)}"
        namespace = f"{_escaped(distribution.id.lower())}/" if distribution.id else ""
        name = self.name if self.type == "rpm" else self.name.lower()
        qualifiers = {
            "arch": self.architecture,
            "distro": str(distribution),
            "epoch": self.epoch,
            "upstream": self.source,
        }
        text = "&".join(f"{key}={_escaped(value)}" for key, value in sorted(qualifiers.items()) if value)
        return f"pkg:{self.type}/{namespace}{_escaped(name)}@{_escaped(self.version)}{'?' if text else ''}{text}"


def image_purl(name: str, platform: Platform, *, kind: str = "docker") -> str:
    """The package URL of an image, as BuildKit writes it; what is no name of an image is a name to it all the same."""
    qualifiers, version = {"platform": str(platform)}, "latest"
    with suppress(ImageError):
        reference = Reference.parse(name)
        name = replace(reference, tag="", digest=None).familiar
        version = reference.tag or reference.digest or version
        if reference.digest and reference.tag:
            qualifiers["digest"] = reference.digest
    folder, slash, last = name.rpartition("/")
    text = "&".join(f"{key}={quote(value, safe=_PLAIN)}" for key, value in sorted(qualifiers.items()))
    return f"pkg:{kind}/{quote(folder, safe='/:')}{slash}{_escaped(last)}@{_escaped(version)}?{text}"


def _escaped(text: str) -> str:
    return quote(text, safe=_PLAIN, errors="replace")
