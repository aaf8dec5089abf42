"""A home that somebody still uses: said so, tried again, kept when wanted."""

from __future__ import annotations

import os
import time

from tests.service.holders import mapping, sitting_in
from tests.service.people import PASSWORD, secret
from tests.service.site import Service, short

#: Longer than the first pauses between attempts to deactivate.
LONG_S = 1.5


def test_busy_home_names_the_process_that_holds_it(service: Service) -> None:
    service.create("anna")
    service.activate("anna")
    with sitting_in(service.path_of("anna")) as holder:
        failure = service.failure("DeactivateHome", "s", "anna")
        assert short(failure.name) == "HomeBusy"
        assert f"sh[{holder.pid}]" in failure.message
        assert str(service.path_of("anna")) in failure.message
        assert service.state("anna") in ("lingering", "deactivating")
    service.wait_for("anna", "inactive")


def test_what_holds_a_home_may_have_any_name(service: Service) -> None:
    service.create("alma")
    service.activate("alma")
    uid = service.call("GetHomeByName", "s", "alma")[0]
    assert isinstance(uid, int)
    with mapping(os.fsencode(service.path_of("alma")) + b"/\xff", uid) as holder:
        failure = service.failure("DeactivateHome", "s", "alma")
        assert short(failure.name) == "HomeBusy"
        assert f"[{holder.pid}] (mapping of {service.path_of('alma')}/" in failure.message
    service.wait_for("alma", "inactive")


def test_busy_home_is_tried_again_until_the_process_leaves(service: Service) -> None:
    service.create("bert")
    held = service.acquire("bert")
    with sitting_in(service.path_of("bert")) as holder:
        held.close()
        service.wait_for("bert", "lingering")
        time.sleep(LONG_S)
        assert service.state("bert") in ("lingering", "deactivating")
        assert (service.path_of("bert") / ".identity").exists()
    service.wait_for("bert", "inactive", within_s=10)
    assert f"sh[{holder.pid}]" in service.site.log.read_text()


def test_reference_to_a_lingering_home_keeps_it(service: Service) -> None:
    service.create("cleo")
    service.activate("cleo")
    with sitting_in(service.path_of("cleo")):
        assert service.error("DeactivateHome", "s", "cleo") == "HomeBusy"
        held = service.acquire("cleo")
        assert service.state("cleo") == "active"
    time.sleep(LONG_S)
    assert service.state("cleo") == "active"
    held.close()
    service.wait_for("cleo", "inactive")


def test_activation_during_a_retry_is_not_refused(service: Service) -> None:
    service.create("dirk")
    service.activate("dirk")
    with sitting_in(service.path_of("dirk")):
        assert service.error("DeactivateHome", "s", "dirk") == "HomeBusy"
        service.wait_for("dirk", "deactivating")
        service.activate("dirk")
        assert service.state("dirk") == "active"
    time.sleep(LONG_S)
    assert service.state("dirk") == "active"
    service.deactivate("dirk")


def test_deactivation_during_a_retry_names_the_holder_too(service: Service) -> None:
    service.create("elsa")
    service.activate("elsa")
    with sitting_in(service.path_of("elsa")) as holder:
        assert service.error("DeactivateHome", "s", "elsa") == "HomeBusy"
        service.wait_for("elsa", "deactivating")
        assert f"[{holder.pid}]" in service.failure("DeactivateHome", "s", "elsa").message
    service.wait_for("elsa", "inactive")


def test_busy_home_is_not_removed(service: Service) -> None:
    service.create("falk")
    service.activate("falk")
    with sitting_in(service.path_of("falk")):
        assert service.error("DeactivateHome", "s", "falk") == "HomeBusy"
        assert service.error("RemoveHome", "s", "falk") == "HomeBusy"
    service.wait_for("falk", "inactive")
    service.call("RemoveHome", "s", "falk")


def test_lingering_home_is_taken_up_again_after_a_restart(own_service: Service) -> None:
    own_service.create("gerd")
    held = own_service.acquire("gerd")
    with sitting_in(own_service.path_of("gerd")):
        held.close()
        own_service.wait_for("gerd", "lingering")
        own_service.kill()
        own_service.start()
        assert own_service.state("gerd") in ("active", "lingering", "deactivating")
    own_service.wait_for("gerd", "inactive", within_s=10)


def test_authentication_does_not_call_off_the_end_of_a_lingering_home(service: Service) -> None:
    service.create("hugo")
    service.activate("hugo")
    with sitting_in(service.path_of("hugo")):
        assert service.error("DeactivateHome", "s", "hugo") == "HomeBusy"
        service.call("AuthenticateHome", "ss", "hugo", secret(PASSWORD))
    service.wait_for("hugo", "inactive")
