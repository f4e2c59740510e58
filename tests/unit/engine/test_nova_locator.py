# SPDX-License-Identifier: Apache-2.0
"""Where Nova says a server is, over HTTP against a stand-in; what is not an answer about the server says why."""

from collections.abc import Collection, Iterator
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from bridge.core.extend import ExtendKey, gib, new_id
from bridge.core.inventory import GuestState
from bridge.core.reasons import Reason
from bridge.engine.cinder import Attached, CinderVolume
from bridge.engine.locator import NOVA, NovaLocator
from bridge.engine.nova import NovaReader, Server, Unsure, read_server, with_migrations
from bridge.engine.plan import Cast, Whereabouts, plan
from bridge.journal.claims import Later
from bridge.journal.hosts import Location
from bridge.journal.states import Extend
from bridge.runtime.health import Health
from bridge.runtime.rest import Answer, RestClient
from bridge.runtime.retry import Backoff
from tests.lab.nova_servers import Guest, NovaServers

SERVER = new_id()


class Finder:
    """A locator on the stand-in, with a clock; `living` are the hosts whose agent lives."""

    def __init__(self, nova: NovaServers) -> None:
        self.nova, self.now, self.health = nova, 1000.0, Health()
        self.living = {"h1", "h2"}
        adapter = Adapter(Session(auth=Token(nova.url, "t"), timeout=5), endpoint_override=nova.url)
        reader = NovaReader(RestClient(adapter, timeout=5, group="nova"), clock=lambda: self.now)
        self._locator = NovaLocator(reader, living=self._alive, keep=10, health=self.health, clock=lambda: self.now)

    def _alive(self, hosts: Collection[str]) -> set[str]:
        return self.living & set(hosts)

    def find(self, *server_ids: str) -> list[Whereabouts]:
        """Of one or several servers."""
        ids = server_ids or (SERVER,)
        found = self._locator.locate([extend(server_id) for server_id in ids])
        return [found[server_id] for server_id in ids]


def extend(server_id: str) -> Extend:
    """A claimed one."""
    return Extend(
        id="e", key=ExtendKey(server_id, new_id()), wanted_gen=1, attempt=1, failures=0, opened_at=0.0,
        request_id=None, global_request_id=None,
    )  # fmt: skip


def on(host: str, state: GuestState = GuestState.ACTIVE, *, fresh: bool = True) -> Location:
    """A place."""
    return Location(host=host, state=state, fresh=fresh)


@pytest.fixture
def finder() -> Iterator[Finder]:
    """With one guest on h1."""
    with NovaServers({SERVER: Guest("h1")}) as nova:
        yield Finder(nova)


def test_a_server_is_where_nova_says_and_its_agent_lives_or_not(finder: Finder) -> None:
    assert finder.find() == [[on("h1")]]
    finder.living = set()
    assert finder.find() == [[on("h1", fresh=False)]]


def test_an_answer_is_believed_for_a_while_and_then_asked_for_again(finder: Finder) -> None:
    finder.find()
    finder.nova.guests[SERVER].host = "h2"
    finder.now += 9
    assert finder.find() == [[on("h1")]]
    finder.now += 1
    assert finder.find() == [[on("h2")]]
    assert finder.nova.requests.total() == 2


def test_both_hosts_while_it_migrates_and_no_such_answer_is_kept(finder: Finder) -> None:
    finder.nova.guests[SERVER].moving_to = "h2"
    assert finder.find() == [[on("h1"), on("h2", GuestState.INCOMING)]]
    finder.nova.guests[SERVER] = Guest("h2")
    assert finder.find() == [[on("h2")]]


def test_a_guest_that_is_off_is_still_on_its_host(finder: Finder) -> None:
    finder.nova.guests[SERVER].power = 4
    assert finder.find() == [[on("h1", GuestState.OFF)]]


def test_a_server_on_no_host_is_nowhere(finder: Finder) -> None:
    finder.nova.guests[SERVER].host = None
    assert finder.find() == [[]]


def test_a_cell_that_is_down_hides_its_own_servers_and_no_others(finder: Finder) -> None:
    other = new_id()
    finder.nova.guests[other] = Guest("h2")
    finder.nova.guests[SERVER].cell_down = True
    assert finder.find(SERVER, other) == [Reason.NOVA_CELL_DOWN, [on("h2")]]
    assert finder.health.checks()[NOVA].ok


def test_a_404_means_deleted_only_to_a_user_who_may_see_all(finder: Finder) -> None:
    gone = new_id()
    assert finder.find(gone) == [Reason.SERVER_DELETED]
    assert finder.nova.requests["/servers"] == 1
    finder.find(gone)
    assert finder.nova.requests["/servers"] == 1, "the proof holds for a while"
    finder.nova.admin = False
    finder.now += 301
    assert finder.find(gone) == [Reason.NOVA_REFUSED]
    assert not finder.health.checks()[NOVA].ok


def test_a_nova_that_is_away_is_not_asked_for_each_of_a_batch(finder: Finder) -> None:
    finder.nova.failing = 503
    assert set(finder.find(*(new_id() for _ in range(20)))) == {Reason.NOVA_UNREACHABLE}
    assert finder.nova.requests.total() == 3
    assert finder.health.checks()[NOVA].reason.startswith(Reason.NOVA_UNREACHABLE.text)
    assert "503" in finder.health.checks()[NOVA].reason
    finder.nova.failing = None
    finder.find()
    assert finder.health.checks()[NOVA].ok


def test_an_answer_without_a_host_is_one_to_a_user_without_rights() -> None:
    assert read_server(Answer(status=200, body={"server": {"status": "ACTIVE"}})) == Unsure(Reason.NOVA_REFUSED)
    bad: tuple[Any, ...] = (None, [], {"server": None}, {"server": {"OS-EXT-SRV-ATTR:host": 7}})
    for body in bad:
        assert read_server(Answer(status=200, body=body)) == Unsure(Reason.NOVA_BAD_ANSWER)
    server = Server(hosts={"h1": GuestState.ACTIVE}, moving=True)
    assert with_migrations(server, Answer(status=404, body=None)) == server
    assert with_migrations(server, Answer(status=500, body=None)) == Unsure(Reason.NOVA_UNREACHABLE)
    assert with_migrations(server, Answer(status=200, body={"migrations": 3})) == Unsure(Reason.NOVA_BAD_ANSWER)


@pytest.mark.parametrize(
    ("where", "failures"),
    [(Reason.NOVA_UNREACHABLE, 2), (Reason.NOVA_CELL_DOWN, 2), (Reason.SERVER_DELETED, 3)],
)
def test_what_nova_does_not_tell_is_no_failure_of_the_extend_and_a_deleted_server_waits_ever_longer(
    where: Reason, failures: int
) -> None:
    key = ExtendKey(SERVER, new_id())
    asked = Extend(
        id="e", key=key, wanted_gen=1, attempt=1, failures=2, opened_at=0.0, request_id=None, global_request_id=None
    )
    attached = Attached(server_id=SERVER, attachment_id=new_id(), host=None)
    volume = CinderVolume(id=key.volume_id, size=gib(2), extending=False, attached=(attached,))
    decided = plan(asked, volume, where, now=0.0, backoff=Backoff(first=8, cap=600, floor=8))
    assert isinstance(decided, Later)
    assert (decided.reason, decided.failures) == (where, failures)
    assert isinstance(plan(asked, volume, [on("h1")], now=0.0, backoff=Backoff()), Cast)
