"""Who USER and --chown mean, by the image's own files."""

import pytest
from tars import file, folder, index_of, symlink

from layers.accounts import Accounts, Owner, User
from layers.errors import ImageError
from layers.view import View

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
app:x:1234:2345:::
app:x:9:9::/second:/bin/sh
4321:x:77:78::/digits:/bin/sh
br\xffken:x:88:88::/b:/bin/sh
"""
GROUP = b"""root:x:0:
daemon:x:1:
grp:x:3456:app,daemon
more:x:3457:daemon,app
none:x:3458:
"""
IMAGE = Accounts(PASSWD, GROUP)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (0,), "/root")),
        ("root", User(0, 0, (0,), "/root")),
        ("0", User(0, 0, (0,), "/root")),
        ("daemon", User(1, 1, (1, 3456, 3457), "/usr/sbin")),
        ("1", User(1, 1, (1, 3456, 3457), "/usr/sbin")),
        ("app", User(1234, 2345, (2345, 3456, 3457), "/")),
        ("app:", User(1234, 2345, (2345, 3456, 3457), "/")),
        ("daemon:grp", User(1, 3456, (3456,), "/usr/sbin")),
        ("daemon:55", User(1, 55, (55,), "/usr/sbin")),
        ("1:grp", User(1, 3456, (3456,), "/usr/sbin")),
        (":grp", User(0, 3456, (3456,), "/root")),
        ("999", User(999, 0, (0,), "/")),
        ("999:998", User(999, 998, (998,), "/")),
        ("4321", User(4321, 0, (0,), "/")),
        ("br\udcffken", User(88, 88, (88,), "/b")),
    ],
)
def test_user_means_what_it_means_to_docker(text: str, user: User) -> None:
    assert IMAGE.user(text) == user


@pytest.mark.parametrize("text", ["root:root", "0:root", "root:0", "0:0"])
def test_root_needs_no_files_if_its_group_is_named_too(text: str) -> None:
    assert Accounts(b"root:x:5:6::/r:\n", b"").user(text) == User(0, 0, (0,))


@pytest.mark.parametrize("path", ["etc/passwd", "etc/group"])
def test_a_folder_has_no_accounts(path: str) -> None:
    accounts = Accounts.from_view(View([index_of(folder(path))]))

    assert accounts.user("") == User(0, 0, (0,))
    assert accounts.user("5:root") == User(5, 0, (0,))
    assert accounts.owner("5:6") == Owner(5, 6)
    for wanted in ("5", "root", "app", "app:5", "5:app"):
        with pytest.raises(ImageError, match=f"^/{path} is a folder$"):
            accounts.user(wanted)
    with pytest.raises(ImageError, match="is a folder"):
        accounts.owner("app" if path == "etc/passwd" else "5:app")


def test_links_in_a_circle_have_no_accounts() -> None:
    accounts = Accounts.from_view(View([index_of(symlink("etc/passwd", "passwd"))]))

    assert accounts.user("").uid == 0
    with pytest.raises(ImageError, match="symbolic links"):
        accounts.user("app")


def test_an_unknown_user_is_an_error_that_names_it() -> None:
    with pytest.raises(ImageError, match=r"^unable to find user nobodyhere: no matching entries in passwd file$"):
        IMAGE.user("nobodyhere:grp")


def test_an_unknown_group_is_an_error_that_names_it() -> None:
    with pytest.raises(ImageError, match=r"^unable to find group nogroup: no matching entries in group file$"):
        IMAGE.user("app:nogroup")


@pytest.mark.parametrize("text", ["2147483648", "0:2147483648", "99999999999999999999"])
def test_ids_that_no_runtime_takes_are_an_error(text: str) -> None:
    with pytest.raises(ImageError, match="no id of a user or group"):
        IMAGE.user(text)


@pytest.mark.parametrize("text", ["-1", "+1", "1 ", "٣", "1_0", "9" * 21])
def test_only_plain_digits_are_a_number(text: str) -> None:
    with pytest.raises(ImageError, match="unable to find user"):
        IMAGE.user(text)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("1:2", Owner(1, 2)),
        ("3", Owner(3, 3)),
        ("app", Owner(1234, 2345)),
        ("app:grp", Owner(1234, 3456)),
        ("app:55", Owner(1234, 55)),
        (":grp", Owner(0, 3456)),
        (":7", Owner(0, 7)),
        ("99:grp", Owner(99, 3456)),
        ("app:", Owner(1234, 2345)),
        ("1", Owner(1, 1)),
        ("app:root", Owner(1234, 0)),
    ],
)
def test_chown_means_what_it_means_to_buildkit(text: str, owner: Owner) -> None:
    assert IMAGE.owner(text) == owner


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("nobodyhere", Owner(0, 0, ("nobodyhere",))),
        ("nobodyhere:grp", Owner(0, 3456, ("nobodyhere",))),
        ("app:nogroup", Owner(1234, 2345, ("nogroup",))),
        ("nobodyhere:nogroup", Owner(0, 0, ("nobodyhere", "nogroup"))),
    ],
)
def test_names_that_chown_does_not_find_are_told(text: str, owner: Owner) -> None:
    assert IMAGE.owner(text) == owner


def test_root_needs_no_passwd() -> None:
    empty = Accounts(b"", b"")

    assert empty.user("") == User(0, 0, (0,))
    assert empty.owner("root:root") == Owner(0, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"evil",
        b"evil:x",
        b"evil:x:0",
        b"evil:x::0",
        b"evil:x:0x0:0::/:",
        b"evil:x:-0:0::/:",
        b"evil:x:4294967296:0::/:",
    ],
)
def test_malformed_lines_give_nobody_rights(line: bytes) -> None:
    accounts = Accounts(line + b"\n\n   \n#comment\n:x:0:0::/:\n" + PASSWD, b"junk\nbad:x:y:app\n\n" + GROUP)

    assert accounts.user("app") == IMAGE.user("app")
    with pytest.raises(ImageError):
        accounts.user("evil")


def test_accounts_are_read_from_the_image_through_its_links() -> None:
    passwd = {"usr/share/passwd": b"app:x:5:6::/home/app:/bin/sh"}
    view = View([index_of(symlink("etc/passwd", "../usr/share/passwd"), file("usr/share/passwd"), contents=passwd)])

    assert Accounts.from_view(view).user("app") == User(5, 6, (6,), "/home/app")


def test_an_image_without_accounts_has_none() -> None:
    accounts = Accounts.from_view(View([]))

    assert accounts.owner("app") == Owner(0, 0, ("app",))
