"""How outputs are written on the command line, in docker buildx's grammar; nothing unknown is let pass."""

import argparse
import re

import pytest

from builder.cli.outputs import add_output_options, outputs_of, parse_annotations, parse_outputs
from builder.errors import UsageError
from builder.export.output import Annotations, Form, Output, Packing, Squash
from layers.compress import Compression
from layers.oci import Platform

HERE = Platform("linux", "amd64")


def parsed(text: str, defaults: Packing | None = None) -> Output:
    (output,) = parse_outputs([text], (HERE,), defaults=defaults or Packing())
    return output


def packing(text: str) -> Packing:
    return parsed(f"type=oci,dest=x,{text}").packing


def test_a_folder_alone_is_a_local_output() -> None:
    assert parsed("out/rootfs") == Output(Form.LOCAL, "out/rootfs")


def test_a_dash_alone_is_a_tar_on_standard_output() -> None:
    assert parsed("-") == Output(Form.TAR, "-")


def test_an_output_can_be_the_cache_alone() -> None:
    assert parsed("type=cacheonly") == Output(Form.CACHEONLY)


@pytest.mark.parametrize("form", ["oci", "tar"])
def test_an_archive_without_a_destination_goes_to_standard_output(form: str) -> None:
    assert parsed(f"type={form}").destination == "-"


def test_a_layout_can_be_a_folder() -> None:
    output = parsed("type=oci,dest=layout,tar=false")

    assert (output.form, output.destination, output.tar) == (Form.OCI, "layout", False)


def test_docker_without_a_destination_is_to_be_loaded() -> None:
    assert parsed("type=docker").destination == ""


def test_values_with_commas_are_quoted() -> None:
    output = parsed('type=image,"name=one,two:2"')

    assert output.names == ("docker.io/library/one:latest", "docker.io/library/two:2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("compression=zstd", Packing(Compression.ZSTD)),
        ("compression=zstd,compression-level=19", Packing(Compression.ZSTD, 19)),
        ("compression-level=9", Packing(Compression.GZIP, 9)),
        ("compression=uncompressed,force-compression=true", Packing(Compression.NONE, force=True)),
        ("oci-mediatypes=false", Packing(docker_types=True)),
        ("squash=all", Packing(squash=Squash.ALL)),
        ("squash=true", Packing(squash=Squash.NEW)),
        ("annotation.a.b=c", Packing(annotations=Annotations(manifest=(("a.b", "c"),)))),
        ("annotation[linux/amd64].a=c", Packing(annotations=Annotations(manifest=(("a", "c"),)))),
        ("annotation-index.a=", Packing(annotations=Annotations(index=(("a", ""),)))),
        ("annotation-manifest-descriptor.a=b", Packing(annotations=Annotations(manifest_descriptor=(("a", "b"),)))),
    ],
)
def test_fields_say_how_the_image_is_packed(text: str, expected: Packing) -> None:
    assert packing(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=rocket,dest=x", "there is no type rocket"),
        ("dest=x", "type= is missing"),
        ("type=oci,dest", "is not written KEY=VALUE"),
        ("type=local", "dest= is missing"),
        ("type=oci,tar=false", "dest= is missing"),
        ("type=oci,tar=false,dest=-", "a folder cannot go to standard output"),
        ("type=oci,dest=x,tar=maybe", "tar is true or false"),
        ("type=oci,dest=x,colour=red", "have no colour"),
        ("type=tar,dest=x,compression=zstd", "have no compression"),
        ("type=image,dest=x", "have no dest"),
        ("type=cacheonly,dest=x", "have no dest"),
        ("type=oci,dest=x,compression=estargz,oci-mediatypes=false", "estargz needs annotations of layers"),
        ("type=oci,dest=x,compression=estargz,compression-level=10", "estargz has 0 to 9"),
        ("type=oci,dest=x,compression=rar", "there is no compression rar"),
        ("type=oci,dest=x,compression-level=10", "gzip has 0 to 9"),
        ("type=oci,dest=x,compression=zstd,compression-level=x", "zstd has 0 to 22"),
        ("type=oci,dest=x,compression=uncompressed,compression-level=1", "uncompressed has none"),
        ("type=oci,dest=x,squash=some", "squash is true, false, new or all"),
        ("type=oci,dest=x,annotation-place.a=b", "there is no place place"),
        ("type=oci,dest=x,annotation[linux/arm64].a=b", "the image is for linux/amd64"),
        ("type=oci,dest=x,name=Upper", "is not an image name"),
    ],
)
def test_what_is_wrong_with_an_output_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parsed(text)


def test_two_outputs_cannot_share_standard_output() -> None:
    with pytest.raises(UsageError, match="two outputs want standard output"):
        parse_outputs(["-", "type=oci"], (HERE,), defaults=Packing())


def test_an_output_says_more_than_the_options_do() -> None:
    defaults = Packing(squash=Squash.NEW, annotations=Annotations(manifest=(("a", "1"), ("b", "1"))))

    output = parsed("type=oci,squash=false,annotation.b=2", defaults)

    assert output.packing.squash is Squash.NONE
    assert output.packing.annotations.manifest == (("a", "1"), ("b", "2"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", Annotations(manifest=(("a", "b"),))),
        ("org.x:y=b=c", Annotations(manifest=(("org.x:y", "b=c"),))),
        ("index:a=b", Annotations(index=(("a", "b"),))),
        ("index,manifest:a=b", Annotations(manifest=(("a", "b"),), index=(("a", "b"),))),
        ("manifest[linux/amd64]:a=b", Annotations(manifest=(("a", "b"),))),
        ("index-descriptor:a=b", Annotations(index_descriptor=(("a", "b"),))),
    ],
)
def test_annotations_say_where_they_belong(text: str, expected: Annotations) -> None:
    assert parse_annotations([text], (HERE,)) == expected


def test_an_annotation_needs_a_value() -> None:
    with pytest.raises(UsageError, match="it is written"):
        parse_annotations(["index:a"], (HERE,))


def given(*arguments: str) -> tuple[tuple[Output, ...], Packing]:
    parser = argparse.ArgumentParser()
    parser.add_argument("context")
    add_output_options(parser)
    return outputs_of(parser.parse_args([*arguments, "."]), (HERE,))


def test_squash_does_not_take_the_context_for_a_value() -> None:
    assert given("--squash")[1].squash is Squash.NEW
    assert given("--squash=all")[1].squash is Squash.ALL
    assert given()[1].squash is Squash.NONE


def test_load_comes_beside_the_store_or_the_other_outputs() -> None:
    assert [output.form for output in given("--load")[0]] == [Form.IMAGE, Form.DOCKER]
    assert [output.form for output in given("--load", "-o", "dir")[0]] == [Form.LOCAL, Form.DOCKER]
