# SPDX-License-Identifier: Apache-2.0
"""Cast, wait or end: the engine's decision, as a table."""

import pytest

from bridge.core.extend import ExtendKey, gib, new_id
from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.engine.cinder import Attached, CinderAnswer, CinderVolume, Gone, NotNow
from bridge.engine.plan import Cast, Plan, at_odds, home, plan
from bridge.journal.claims import Ended, Later
from bridge.journal.hosts import Location
from bridge.journal.states import Extend
from bridge.runtime.retry import Backoff

KEY = ExtendKey(new_id(), new_id())
NOW = 1000.0


def at(host: str, state: GuestState = GuestState.ACTIVE, *, fresh: bool = True) -> Location:
    """The server on a host."""
    return Location(host=host, state=state, fresh=fresh)


def volume(*rows: Attached, extending: bool = False) -> CinderVolume:
    """A volume of 2 GiB."""
    return CinderVolume(id=KEY.volume_id, size=gib(2), extending=extending, attached=rows)


def row(host: str | None = "h1", server_id: str = KEY.server_id) -> Attached:
    """An attachment."""
    return Attached(server_id=server_id, attachment_id=new_id(), host=host)


def decide(answer: CinderAnswer, *locations: Location, failures: int = 0) -> Plan:
    """plan() for an extend of KEY."""
    extend = Extend(
        id="e", key=KEY, wanted_gen=1, attempt=1, failures=failures, opened_at=0.0, request_id=None,
        global_request_id=None,
    )  # fmt: skip
    return plan(extend, answer, locations, now=NOW, backoff=Backoff(first=8, cap=600, floor=8))


def test_an_attached_volume_on_a_living_host_is_cast_there() -> None:
    decided = decide(volume(row()), at("h1"))
    assert isinstance(decided, Cast)
    assert decided.hosts == ("h1",)


def test_while_migrating_both_hosts_get_the_order_each_with_its_own_attachment() -> None:
    source, target = row("h1"), row("h2")
    decided = decide(volume(source, target), at("h2", GuestState.INCOMING), at("h1"))
    assert isinstance(decided, Cast)
    assert decided.hosts == ("h1", "h2")
    assert (decided.attachment("h1"), decided.attachment("h2")) == (source, target)


@pytest.mark.parametrize("state", [GuestState.ACTIVE, GuestState.INCOMING])
def test_a_definition_left_behind_on_another_host_is_not_asked_while_the_guest_runs(state: GuestState) -> None:
    """Its `guest_off` would close the extend, whatever the running guest sees."""
    decided = decide(volume(row()), at("h1", GuestState.OFF), at("h2", state))
    assert isinstance(decided, Cast)
    assert decided.hosts == ("h2",)


def test_a_guest_that_is_off_is_cast_to_wherever_it_is_defined() -> None:
    decided = decide(volume(row()), at("h1", GuestState.OFF))
    assert isinstance(decided, Cast)
    assert decided.hosts == ("h1",)


def test_without_host_names_in_cinders_answer_any_attachment_of_the_server_serves() -> None:
    mine = row(None)
    decided = decide(volume(row(None, new_id()), mine), at("h1"))
    assert isinstance(decided, Cast)
    assert decided.attachment("h1") == mine


def test_a_volume_cinder_does_not_know_ends_the_extend() -> None:
    decided = decide(Gone(), at("h1"))
    assert isinstance(decided, Ended)
    assert decided.outcome is Outcome.VOLUME_GONE


def test_a_volume_attached_to_others_only_ends_as_detached() -> None:
    decided = decide(volume(row(server_id=new_id())), at("h1"))
    assert isinstance(decided, Ended)
    assert decided.outcome is Outcome.DETACHED


@pytest.mark.parametrize("reason", [Reason.CINDER_UNREACHABLE, Reason.CINDER_REFUSED, Reason.CINDER_BAD_ANSWER])
def test_cinders_troubles_put_off_without_counting_as_a_failure_of_the_extend(reason: Reason) -> None:
    decided = decide(NotNow(reason), at("h1"), failures=3)
    assert isinstance(decided, Later)
    assert (decided.reason, decided.failures) == (reason, 3)
    assert NOW < decided.due_at <= NOW + 30


def test_a_volume_that_is_being_extended_is_waited_for() -> None:
    decided = decide(volume(row(), extending=True), at("h1"))
    assert isinstance(decided, Later)
    assert decided.reason is Reason.VOLUME_EXTENDING


def test_a_server_no_host_reports_waits_with_a_growing_back_off() -> None:
    decided = decide(volume(row()), failures=4)
    assert isinstance(decided, Later)
    assert (decided.reason, decided.failures) == (Reason.NO_HOST, 5)
    assert decided.due_at >= NOW + 8


def test_a_silent_host_is_not_cast_to_but_waited_for() -> None:
    decided = decide(volume(row()), at("h2", GuestState.OFF, fresh=False), at("h1", fresh=False))
    assert isinstance(decided, Later)
    assert (decided.reason, decided.waiting_for) == (Reason.HOST_DOWN, "h1")


def test_home_is_where_the_domain_is_active() -> None:
    assert home([at("a", GuestState.INCOMING), at("b"), at("c", GuestState.OFF)]) == "b"


def test_of_two_hosts_that_claim_a_running_guest_the_one_cinder_names_gets_the_order() -> None:
    decided = decide(volume(row("true")), at("liar"), at("true"))
    assert isinstance(decided, Cast)
    assert decided.hosts == ("true",)
    assert odds(volume(row("true")), at("liar"), at("true")) == [("liar", Reason.HOST_NOT_ATTACHED)]


def test_a_host_that_only_awaits_the_guest_gets_no_order_unless_cinder_names_it() -> None:
    decided = decide(volume(row("true")), at("liar", GuestState.INCOMING), at("true"))
    assert isinstance(decided, Cast)
    assert decided.hosts == ("true",)


def test_where_cinder_does_not_say_two_claims_on_a_running_guest_close_nothing() -> None:
    decided = decide(volume(row(None)), at("h1"), at("h2"), failures=3)
    assert isinstance(decided, Later)
    assert (decided.reason, decided.failures) == (Reason.HOSTS_DISAGREE, 3)
    assert odds(volume(row(None)), at("h1"), at("h2")) == [
        ("h1", Reason.HOSTS_DISAGREE), ("h2", Reason.HOSTS_DISAGREE),
    ]  # fmt: skip


def test_a_host_that_is_silent_keeps_its_guest_from_one_cinder_does_not_name() -> None:
    """It reboots, and another claims its guests meanwhile."""
    decided = decide(volume(row("true")), at("liar"), at("true", fresh=False))
    assert isinstance(decided, Later)
    assert (decided.reason, decided.waiting_for) == (Reason.HOST_DOWN, "true")
    assert odds(volume(row("true")), at("liar"), at("true", fresh=False)) == [("liar", Reason.HOST_NOT_ATTACHED)]


def test_an_evacuated_guest_is_where_cinder_names_its_new_host() -> None:
    decided = decide(volume(row("dead"), row("new")), at("new"), at("dead", fresh=False))
    assert isinstance(decided, Cast)
    assert decided.hosts == ("new",)
    assert odds(volume(row("new")), at("new"), at("dead", fresh=False)) == []


def odds(answer: CinderAnswer, *locations: Location) -> list[tuple[str, Reason]]:
    extend = Extend(
        id="e", key=KEY, wanted_gen=1, attempt=1, failures=0, opened_at=0.0, request_id=None,
        global_request_id=None,
    )  # fmt: skip
    return [(host, reason) for host, reason, _ in at_odds(extend, answer, locations)]
