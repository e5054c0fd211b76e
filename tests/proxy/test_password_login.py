"""Logins by password in memory: prompts, messages and their delays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock

from conchrec.access.passwords import Passwords, code_at, new_hash, step_at
from conchrec.access.rate_limit import DELAYS, FREE_OF_USER, LONGEST_WAIT, Guesses
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy.password_login import AT_ONCE, PasswordLogin
from conchrec.ssh import userauth as u
from conchrec.ssh.userauth import Challenge
from conchrec.ssh.wire import Reader, string
from tests.support.logins import Porter, Server, failure_of, request

T = TypeVar("T")

SECRET = b"12345678901234567890"
BEGAN = 1_700_000_000
HASH = new_hash("right", 4).encode()
HOME = "192.0.2.1"


class Threads:
    """Runs work at once; while ``held`` is a list, only when the test calls ``release``."""

    def __init__(self) -> None:
        self.held: list[Callable[[], object]] | None = None
        self.done = 0

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        self.done += 1
        if self.held is None:
            return maybeDeferred(work)
        result: Deferred[T] = Deferred()
        self.held.append(lambda: maybeDeferred(work).chainDeferred(result))
        return result

    def release(self) -> None:
        """Run the held work; later work is held again."""
        held, self.held = self.held or [], []
        for work in held:
            work()


class Site:
    """A proxy's logins by password. ann has no second factor, joe has one; eve is revoked."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.threads = Threads()
        self.disk = Threads()
        self.guesses = Guesses(
            directory / "guesses.json",
            users=("joe", "ann", "eve"),
            now=self.now,
            clock=self.clock,
            in_thread=self.disk,
        )
        passwords = Passwords({"joe": HASH, "ann": HASH, "eve": HASH}, {"joe": SECRET}, b"salt of the tests")
        strangers = [f"nobody{number}" for number in range(50)]
        self.name_with_code = next(name for name in strangers if passwords.asks_code(name))
        self.name_without_code = next(name for name in strangers if not passwords.asks_code(name))
        self.login = PasswordLogin(
            passwords,
            self.guesses,
            identify=self._identify,
            clock=self.clock,
            now=self.now,
            in_thread=self.threads,
        )

    def now(self) -> datetime:
        return datetime.fromtimestamp(BEGAN + self.clock.seconds(), timezone.utc)

    def code(self, drift: int = 0) -> str:
        return code_at(SECRET, step_at(self.now().timestamp()) + drift)

    def _identify(self, user: str) -> Identity:
        if user == "eve":
            raise AccessDenied("Permission denied", "the user eve has been revoked")
        return Identity(user=user, method="keyboard-interactive", roles=("ops",))

    def client(self, source: str = HOME) -> Client:
        return Client(self, source)


class Client:
    """A client on a connection of its own."""

    def __init__(self, site: Site, source: str) -> None:
        porter = Porter()
        porter.can = (u.PUBLICKEY, u.KEYBOARD_INTERACTIVE)
        porter.conversation = lambda user, submethods, ask: Deferred.fromCoroutine(
            site.login.log_in(user, source, ask)
        )
        self.server = Server(porter, tries=20)
        self.heard: list[object] = []
        self.instruction = ""

    def tries(self, user: str, *answers: str) -> list[object]:
        """Log in with these answers; returns the prompts, and then the result, if it is known."""
        self.heard = []
        self._take(
            self.server.ask(request(user, u.KEYBOARD_INTERACTIVE, string(b"") + string(b""))), list(answers)
        )
        return self.heard

    def later(self) -> list[object]:
        """Return the prompts and results since the last call."""
        self.heard = []
        self._take(self.server.wire.take(), [])
        return self.heard

    def _take(self, messages: list[tuple[int, bytes]], answers: list[str]) -> None:
        for number, payload in messages:
            if number == u.INFO_REQUEST:
                r = Reader(payload)
                r.string()
                instruction, _ = r.string().decode(), r.string()
                prompts = [(r.string().decode(), r.boolean()) for _ in range(r.uint32())]
                r.end()
                self.instruction = instruction
                self.heard += [text for text, echo in prompts] or [instruction]
                assert not any(echo for _, echo in prompts)
                given = tuple(answers.pop(0) for _ in prompts)
                self._take(self.server.ask(u.info_response(given), u.INFO_RESPONSE), answers)
            elif number == u.FAILURE:
                assert failure_of((number, payload)) == ((u.PUBLICKEY, u.KEYBOARD_INTERACTIVE), False)
                self.heard.append(False)
            elif number == u.SUCCESS:
                self.heard.append(True)

    @property
    def why(self) -> str:
        return self.server.refused[-1][2]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_accepts_password(site: Site) -> None:
    client = site.client()
    assert client.tries("ann", "right") == ["Password: ", True]
    (identity,) = client.server.identities
    assert (identity.user, identity.method, identity.roles) == ("ann", "keyboard-interactive", ("ops",))
    assert site.login.second_factor("ann") == ""


def test_accepts_password_and_code(site: Site) -> None:
    client = site.client()
    assert client.tries("joe", "right", site.code()) == ["Password: ", "Code: ", True]
    assert site.login.second_factor("joe") == "totp"


def test_hides_reason_of_failure(site: Site) -> None:
    """All failures look the same to the client; the audit has the reason."""
    for user, answers, why in (
        ("ann", ["wrong"], "wrong password"),
        ("ann", [""], "wrong password"),
        ("ann", ["x" * 100], "wrong password"),
        ("eve", ["right"], "the user eve has been revoked"),
        (site.name_without_code, ["right"], "no such user with a password"),
    ):
        client = site.client(f"2001:db8:{len(why)}:{len(answers[0])}::1")
        assert client.tries(user, *answers) == ["Password: ", False]
        assert client.why == why
    for user, answers, why in (
        ("joe", ["wrong", site.code()], "wrong password"),
        ("joe", ["right", "000000"], "wrong code"),
        (site.name_with_code, ["right", site.code()], "no such user with a password"),
    ):
        client = site.client("192.0.2.50")
        assert client.tries(user, *answers) == ["Password: ", "Code: ", False]
        assert client.why == why
    # Each of them took the same check, in a thread.
    assert site.threads.done == 8


def test_asks_for_code_after_wrong_password(site: Site) -> None:
    site.threads.held = []
    assert site.client().tries("joe", "wrong", "000000") == ["Password: ", "Code: "]
    assert site.threads.done == 1


def test_accepts_code_only_once(site: Site) -> None:
    code = site.code()
    assert site.client().tries("joe", "right", code) == ["Password: ", "Code: ", True]
    client = site.client()
    assert client.tries("joe", "right", code) == ["Password: ", "Code: ", False]
    assert client.why == "the code was already used"
    site.clock.advance(30)
    assert site.client().tries("joe", "right", site.code()) == ["Password: ", "Code: ", True]


def test_accepts_code_on_one_of_two_connections(site: Site) -> None:
    site.threads.held = []
    first, second = site.client(), site.client("192.0.2.2")
    first.tries("joe", "right", site.code())
    second.tries("joe", "right", site.code())
    assert len(site.threads.held) == 2
    site.threads.release()
    assert (first.later(), second.later()) == ([True], [False])


def test_does_not_use_up_code_with_wrong_password(site: Site) -> None:
    client = site.client()
    client.tries("joe", "wrong", site.code())
    assert client.tries("joe", "right", site.code()) == ["Password: ", "Code: ", True]


@pytest.mark.parametrize(("drift", "well"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_accepts_code_of_adjacent_time_step(site: Site, drift: int, well: bool) -> None:
    assert site.client().tries("joe", "right", site.code(drift)) == ["Password: ", "Code: ", well]


def test_rejects_older_code_after_newer_code(site: Site) -> None:
    older = site.code()
    assert site.client().tries("joe", "right", site.code(1)) == ["Password: ", "Code: ", True]
    assert site.client().tries("joe", "right", older) == ["Password: ", "Code: ", False]


def test_waits_until_used_code_is_stored(site: Site) -> None:
    site.disk.held = []
    client = site.client()
    assert client.tries("joe", "right", site.code()) == ["Password: ", "Code: "]
    site.disk.release()
    assert client.later() == [True]


def test_rejects_login_when_used_code_cannot_be_stored(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, contents: bytes, mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("conchrec.access.rate_limit.write_atomic", write)
    client = site.client()
    assert client.tries("joe", "right", site.code()) == ["Password: ", "Code: ", False]
    assert "cannot store" in client.why


# --- delays


def test_delays_answers_longer_after_each_wrong_password(site: Site) -> None:
    """The answer is delayed, and its check too."""
    client = site.client()
    for _ in range(FREE_OF_USER + 1):
        assert client.tries("ann", "wrong") == ["Password: ", False]
    checked = site.threads.done
    assert client.instruction == ""
    for delay in DELAYS[:3]:
        assert client.tries("ann", "wrong") == ["Password: "]
        assert (
            client.instruction
            == f"conchrec: after wrong answers, the next answer is checked {delay:.0f} s later"
        )
        site.clock.advance(delay - 0.01)
        assert (client.later(), site.threads.done) == ([], checked)
        site.clock.advance(0.01)
        checked += 1
        assert (client.later(), site.threads.done) == ([False], checked)
    assert client.tries("ann", "right") == ["Password: "]
    site.clock.advance(DELAYS[3])
    assert client.later() == [True]
    assert site.client().tries("ann", "right") == ["Password: ", True]


def test_delays_answers_on_all_connections_of_user(site: Site) -> None:
    clients = [site.client(f"192.0.{number}.1") for number in range(50)]
    for client in clients:
        client.tries("ann", "wrong")
    assert site.threads.done == FREE_OF_USER + 1
    site.clock.pump([0.5] * int(2 * LONGEST_WAIT))
    assert site.threads.done < FREE_OF_USER + 1 + len(DELAYS)
    # The right password has to wait, too, from any address.
    assert site.client("203.0.113.1").tries("ann", "right") != ["Password: ", True]


def test_does_not_ask_for_password_after_too_many_guesses(site: Site) -> None:
    """An unknown name gets the same message."""
    for user in ("ann", site.name_without_code):
        client = site.client(f"192.0.2.{len(user)}")
        while client.tries(user, "wrong")[0] == "Password: ":
            site.clock.advance(LONGEST_WAIT)
        (message, answer) = client.heard
        assert answer is False
        assert str(message).startswith("conchrec: too many wrong answers: try again in ")
        assert client.why.startswith("too many wrong passwords or codes; ")


def test_counts_guess_when_client_disconnects(site: Site) -> None:
    for _ in range(FREE_OF_USER + 2):
        client = site.client()
        client.tries("ann", "wrong")
        client.server.wire.stop()
    assert site.guesses.wait("ann", HOME) == DELAYS[0] + DELAYS[1]
    assert site.threads.done == FREE_OF_USER + 1
    site.clock.advance(LONGEST_WAIT)
    assert site.threads.done == FREE_OF_USER + 1, "no client waits for the result"


# --- threads


def test_limits_concurrent_password_checks(site: Site) -> None:
    site.threads.held = []
    clients = [site.client(f"192.0.{number}.1") for number in range(5)]
    for number, client in enumerate(clients):
        client.tries("nobody" if number else "ann", "right", "000000")
    assert len(site.threads.held) == AT_ONCE
    site.threads.release()
    assert clients[0].later() == [True]
    assert len(site.threads.held) == AT_ONCE


def test_keeps_limit_when_clients_disconnect(site: Site) -> None:
    """A running check keeps its thread when its client disconnects; a waiting one leaves the queue."""
    site.threads.held = []
    for number in range(20):
        client = site.client(f"192.0.{number}.1")
        client.tries(f"{number}", "wrong", "000000")
        client.server.wire.stop()
    assert len(site.threads.held) == AT_ONCE
    site.threads.release()
    assert site.threads.held == []
    last = site.client()
    last.tries("ann", "right")
    site.threads.release()
    assert last.later() == [True]


def test_asks_for_code_after_key_despite_password_guesses(site: Site) -> None:
    stranger = site.client("192.0.2.66")
    while stranger.tries("joe", "wrong", "000000")[0] == "Password: ":
        site.clock.advance(LONGEST_WAIT)
    home = site.client()
    assert str(home.tries("joe", "wrong", "000000")[0]).startswith("conchrec: too many")
    challenges: list[Challenge] = []

    def ask(challenge: Challenge) -> Deferred[tuple[str, ...]]:
        challenges.append(challenge)
        return succeed((site.code(),))

    done: list[None] = []
    Deferred.fromCoroutine(site.login.ask_code("joe", HOME, ask)).addCallback(done.append)
    assert done == [None]
    assert [(each.instruction, [prompt.text for prompt in each.prompts]) for each in challenges] == [
        ("", ["Code: "])
    ]
