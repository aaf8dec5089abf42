"""Who may do what: root, the owner, others. There is no polkit on this bus."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from homemgr.record.jsontext import Json
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.holders import Stranger, stranger
from tests.service.introspection import annotated_members
from tests.service.people import OTHER_PASSWORD, PASSWORD, secret
from tests.service.site import HOME, MANAGER, MANAGER_PATH, NAME, Service, short

DENIED = "AccessDenied"
OWNER = 60111

#: Members that are root's alone, with arguments that would do something.
PRIVILEGED = (
    ("DeactivateHome", "s", "anna"),
    ("FixateHome", "ss", "anna", secret(PASSWORD)),
    ("RefHome", "sb", "anna", False),
    ("RefHomeUnrestricted", "sb", "anna", False),
    ("ReleaseHome", "s", "anna"),
    ("DeactivateAllHomes",),
    ("LockHome", "s", "anna"),
    ("UnlockHome", "ss", "anna", secret(PASSWORD)),
    ("LockAllHomes",),
    ("Rebalance",),
)
PRIVILEGED_OF_HOME = (
    ("Deactivate",),
    ("Fixate", "s", secret(PASSWORD)),
    ("Acquire", "sb", secret(PASSWORD), False),
    ("Ref", "b", False),
    ("RefUnrestricted", "b", False),
    ("Release",),
    ("Lock",),
    ("Unlock", "s", secret(PASSWORD)),
)
#: Members that ask polkit, whoever calls.
ADMINISTRATIVE: tuple[tuple[object, ...], ...] = (
    ("CreateHome", "s", people.text(people.record("zora"))),
    ("CreateHomeEx", "sa{sh}t", people.text(people.record("zora")), {}, 0),
    ("RealizeHome", "ss", "anna", secret(PASSWORD)),
    ("RemoveHome", "s", "anna"),
    ("ResizeHome", "sts", "anna", 1 << 30, secret(PASSWORD)),
    ("RegisterHome", "s", people.text(people.record("zora"))),
    ("AdoptHome", "st", "/nonexistent/zora.homedir", 0),
    ("UnregisterHome", "s", "anna"),
    ("AddSigningKey", "sst", "x.public", "", 0),
    ("RemoveSigningKey", "st", "local.public", 0),
)


@pytest.fixture(scope="module")
def anna(service: Service) -> Service:
    """The service with a home that has an owner."""
    service.create("anna", uid=OWNER, sshAuthorizedKeys=None)
    return service


@pytest.fixture(scope="module")
def owner(anna: Service) -> Iterator[Stranger]:
    with stranger(OWNER, anna.site.bus_address) as client:
        yield client


@pytest.fixture(scope="module")
def other(anna: Service) -> Iterator[Stranger]:
    with stranger(OWNER + 1, anna.site.bus_address) as client:
        yield client


def refusal(client: Stranger, *call: object) -> str:
    with pytest.raises(BusError) as caught:
        client.call(*call)  # type: ignore[arg-type]
    return short(caught.value.name)


@pytest.mark.parametrize("call", PRIVILEGED, ids=lambda call: call[0])
def test_member_is_refused_to_everybody_but_root(
    anna: Service, owner: Stranger, other: Stranger, call: tuple[object, ...]
) -> None:
    assert refusal(owner, *call) == refusal(other, *call) == DENIED
    assert anna.state("anna") == "inactive"


@pytest.mark.parametrize("call", PRIVILEGED_OF_HOME, ids=lambda call: call[0])
def test_member_of_the_home_object_is_refused_to_everybody_but_root(
    owner: Stranger, other: Stranger, call: tuple[str, ...]
) -> None:
    for client in (owner, other):
        with pytest.raises(BusError) as caught:
            client.call_home("anna", *call)
        assert short(caught.value.name) == DENIED


def test_privileged_member_is_refused_before_anything_else_is_looked_at(other: Stranger) -> None:
    assert refusal(other, "DeactivateHome", "s", "nobody-has-this-name") == DENIED


@pytest.mark.parametrize("call", ADMINISTRATIVE, ids=lambda call: call[0])
def test_without_polkit_only_root_creates_and_removes(
    anna: Service, owner: Stranger, other: Stranger, call: tuple[object, ...]
) -> None:
    before = anna.site.digest()
    assert refusal(owner, *call) == refusal(other, *call) == DENIED
    assert anna.site.digest() == before


def test_resize_is_an_action_of_its_own(owner: Stranger) -> None:
    with pytest.raises(BusError) as caught:
        owner.call_home("anna", "Resize", "ts", 1 << 30, secret(PASSWORD))
    assert short(caught.value.name) == DENIED
    assert f"{NAME}.resize-home," in caught.value.message


def test_owner_activates_without_polkit_and_others_do_not(
    anna: Service, owner: Stranger, other: Stranger
) -> None:
    assert refusal(other, "ActivateHome", "ss", "anna", secret(PASSWORD)) == DENIED
    owner.call("ActivateHome", "ss", "anna", secret(PASSWORD))
    assert anna.state("anna") == "active"
    anna.deactivate("anna")


def test_owner_authenticates_and_changes_the_password_without_polkit(
    anna: Service, owner: Stranger, other: Stranger
) -> None:
    assert refusal(other, "AuthenticateHome", "ss", "anna", secret(PASSWORD)) == DENIED
    owner.call("AuthenticateHome", "ss", "anna", secret(PASSWORD))
    change = ("ChangePasswordHome", "sss", "anna", secret(OTHER_PASSWORD), secret(PASSWORD))
    assert refusal(other, *change) == DENIED
    owner.call(*change)
    back = ("ChangePasswordHome", "sss", "anna", secret(PASSWORD), secret(OTHER_PASSWORD))
    owner.call(*back)


def changed(anna: Service, **fields: Json) -> str:
    """The update homectl would send: the current record with some members changed."""
    record = anna.user_record("anna")
    for section in ("binding", "status", "signature"):
        record.pop(section, None)
    return people.text({**record, "lastChangeUSec": time.time_ns() // 1000, **fields})


def test_update_by_the_owner_is_an_action_of_its_own(
    anna: Service, owner: Stranger, other: Stranger
) -> None:
    for client, action in ((owner, "update-home-by-owner"), (other, "update-home")):
        with pytest.raises(BusError) as caught:
            client.call("UpdateHome", "s", changed(anna, location="x"))
        assert short(caught.value.name) == DENIED
        assert f"{NAME}.{action}," in caught.value.message


def test_owner_cannot_update_what_is_not_his_by_his_own_action(
    anna: Service, owner: Stranger
) -> None:
    with pytest.raises(BusError) as caught:
        owner.call("UpdateHome", "s", changed(anna, memberOf=["sudo"]))
    assert f"{NAME}.update-home," in caught.value.message


def test_acquire_is_open_to_every_local_user_who_knows_the_password(
    anna: Service, other: Stranger
) -> None:
    assert refusal(other, "AcquireHome", "ssb", "anna", "{}", False) == "BadPassword"
    # The stranger drops the reference at once, and with it the use of the home ends.
    other.call("AcquireHome", "ssb", "anna", secret(PASSWORD), False)
    anna.wait_for("anna", "inactive")


def test_empty_user_name_is_the_caller(owner: Stranger, other: Stranger) -> None:
    assert owner.call("GetHomeByName", "s", "")[0] == OWNER
    assert refusal(other, "GetHomeByName", "s", "") == "NoSuchHome"
    owner.call("AuthenticateHome", "ss", "", secret(PASSWORD))
    assert refusal(other, "AuthenticateHome", "ss", "", secret(PASSWORD)) == "NoSuchHome"
    assert refusal(owner, "ActivateHomeIfReferenced", "ss", "", "{}") == "HomeNotReferenced"


def test_record_is_whole_for_root_and_owner_only(
    anna: Service, owner: Stranger, other: Stranger
) -> None:
    for member, signature, key in (
        ("GetUserRecordByName", "s", "anna"),
        ("GetUserRecordByUID", "u", OWNER),
    ):
        for client in (anna, owner):
            text, incomplete, _ = client.call(member, signature, key)
            assert "hashedPassword" in str(text)
            assert incomplete is False
        text, incomplete, _ = other.call(member, signature, key)
        assert "privileged" not in people.parse(str(text))
        assert "hashedPassword" not in str(text)
        assert incomplete is True
        assert {"binding", "status", "signature"} <= set(people.parse(str(text)))


def test_record_property_is_filtered_like_the_method(owner: Stranger, other: Stranger) -> None:
    path = f"{MANAGER_PATH}/home/anna"
    get = (NAME, path, "org.freedesktop.DBus.Properties", "Get")
    shown = str(owner.call_at(get, "ss", HOME, "UserRecord"))
    hidden = str(other.call_at(get, "ss", HOME, "UserRecord"))
    assert "hashedPassword" in shown
    assert "hashedPassword" not in hidden
    everything = (NAME, path, "org.freedesktop.DBus.Properties", "GetAll")
    assert "hashedPassword" not in str(other.call_at(everything, "s", HOME))


def test_secret_is_never_shown(anna: Service) -> None:
    assert "secret" not in anna.user_record("anna")
    assert PASSWORD not in str(anna.call("GetUserRecordByName", "s", "anna"))


def test_every_member_has_the_privileged_annotation_where_it_is_roots(anna: Service) -> None:
    assert annotated_members(anna, MANAGER_PATH, MANAGER) == {call[0] for call in PRIVILEGED}
    home = annotated_members(anna, f"{MANAGER_PATH}/home/anna", HOME)
    assert home == {call[0] for call in PRIVILEGED_OF_HOME}


def test_who_guesses_uses_up_nobody_elses_attempts(anna: Service) -> None:
    """PAM asks as root, for everybody who logs in."""
    anna.create("greta", uid=60119, rateLimitBurst=3, rateLimitIntervalUSec=600_000_000)
    wrong = ("AuthenticateHome", "ss", "greta", secret(people.WRONG_PASSWORD))
    with stranger(60119, anna.site.bus_address) as owner:
        for answer in (*["BadPassword"] * 3, "AuthenticationLimitHit"):
            with pytest.raises(BusError) as caught:
                owner.call(*wrong)
            assert short(caught.value.name) == answer
        # As good a password as any: his own limit is his own fault.
        with pytest.raises(BusError) as caught:
            owner.call("AuthenticateHome", "ss", "greta", secret(PASSWORD))
        assert short(caught.value.name) == "AuthenticationLimitHit"
        anna.activate("greta")
        anna.deactivate("greta")
        assert anna.error(*wrong) == "BadPassword"
        assert anna.error(*wrong) == "BadPassword"
        assert anna.error(*wrong) == "AuthenticationLimitHit"


def test_who_acquires_with_guesses_uses_up_nobody_elses_attempts(anna: Service) -> None:
    """Nobody is asked whether he may: the password is what he needs."""
    anna.create("hanna", rateLimitBurst=3, rateLimitIntervalUSec=600_000_000)
    wrong = ("AcquireHome", "ssb", "hanna", secret(people.WRONG_PASSWORD), False)
    with stranger(60120, anna.site.bus_address) as other:
        answers = []
        for _ in range(4):
            with pytest.raises(BusError) as caught:
                other.call(*wrong)
            answers.append(short(caught.value.name))
    assert answers[-1] == "AuthenticationLimitHit"
    assert "AuthenticationLimitHit" not in answers[:-1]
    anna.acquire("hanna").close()
    anna.wait_for("hanna", "inactive")
