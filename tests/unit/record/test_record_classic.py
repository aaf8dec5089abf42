"""Classic accounts: lines that go and come back, and the record that an account becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.errors import InvalidArgs, NotSupported, UIDInUse, UIDNotAllowed
from homemgr.record import account_lines, classic
from homemgr.record.account_lines import Excerpt, Texts
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.validate import Purpose, validate

HASH = "$y$j9T$abcdefghijklmnopqrstu.$0123456789abcdefghijklmnopqrstuvwxyzABCDE.1"
DAY = 86400 * 1_000_000


def texts(
    passwd: str = "bob:x:1000:1000:Bob Builder,Room 7,123,:/home/bob:/bin/zsh",  # noqa: S107
    shadow: str = f"bob:{HASH}:19000:0:99999:7:::",
    group: str = "bob:x:1000:",
) -> Texts:
    """Account files of a small machine."""
    return {
        "passwd": f"root:x:0:0:root:/root:/bin/bash\n{passwd}\ncarol:x:1001:100::/home/carol:\n",
        "shadow": f"root:*:19000::::::\n{shadow}\ncarol:!:19000::::::\n",
        "group": f"root:x:0:\naudio:x:29:alice,bob,carol\n{group}\nusers:x:100:\nwork:x:50:bob\n",
        "gshadow": "root:*::\naudio:*::alice,bob,carol\nbob:!::\nusers:*::\nwork:!:bob:bob\n",
    }


def converted(files: Texts) -> tuple[dict[str, object], dict[str, str]]:
    """The record of bob, which is one that a home can be made of, and the notes."""
    who = classic.identify(files, "bob")
    excerpt = account_lines.excerpt(files, "bob", who.own_group)
    found = classic.convert(who, excerpt, "/home")
    record = UserRecord(found.record)
    validate(record, Purpose.CREATE, Machine("0" * 32, None, "/home"))
    return dict(record.data), dict(found.notes)


def test_an_account_becomes_a_record() -> None:
    record, notes = converted(texts())
    assert record == {
        "userName": "bob",
        "disposition": "regular",
        "uid": 1000,
        "realName": "Bob Builder",
        "location": "Room 7",
        "shell": "/bin/zsh",
        "lastPasswordChangeUSec": 19000 * DAY,
        "privileged": {"hashedPassword": [HASH]},
        "memberOf": ["audio", "work"],
    }
    assert notes.keys() == {
        "gecos-dropped",
        "group-administrator-dropped",
        "uid-outside-homed-range",
    }


@pytest.mark.parametrize(
    ("shadow", "members"),
    [
        (f"bob:!{HASH}:19000:0:99999:7:::", {"locked": True}),
        (f"bob:{HASH}:0:0:99999:7:::", {"passwordChangeNow": True}),
        (f"bob:{HASH}:19000:3:90:7:14:20000:", {
            "passwordChangeMinUSec": 3 * DAY,
            "passwordChangeMaxUSec": 90 * DAY,
            "passwordChangeWarnUSec": 7 * DAY,
            "passwordChangeInactiveUSec": 14 * DAY,
            "notAfterUSec": 20000 * DAY,
        }),
        ("bob:abJnggxhB/yWI:::::::", {"privileged": {"hashedPassword": ["abJnggxhB/yWI"]}}),
    ],
)  # fmt: skip
def test_dates_and_locks_are_kept(shadow: str, members: dict[str, object]) -> None:
    record, _ = converted(texts(shadow=shadow))
    assert members.items() <= record.items()


def test_places_and_groups_that_are_special() -> None:
    passwd = "bob:x:60100:100:&:/srv/bob:/bin/sh"
    record, notes = converted(texts(passwd=passwd, group="bobs:x:77:"))
    assert record["homeDirectory"] == "/srv/bob"
    assert record["realName"] == "Bob"
    assert record["memberOf"] == ["audio", "users", "work"]
    assert notes["gid-changed"] == "primary group users (100) becomes bob (60100)"
    assert "uid-outside-homed-range" not in notes


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"passwd": "eve:x:1000:1000::/home/eve:"}, InvalidArgs, "no account bob"),
        ({"passwd": "bob:x:1000:1000::/home/bob"}, InvalidArgs, "malformed"),
        ({"passwd": "bob:x:-1:1000::/home/bob:"}, InvalidArgs, "where an id"),
        ({"passwd": "bob:x:990:990::/home/bob:"}, UIDNotAllowed, "system users"),
        ({"passwd": "bob:x:1001:1000::/home/bob:"}, UIDInUse, "carol has the uid"),
        ({"group": "dev:x:1000:"}, NotSupported, "dev has the id"),
        ({"group": "bob:x:1000:carol"}, NotSupported, "bob has the id"),
        ({"group": "bob:x:1500:carol"}, NotSupported, "Rename it first"),
        ({"shadow": "bob:*:19000::::::"}, NotSupported, "no password"),
        ({"shadow": "bob:!!:19000::::::"}, NotSupported, "no password"),
        ({"shadow": "bob::19000::::::"}, NotSupported, "no password"),
    ],
)
def test_what_cannot_be_a_home_area_is_refused(
    changed: dict[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        converted(texts(**changed))


def test_out_and_back_leaves_every_byte_as_it_was() -> None:
    files = texts()
    excerpt = account_lines.excerpt(files, "bob", "bob")
    without = account_lines.take_out(files, "bob", "bob")
    assert without["group"] == "root:x:0:\naudio:x:29:alice,carol\nusers:x:100:\nwork:x:50:\n"
    assert without["gshadow"] == "root:*::\naudio:*::alice,carol\nusers:*::\nwork:!::\n"
    assert not any("bob" in text for text in without.values())
    assert account_lines.take_out(without, "bob", "bob") == without
    told = Excerpt.from_json(excerpt.to_json())
    assert told == excerpt
    assert account_lines.put_back(without, told) == files
    assert account_lines.put_back(files, told) == files


def test_groups_that_went_meanwhile_get_no_member() -> None:
    files = texts()
    excerpt = account_lines.excerpt(files, "bob", "bob")
    without = account_lines.take_out(files, "bob", "bob")
    without["group"] = without["group"].replace("work:x:50:\n", "")
    assert account_lines.lost_groups(without, excerpt) == ["work"]
    assert "work" not in account_lines.put_back(without, excerpt)["group"]


# Names and other fields as anybody may have written them into the files.
_word = st.text(st.characters(exclude_characters=":\n,", codec="latin-1"), max_size=6)
_names = st.lists(st.sampled_from(["alice", "carol", "dave", "bob2", ""]), unique=True)


@st.composite
def _files(draw: st.DrawFn) -> Texts:
    """Account files with bob somewhere in them."""

    def rows(own: str, make: st.SearchStrategy[str]) -> str:
        others = draw(st.lists(make, max_size=4))
        others.insert(draw(st.integers(0, len(others))), own)
        return "\n".join(others) + "\n"

    def members() -> list[str]:
        names = [name for name in draw(_names) if name]
        if draw(st.booleans()):
            names.insert(draw(st.integers(0, len(names))), "bob")
        return names

    account = st.builds(lambda a, b: f"+{a}:{b}", _word, _word)
    groups = [f"g{n}:x:{n}:{','.join(members())}" for n in range(draw(st.integers(0, 4)))]
    shadows = [f"g{n}:!:{','.join(members())}:{','.join(members())}" for n in range(3)]
    return {
        "passwd": rows("bob:x:1000:1000::/home/bob:", account),
        "shadow": rows(f"bob:{HASH}:::::::", account),
        "group": rows("bob:x:1000:", st.sampled_from(groups)) if groups else "bob:x:1000:\n",
        "gshadow": rows("bob:!::", st.sampled_from(shadows)),
    }


@given(_files())
def test_any_files_come_back_and_only_bob_goes(files: Texts) -> None:
    excerpt = account_lines.excerpt(files, "bob", "bob")
    without = account_lines.take_out(files, "bob", "bob")
    for name, text in without.items():
        assert not any("bob" in line.replace(",", ":").split(":") for line in text.split("\n"))
        assert len(text.split("\n")) == len(files[name].split("\n")) - 1
    assert account_lines.put_back(without, Excerpt.from_json(excerpt.to_json())) == files


def test_the_password_of_now_goes_back() -> None:
    old = f"bob:{HASH}:19000:0:99999:7:::".split(":")
    same = UserRecord({"userName": "bob", "privileged": {"hashedPassword": [HASH]}})
    assert with_password(old, "shadow", same) == ":".join(old)
    assert with_password(old, "shadow", same.replaced(locked=True)) == f"bob:!{':'.join(old[1:])}"
    locked_once = f"bob:!!{HASH}:19000:0:99999:7:::".split(":")
    assert with_password(locked_once, "shadow", same) == ":".join(old)
    assert with_password(locked_once, "shadow", same.replaced(locked=True)).startswith("bob:!!$")
    new = same.replaced(
        privileged={"hashedPassword": ["$y$new", HASH]}, lastPasswordChangeUSec=20000 * DAY + 5
    )
    assert with_password(old, "shadow", new) == "bob:$y$new:20000:0:99999:7:::"
    locked = new.replaced(locked=True)
    assert with_password(old, "shadow", locked).startswith("bob:!$y$new:")
    line = f"bob:{HASH}:1000:1000::/home/bob:".split(":")
    assert with_password(line, "passwd", new) == "bob:$y$new:1000:1000::/home/bob:"


def with_password(old: list[str], file: str, record: UserRecord) -> str:
    """The line of a home area that this machine has."""
    is_locked = record.on(Machine("0" * 32, None, "/home")).locked
    return classic.with_password(old, file, record, is_locked=is_locked)


def test_groups_that_were_left_since_are_not_entered_again() -> None:
    files = texts()
    excerpt = account_lines.excerpt(files, "bob", "bob")
    without = account_lines.take_out(files, "bob", "bob")
    back = account_lines.put_back(without, excerpt.in_groups(["audio", "new"]))
    assert back["group"] == files["group"].replace("work:x:50:bob", "work:x:50:")
    assert back["gshadow"] == files["gshadow"].replace("work:!:bob:bob", "work:!::")
    assert account_lines.put_back(without, excerpt.in_groups(["audio", "work"])) == files
