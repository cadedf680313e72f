#!/usr/bin/env python3
"""Make `debian:12`, the base of the examples, from Debian's own packages: an OCI image layout of one layer.

No registry of images is needed, only the package mirror that this machine uses anyway. What the machine needs to reach
package registries becomes part of the image, so that RUN reaches them too and the Dockerfiles stay ordinary: its apt
mirror and apt's options of transport (`Acquire::http::Proxy` and the like), the authorities that it trusts beyond
Debian's, /etc/pip.conf and /etc/npmrc. Such an image is for this machine: do not publish it.

The same packages give the same bytes. Run it in the environment that `scripts/demo` makes.
"""

import argparse
import glob
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from layers.entry import Change, Kind
from layers.layer import write_layer
from layers.layout import Layout
from layers.oci import CONFIG, MANIFEST, Descriptor, History, ImageConfig, Manifest, Platform, RunConfig
from layers.tar import read_tar

NAME = "docker.io/library/debian:12"
SUITE = "bookworm"
RELEASED = 1686355200
"""The day of the release, 2023-06-10, in seconds: no file of the image is younger, whenever it is made."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Of the machine that makes the image, made anew for every container, or made again by apt.
LEFT_OUT = re.compile(r"dev/.+|etc/hostname|etc/resolv\.conf|var/cache/apt/.*\.bin|var/log/(apt|dpkg|bootstrap).*")
TRANSPORT = re.compile(r"Acquire::(https?|Check-|Retries|Force|Max-).*[^:\s] \"[^\"]+\";")
LEAN = """\
# Nothing that apt can fetch again stays in a layer, as in Debian's official images.
Acquire::Languages "none";
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
MACHINE_FILES = ("/etc/pip.conf", "/etc/npmrc")
LOCAL = "/usr/local/share/ca-certificates"
DEBIANS = "/usr/share/ca-certificates"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
BUNDLE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.DOTALL)


def main() -> int:
    """Make the layout, unless it is there."""
    parser = argparse.ArgumentParser(description="make the base image of the examples")
    parser.add_argument("layout", help="the folder to make")
    parser.add_argument("--refresh", action="store_true", help="make it again, with the packages of today")
    options = parser.parse_args()
    if not options.refresh and os.path.isdir(options.layout) and Layout(options.layout).resolve(NAME):
        return 0
    if not shutil.which("mmdebstrap"):
        print("base_image: mmdebstrap is missing; as root: apt-get install mmdebstrap", file=sys.stderr)
        return 1
    os.makedirs(os.path.dirname(os.path.abspath(options.layout)), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(options.layout))) as folder:
        rootfs = os.path.join(folder, "rootfs.tar")
        bootstrap(rootfs)
        made = os.path.join(folder, "layout")
        with open(rootfs, "rb") as stream:
            layout = Layout(made)
            layout.tag(NAME, put_image(stream, layout))
        shutil.rmtree(options.layout, ignore_errors=True)
        os.rename(made, options.layout)
    return 0


def bootstrap(rootfs: str, packages: str = "ca-certificates") -> None:
    """Install the smallest Debian and some packages into a tar file. As root this needs neither mount nor unshare."""
    command = ["mmdebstrap", "--variant=minbase", f"--include={packages}"]
    command += [f"--aptopt={line}" for line in apt_transport()]
    command += [f'--essential-hook=cp {path} "$1"{path}' for path in MACHINE_FILES if os.path.exists(path)]
    # Between the essential packages and ca-certificates, whose installation takes them up.
    command += [
        f'--essential-hook=mkdir -p "$1"{LOCAL} && printf %s {shlex.quote(text)} >"$1"{LOCAL}/{name}'
        for name, text in authorities(os.environ).items()
    ]
    # Not among the options above: mmdebstrap itself needs the packages that it has downloaded.
    command += [f'--customize-hook=printf %s {shlex.quote(LEAN)} >"$1"/etc/apt/apt.conf.d/99lean']
    command += [SUITE, rootfs, *apt_mirrors()]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(RELEASED)}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr[-4000:]}base_image: mmdebstrap ended with {done.returncode}")


def authorities(environ: Mapping[str, str]) -> dict[str, str]:
    """The certificates that this machine trusts and Debian does not, by the name of a file for each.

    Some machines have them in a bundle alone: in Debian's own, which somebody has replaced, or in one of the variables.
    """
    bundles = dict.fromkeys([BUNDLE, *(environ[name] for name in BUNDLE_VARIABLES if environ.get(name))])
    trusted = [text for path in (*certificate_files(LOCAL), *bundles) for text in certificates(path)]
    debians = {text for path in certificate_files(DEBIANS) for text in certificates(path)}
    kept = [text for text in dict.fromkeys(trusted) if text not in debians]
    return {f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.crt": text for text in kept}


def certificate_files(folder: str) -> list[str]:
    """Those that Debian's update-ca-certificates would see in a folder."""
    return sorted(glob.glob(f"{folder}/**/*.crt", recursive=True))


def certificates(path: str) -> list[str]:
    """Those of a file in PEM form; none if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return CERTIFICATE.findall(file.read().replace("\r", "") + "\n")
    except OSError:
        return []


def apt_transport() -> list[str]:
    """The machine's own options of how packages are fetched, as lines of apt.conf."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return [line for line in dump.splitlines() if TRANSPORT.fullmatch(line)]


def apt_mirrors() -> list[str]:
    """Where this machine has the suite from, as lines of sources.list; none lets mmdebstrap choose."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in dict.fromkeys(lines) if line.split()[2].startswith(SUITE)]


def put_image(rootfs: BinaryIO, layout: Layout) -> Descriptor:
    """Turn the tar into an image in the layout."""
    day = "2023-06-10T00:00:00Z"
    layer, _ = write_layer(changes(rootfs), layout)
    config = ImageConfig(
        platform=Platform.host(),
        config=RunConfig(env=(f"PATH={PATH}",), cmd=("bash",)),
        diff_ids=(layer.diff_id,),
        history=(History(created=day, created_by=f"mmdebstrap --variant=minbase {SUITE}"),),
        created=day,
    )
    manifest = Manifest(layout.put(config.serialise(), CONFIG), (layer.descriptor,))
    return layout.put(manifest.serialise(), MANIFEST)


def changes(rootfs: BinaryIO) -> Iterator[Change]:
    """The entries of the tar that belong into an image."""
    for entry, stream in read_tar(rootfs):
        if entry.path and not LEFT_OUT.fullmatch(entry.path):
            yield Change(entry, stream if entry.kind is Kind.FILE else None)


if __name__ == "__main__":
    sys.exit(main())
