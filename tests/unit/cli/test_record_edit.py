"""Record options: the same records as homectl 252 makes (homectl_252.json holds what it sent)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.cli.arguments import UsageError, parse
from homemgr.cli.record_edit import Edit
from homemgr.cli.record_options import OPTIONS, ROWS
from homemgr.record.fields import FIELDS

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json, JsonObject

GOLDEN = json.loads(Path(__file__).with_name("homectl_252.json").read_text(encoding="utf-8"))
MACHINE = "@"
#: What a record gets beyond its options; test_verbs.py looks at these.
BEYOND = ("lastChangeUSec", "lastPasswordChangeUSec", "disposition", "secret", "userName")
#: homectl takes these off before it applies options.
STRIPPED = ("binding", "status", "signature", "blobManifest")


def edit(*arguments: str, files: dict[str, str] | None = None) -> Edit:
    made = Edit({"PASSED": "on"}, (files or {}).__getitem__)
    made.take(parse(arguments, OPTIONS))
    return made


def apply(record: JsonObject, *arguments: str, files: dict[str, str] | None = None) -> JsonObject:
    return edit(*arguments, files=files).apply(record, MACHINE)


def comparable(record: JsonObject) -> JsonObject:
    shown = {k: v for k, v in record.items() if k not in BEYOND}
    privileged = shown.pop("privileged", {})
    assert isinstance(privileged, dict)
    kept = {k: v for k, v in privileged.items() if k != "hashedPassword"}
    return {**shown, "privileged": kept} if kept else shown


@pytest.mark.parametrize("name", GOLDEN["create"])
def test_create_options_make_the_record_of_homectl(name: str) -> None:
    case = GOLDEN["create"][name]
    assert comparable(apply({}, *case["arguments"])) == comparable(case["record"])


@pytest.mark.parametrize("name", GOLDEN["update"])
def test_update_options_change_the_record_as_homectl_does(name: str) -> None:
    case = GOLDEN["update"][name]
    current = {k: v for k, v in GOLDEN["base"].items() if k not in STRIPPED}
    assert comparable(apply(current, *case["arguments"])) == comparable(case["record"])


def test_a_resource_limit_alone_is_a_change() -> None:
    """homectl 252 sends the record back unchanged when nothing else is given."""
    case = GOLDEN["base"]
    record = apply({"perMachine": case["perMachine"]}, "--rlimit=NPROC=5")
    assert record["perMachine"] == [
        case["perMachine"][1],
        case["perMachine"][0]
        | {
            "resourceLimits": {
                "RLIMIT_NOFILE": {"cur": 1, "max": 2},
                "RLIMIT_NPROC": {"cur": 5, "max": 5},
            }
        },
    ]


def test_extensions_keep_their_order_and_their_mark() -> None:
    record = apply({}, "--extension=+base,tools", "--extension=more", "--extension=tools")
    assert record["org.homemgr.extensions"] == ["+base", "tools", "more"]
    assert "org.homemgr.extensions" not in apply(record, "--extension=")
    assert apply({}, "--extension-mutability=no")["org.homemgr.extensionMutability"] == "no"
    assert apply({}, "--home-mode=ephemeral")["org.homemgr.homeMode"] == "ephemeral"


def test_groups_with_signs_leave_the_others_alone() -> None:
    record: JsonObject = {"memberOf": ["audio", "kvm", "video"]}
    changed = apply(record, "--member-of=+wheel,-audio", "-G", "-video,+kvm")
    assert changed == {"memberOf": ["kvm", "wheel"]}
    assert apply({}, "-G+wheel,-audio") == {"memberOf": ["wheel"]}
    assert apply({"memberOf": ["audio"]}, "--member-of=-audio") == {}
    assert apply({}, "--member-of=+a,-a", "-G", "-b,+b") == {"memberOf": ["b"]}


def test_out_of_a_group_is_out_of_it_in_every_section() -> None:
    machines: list[JsonObject] = [
        {"matchHostname": "x", "memberOf": ["wheel", "kvm"]},
        {"matchMachineId": MACHINE, "memberOf": ["wheel"]},
        {"matchMachineId": "other", "memberOf": ["wheel"], "shell": "/bin/a"},
    ]
    record = apply({"memberOf": ["wheel"], "perMachine": machines}, "--member-of=-wheel,+audio")
    assert record == {
        "memberOf": ["audio"],
        "perMachine": [
            {"matchHostname": "x", "memberOf": ["kvm"]},
            {"matchMachineId": "other", "shell": "/bin/a"},
        ],
    }


@pytest.mark.parametrize(
    "options",
    [
        ("--member-of=+wheel,audio",),
        ("--member-of=audio", "--member-of=+wheel"),
        ("--member-of=+wheel", "--member-of=audio"),
        ("--member-of=", "--member-of=+wheel"),
        ("-T", "--member-of=-wheel"),
        ("--member-of=+",),
    ],
)
def test_groups_with_signs_that_make_no_sense(options: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="member-of"):
        edit(*options)


@pytest.mark.parametrize(
    "option", ["--extension=+", "--extension-mutability=perhaps", "--home-mode=x"]
)
def test_extension_options_that_make_no_sense(option: str) -> None:
    with pytest.raises(UsageError):
        edit(option)


def test_every_row_names_a_field_that_exists() -> None:
    for row in ROWS:
        assert row.field in FIELDS
        assert row.option.help


def test_no_option_is_there_twice() -> None:
    names = [option.name for option in OPTIONS if option.name]
    letters = "".join(option.short for option in OPTIONS)
    assert len(set(names)) == len(names)
    assert len(set(letters)) == len(letters)


def test_the_record_given_is_not_changed() -> None:
    before = json.dumps(GOLDEN["base"])
    apply(GOLDEN["base"], "--real-name=x", "--storage=subvolume", "--rlimit=NPROC=1")
    assert json.dumps(GOLDEN["base"]) == before


def test_match_redirects_what_may_stand_in_a_per_machine_entry() -> None:
    record = apply({}, "-T", "--shell=/bin/a", "-N", "--shell=/bin/b", "-A", "--storage=directory")
    assert record == {
        "storage": "directory",
        "perMachine": [
            {"matchMachineId": MACHINE, "shell": "/bin/a"},
            {"matchNotMachineId": MACHINE, "shell": "/bin/b"},
        ],
    }


def test_match_does_not_move_what_has_to_stay_on_top() -> None:
    assert apply({}, "--match=this", "--realm=example.com") == {"realm": "example.com"}


def test_match_auto_goes_back_to_each_option_s_own_place() -> None:
    record = apply({}, "-T", "--match=auto", "--shell=/bin/a")
    assert record == {"shell": "/bin/a"}


def test_entries_of_this_machine_become_one() -> None:
    entries = [{"matchMachineId": [MACHINE], "shell": "/a"}, {"matchMachineId": MACHINE, "uid": 7}]
    record = apply({"perMachine": entries}, "--storage=directory")
    assert record["perMachine"] == [
        {"matchMachineId": MACHINE, "shell": "/a", "uid": 7, "storage": "directory"}
    ]


def test_a_storage_of_ours_is_named_beside_one_that_all_know() -> None:
    record = apply({}, "--storage=image")
    assert record == {"storage": "directory", "org.homemgr.storage": "image"}
    luks = apply(record, "--storage=luks")
    assert luks == {"perMachine": [{"matchMachineId": MACHINE, "storage": "luks"}]}
    assert apply(record, "--storage=") == {}


def test_idmap_policy_is_ours() -> None:
    assert apply({}, "--idmap-policy=homed") == {"org.homemgr.idmapPolicy": "homed"}
    with pytest.raises(UsageError, match="one of strict, homed"):
        edit("--idmap-policy=wide")


def test_keys_from_a_file_without_comments_and_empty_lines() -> None:
    files = {"keys": "# mine\nssh-ed25519 B b\n\n  ssh-ed25519 A a\n"}
    record = apply({}, "--ssh-authorized-keys=@keys", files=files)
    assert record["privileged"] == {"sshAuthorizedKeys": ["ssh-ed25519 B b", "ssh-ed25519 A a"]}


def test_a_variable_without_value_is_passed_on_if_it_is_set() -> None:
    assert apply({}, "--setenv=PASSED", "--setenv=MISSING") == {"environment": ["PASSED=on"]}


def test_several_languages_are_one_preferred_and_others() -> None:
    record = apply({}, "--language=de_DE.UTF-8,C.UTF-8:fr_FR.UTF-8")
    assert record["preferredLanguage"] == "de_DE.UTF-8"
    assert record["additionalLanguages"] == ["C.UTF-8", "fr_FR.UTF-8"]


def test_one_limit_can_be_taken_back() -> None:
    limits: JsonObject = {"RLIMIT_NPROC": {"cur": 1, "max": 1}, "RLIMIT_CORE": {"cur": 0, "max": 0}}
    record = apply({"resourceLimits": limits}, "--rlimit=NPROC=")
    assert record["resourceLimits"] == {"RLIMIT_CORE": {"cur": 0, "max": 0}}


def test_tokens_are_collected_and_those_before_taken_away() -> None:
    assert apply({"fido2HmacCredential": ["YQ=="]}, "--fido2-device=") == {}
    said = ("--pkcs11-token-uri=pkcs11:a", "--pkcs11-token-uri=", "--pkcs11-token-uri=pkcs11:b")
    wishes = edit(*said, "--fido2-device=auto", "--fido2-with-client-pin=no").tokens
    assert (wishes.uris, wishes.devices) == (["pkcs11:b"], ["auto"])
    assert (wishes.with_pin, wishes.with_presence) == (False, True)
    assert not edit("--pkcs11-token-uri=pkcs11:a").is_empty


@pytest.mark.parametrize(
    "word",
    [
        "--pkcs11-token-uri=/dev/x",
        "--fido2-device=hidraw0",
        "--fido2-credential-algorithm=rsa",
        "--fido2-with-client-pin=perhaps",
    ],
)
def test_what_names_no_token_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=word.partition("=")[0]):
        edit(word)


def test_recovery_key_replaces_the_former_one() -> None:
    wants = edit("--recovery-key=yes")
    assert wants.wants_recovery_key
    assert wants.apply({"recoveryKeyType": ["modhex64"]}, MACHINE) == {}


def test_nothing_given_is_empty() -> None:
    assert edit().is_empty
    assert edit("--identity=x").is_empty
    assert not edit("--shell=").is_empty
    assert not edit("--rlimit=NPROC=1").is_empty


def test_empty_value_takes_a_field_away_everywhere() -> None:
    entries = [{"matchMachineId": MACHINE, "shell": "/a"}, {"matchHostname": "h", "shell": "/b"}]
    record = apply({"shell": "/bin/x", "perMachine": entries}, "--shell=")
    # The entry of another machine is its own business, as with homectl.
    assert record == {"perMachine": [{"matchHostname": "h", "shell": "/b"}]}


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--uid=abc", "expected a number"),
        ("--uid=65535", "expected an integer of"),
        ("--shell=bash", "expected an absolute path"),
        ("--home-dir=/", "expected an absolute normalized path"),
        ("--locked=maybe", "expected yes or no"),
        ("--access-mode=999", "expected a mode"),
        ("--umask=7777", "expected a mode"),
        ("--nice=20", "expected an integer of -20..19"),
        ("--storage=tape", "expected one of luks, directory"),
        ("--disk-size=1", "expected an integer of"),
        ("--disk-size=much", "expected a size"),
        ("--disk-size=120%", "expected a percentage"),
        ("--not-after=soon", "expected a date"),
        ("--stop-delay=5x", "expected a time span"),
        ("--stop-delay=5min later", "expected a time span"),
        ("--rlimit=NOFILE", "expected LIMIT=VALUE"),
        ("--rlimit=NOFILE=x", "expected LIMIT=VALUE"),
        ("--member-of=a:b", "expected names"),
        ("--realm=example.com.", "expected a DNS name"),
        ("--capability-ambient-set=net", "expected a list of capabilities"),
        ("--match=some", "expected any, this, other or auto"),
        ("--recovery-key=perhaps", "expected yes or no"),
        ("--birth-date=1.1.2000", "expected a date"),
    ],
)
def test_bad_values_are_refused_with_option_and_reason(option: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        edit(option)
    assert str(caught.value).startswith(f"{option}: ")
    assert reason in str(caught.value)


WITHOUT_SECRET = "org.homemgr.activateWithoutSecretOn"


@pytest.mark.parametrize(
    ("before", "words", "after"),
    [
        (None, ["yes"], [MACHINE]),
        (["other"], ["yes"], ["other", MACHINE]),
        ([MACHINE, "other"], ["yes"], ["other", MACHINE]),
        ("other", ["yes"], ["other", MACHINE]),
        ([MACHINE, "other"], ["no"], ["other"]),
        ([MACHINE], ["no"], None),
        (None, ["no"], None),
        (["other", MACHINE], [""], None),
        (["other"], ["yes", "no"], ["other"]),
    ],
)
def test_no_secret_is_asked_for_on_this_machine(
    before: Json, words: list[str], after: Json
) -> None:
    record: JsonObject = {} if before is None else {WITHOUT_SECRET: before}
    options = [f"--activate-without-secret={word}" for word in words]
    assert apply(record, *options).get(WITHOUT_SECRET) == after
    assert not edit(*options).is_empty


def test_whether_a_secret_is_asked_for_is_yes_or_no() -> None:
    with pytest.raises(UsageError, match="yes or no"):
        edit("--activate-without-secret=sometimes")
