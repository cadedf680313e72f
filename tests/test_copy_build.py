"""Whole instructions: from the text of a COPY or ADD to the layer, and when the cache answers. No RUN, no root."""

import os
import tarfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from builder.build import Clocks, build
from builder.errors import DockerfileError
from builder.events import Cached, Event, Warned
from builder.options import BuildOptions
from cache.store import Store
from layers.compress import decompressed
from layers.entry import Entry, Kind
from layers.errors import PybuildError
from layers.oci import Image
from layers.tar import read_tar

NOW = 1_700_000_000 * 10**9


class Copied(NamedTuple):
    """One entry of a layer with its bytes."""

    entry: Entry
    data: bytes


@dataclass
class Workshop:
    """A context and a store; each build is a Dockerfile over them."""

    place: Path
    events: list[Event] = field(default_factory=list)
    image: Image | None = None

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.place / "context" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(text))

    def build(self, dockerfile: str, **build_args: str) -> dict[str, Copied]:
        """What the last layer has, by path."""
        self.write({"Dockerfile": dockerfile})
        self.events.clear()
        options = BuildOptions(
            context=str(self.place / "context"),
            root=str(self.place / "store"),
            build_args=build_args,
        )
        self.image = build(options, self.events.append, Clocks(lambda: 0.0, lambda: NOW)).image
        return self.layer(-1)

    def layer(self, number: int) -> dict[str, Copied]:
        assert self.image is not None
        descriptor = self.image.manifest.layers[number]
        with closing(Store(str(self.place / "store"))) as store, store.layout.open(descriptor) as blob:
            return {entry.path: Copied(entry, stream.read()) for entry, stream in read_tar(decompressed(blob))}

    @property
    def cached(self) -> list[str]:
        """The instructions that the cache answered."""
        titles = (event.job.title for event in self.events if isinstance(event, Cached))
        return [title.partition("] ")[2] for title in titles]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]

    def history(self) -> str:
        """How the last layer came to be, as the image says."""
        assert self.image is not None
        return self.image.config.history[-1].created_by


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.write({"a": "A", "b": "B", "d/x": "X", "d/sub/y": "Y"})
    return made


def texts(layer: Mapping[str, Copied]) -> dict[str, str]:
    """The files of a layer."""
    return {path: os.fsdecode(item.data) for path, item in layer.items() if item.entry.kind is Kind.FILE}


# --- here-documents


def test_a_here_document_is_a_file_with_its_variables_replaced(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nENV who=me\nCOPY <<EOF /hi\n$who ${x:-y} \\$who \"who\" '$who'\nEOF\n")

    assert texts(layer) == {"hi": "me y $who \"who\" 'me'\n"}
    assert (layer["hi"].entry.mode, layer["hi"].entry.uid) == (0o644, 0)
    assert layer["hi"].entry.mtime_ns == NOW


@pytest.mark.parametrize("name", ["'EOF'", '"EOF"', "E'O'F"])
def test_a_quoted_name_leaves_the_body_as_it_is(workshop: Workshop, name: str) -> None:
    layer = workshop.build(f"FROM scratch\nCOPY <<{name} /hi\n$who \\$\nEOF\n")

    assert texts(layer) == {"hi": "$who \\$\n"}


def test_in_a_directory_the_name_of_the_document_is_that_of_the_file(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nCOPY <<one <<two /d/\n1\none\n2\ntwo\n")

    assert texts(layer) == {"d/one": "1\n", "d/two": "2\n"}


def test_documents_and_paths_may_be_mixed_in_add_too(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nADD a <<doc d /o/\ntext\ndoc\n")

    assert texts(layer) == {"o/a": "A", "o/x": "X", "o/sub/y": "Y", "o/doc": "text\n"}


def test_flags_count_for_documents(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nCOPY --chmod=u+x --chown=3:4 <<doc /o/\ndoc\n")

    assert layer["o/doc"].entry.mode == 0o744
    assert (layer["o/doc"].entry.uid, layer["o"].entry.gid) == (3, 4)


def test_tabs_go_and_carriage_returns_stay(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nCOPY <<-doc /o\n\tx\r\n\t\ty\n\tdoc\n")

    assert layer["o"].data == b"x\r\ny\n"


def test_bytes_that_are_no_text_stay(workshop: Workshop) -> None:
    body = os.fsdecode(b"\xff\xfe\n")

    layer = workshop.build(f"FROM scratch\nCOPY <<doc /o\n{body}doc\n")

    assert layer["o"].data == b"\xff\xfe\n"


def test_a_document_is_part_of_the_key(workshop: Workshop) -> None:
    workshop.build("FROM scratch\nCOPY <<doc /o\nold\ndoc\n")

    layer = workshop.build("FROM scratch\nCOPY <<doc /o\nnew\ndoc\n")

    assert texts(layer) == {"o": "new\n"}


def test_a_variable_of_a_document_is_part_of_the_key(workshop: Workshop) -> None:
    text = "FROM scratch\nARG v\nCOPY <<doc /o\n$v\ndoc\n"
    workshop.build(text, v="old")

    layer = workshop.build(text, v="new")

    assert texts(layer) == {"o": "new\n"}


def test_a_document_that_is_the_same_is_answered_by_the_cache(workshop: Workshop) -> None:
    workshop.build("FROM scratch\nCOPY <<doc /o\nold\ndoc\n")

    workshop.build("FROM scratch\nENV x=1\nCOPY <<doc /o\nold\ndoc\n")

    assert workshop.cached == ["COPY <<doc /o"]


def test_a_document_needs_a_name_that_a_file_can_have(workshop: Workshop) -> None:
    with pytest.raises(DockerfileError, match="'a/b' would be a file with a slash in its name"):
        workshop.build("FROM scratch\nCOPY <<a/b /o/\na/b\n")


def test_a_trigger_copies_its_document(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch AS base\nONBUILD COPY <<doc /o\nfrom $x\ndoc\nFROM base\n")

    assert texts(layer) == {"o": "from \n"}


# --- --link


def test_a_linked_layer_states_its_directories_anew(workshop: Workshop) -> None:
    text = "FROM scratch\nCOPY --chown=5:5 --chmod=700 a /o/\nCOPY --link b /o/\n"

    layer = workshop.build(text)

    assert list(layer) == ["o", "o/b"]
    assert (layer["o"].entry.uid, layer["o"].entry.mode) == (0, 0o755)


def test_a_linked_layer_does_not_depend_on_what_is_below(workshop: Workshop) -> None:
    workshop.build("FROM scratch\nCOPY a /one\nCOPY --link d /o/\n")

    workshop.build("FROM scratch\nCOPY b /two\nCOPY --link d /o/\n")

    assert workshop.cached == ["COPY --link d /o/"]


def test_a_layer_that_is_not_linked_depends_on_it(workshop: Workshop) -> None:
    workshop.build("FROM scratch\nCOPY a /one\nCOPY d /o/\n")

    workshop.build("FROM scratch\nCOPY b /two\nCOPY d /o/\n")

    assert workshop.cached == []


def test_a_linked_and_a_plain_copy_are_two_steps(workshop: Workshop) -> None:
    workshop.build("FROM scratch\nCOPY d /o/\n")

    workshop.build("FROM scratch\nCOPY --link d /o/\n")

    assert workshop.cached == []


def test_a_linked_layer_follows_no_link_of_the_image(workshop: Workshop) -> None:
    os.symlink("/real", workshop.place / "context" / "d" / "ln")

    layer = workshop.build("FROM scratch\nCOPY d /\nCOPY --link a /ln/\n")

    assert list(layer) == ["ln", "ln/a"]


@pytest.mark.parametrize("owner", ["www", "0:www", "www:0", ":www"])
def test_a_linked_layer_knows_no_user_by_name(workshop: Workshop, owner: str) -> None:
    with pytest.raises(DockerfileError, match="an empty root has no 'www'"):
        workshop.build(f"FROM scratch\nCOPY --link --chown={owner} a /o/\n")


def test_root_has_a_name_everywhere(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nCOPY --link --chown=root:7 a /o/\n")

    assert (layer["o/a"].entry.uid, layer["o/a"].entry.gid) == (0, 7)


# --- flags and their words


def test_flags_may_hold_variables(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nARG M=0600\nARG U=5\nCOPY --chmod=$M --chown=${U}:6 a /o\n")

    assert (layer["o"].entry.mode, layer["o"].entry.uid, layer["o"].entry.gid) == (0o600, 5, 6)


def test_a_mode_that_is_none_names_the_line(workshop: Workshop) -> None:
    with pytest.raises(DockerfileError, match="invalid chmod parameter: '999'") as caught:
        workshop.build("FROM scratch\nCOPY --chmod=999 a /o\n")

    assert caught.value.location is not None
    assert caught.value.location.first == 2


@pytest.mark.parametrize(
    ("first", "second", "same"), [("755", "0755", True), ("755", "+x", False), ("+x", "a+x", False)]
)
def test_the_mode_is_part_of_the_key(workshop: Workshop, first: str, second: str, *, same: bool) -> None:
    workshop.build(f"FROM scratch\nCOPY --chmod={first} a /o\n")

    workshop.build(f"FROM scratch\nCOPY --chmod={second} a /o\n")

    assert bool(workshop.cached) == same


def test_what_is_excluded_may_change(workshop: Workshop) -> None:
    text = "FROM scratch\nCOPY --exclude=sub d /o/\n"
    workshop.build(text)
    workshop.write({"d/sub/y": "changed"})

    workshop.build(text)

    assert workshop.cached == ["COPY --exclude=sub d /o/"]


def test_what_parents_takes_may_not(workshop: Workshop) -> None:
    text = "FROM scratch\nCOPY --parents d/sub/y /o/\n"
    workshop.build(text)
    workshop.write({"d/x": "changed"})
    workshop.build(text)
    unaffected = workshop.cached
    workshop.write({"d/sub/y": "changed"})

    layer = workshop.build(text)

    assert unaffected == ["COPY --parents d/sub/y /o/"]
    assert texts(layer) == {"o/d/sub/y": "changed"}


def test_of_a_stage_too_only_what_is_taken_counts(workshop: Workshop) -> None:
    """The key of a copy from a stage is remembered by what was asked for, filters included."""
    stage = "FROM scratch AS s\nCOPY d /d/\nFROM scratch\n"
    workshop.build(f"{stage}COPY --from=s --exclude=sub /d /o/\n")

    layer = workshop.build(f"{stage}COPY --from=s --exclude=x /d /o/\n")

    assert texts(layer) == {"o/sub/y": "Y"}


def test_add_may_leave_an_archive_as_it_is(workshop: Workshop) -> None:
    with tarfile.open(workshop.place / "context" / "t.tar", "w") as tar:
        tar.add(workshop.place / "context" / "a", "inside")

    unpacked = workshop.build("FROM scratch\nADD t.tar /o/\n")
    left = workshop.build("FROM scratch\nADD --unpack=false t.tar /o/\n")

    assert list(unpacked) == ["o", "o/inside"]
    assert list(left) == ["o", "o/t.tar"]


def test_a_url_is_no_source_of_copy(workshop: Workshop) -> None:
    with pytest.raises(PybuildError, match="cannot be a source of COPY"):
        workshop.build("FROM scratch\nCOPY http://example.com/x /o\n")


def test_the_history_says_what_was_copied(workshop: Workshop) -> None:
    workshop.build("FROM scratch\nARG N=a\nCOPY --parents --chown=1 --chmod=g=u $N <<doc /o/\ndoc\n")

    assert workshop.history() == "COPY --parents --chown=1 --chmod=g=u a <<doc /o/ # buildkit"


# --- hard links, from a stage


def test_hard_links_are_links_in_the_layer_too(workshop: Workshop) -> None:
    os.link(workshop.place / "context/d/x", workshop.place / "context/d/z")

    layer = workshop.build("FROM scratch\nCOPY d /o\n")

    assert (layer["o/z"].entry.kind, layer["o/z"].entry.target) == (Kind.HARDLINK, "o/x")


def test_a_stage_keeps_its_owners_and_the_new_top_is_roots(workshop: Workshop) -> None:
    stage = "FROM scratch AS s\nCOPY --chown=12:34 d /d/\n"

    layer = workshop.build(f"{stage}FROM scratch\nCOPY --from=s /d /o\n")

    assert {path: item.entry.uid for path, item in layer.items()} == {"o": 0, "o/sub": 12, "o/sub/y": 12, "o/x": 12}


def test_a_stage_that_changed_elsewhere_leaves_the_copy_alone(workshop: Workshop) -> None:
    stage = "FROM scratch AS s\nCOPY --link d /d/\nCOPY {} /noise\nFROM scratch\nCOPY --from=s /d /o\n"
    workshop.build(stage.format("a"))

    workshop.build(stage.format("b"))

    assert workshop.cached[-1] == "COPY --from=s /d /o"


def test_a_stage_may_be_named_by_its_number(workshop: Workshop) -> None:
    layer = workshop.build("FROM scratch\nCOPY a /a\nFROM scratch\nCOPY --from=0 /a /o\n")

    assert texts(layer) == {"o": "A"}
