"""The usual arrangement: a user, a target and a proxy between them, and a client for each way in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.client import AccessMethod, Client, Person, make_client
from tests.support.proxy import Proxy, Settings
from tests.support.sshd import LOGIN, Sshd
from tests.support.stage import Stage


@dataclass(kw_only=True)
class House:
    """``joe`` may log in at the target with his agent's key; the target also trusts the proxy's user CA.
    ``keyless`` is the same joe, with his key in a file and no agent, whom the target does not know.
    ``ann`` is another user with the same role, without an agent."""

    stage: Stage
    proxy: Proxy
    target: Sshd
    joe: Person
    keyless: Person
    ann: Person
    authority: str

    def client(
        self,
        method: AccessMethod = AccessMethod.INNER_AGENT,
        *,
        person: Person | None = None,
        target: Sshd | None = None,
        host: str = "localhost",
        port: int | None = None,
        login: str = LOGIN,
        authority: str | None = None,
        more: str = "",
        inner: str = "",
        inner_person: Person | None = None,
    ) -> Client:
        """A client for this way in; see make_client."""
        return make_client(
            self.stage,
            self.proxy,
            target or self.target,
            person or (self.joe if method.agent else self.keyless),
            method,
            authority=self.authority if authority is None else authority,
            host=host,
            port=port,
            login=login,
            more=more,
            inner=inner,
            inner_person=inner_person,
        )


def role(**options: object) -> Settings:
    """The role that everybody has: this login, on loopback."""
    allowed = {"logins": [LOGIN], "hosts": ["localhost", "127.0.0.0/8"]}
    return {"roles": {"ops": allowed | ({"options": options} if options else {})}}


async def build(
    stage: Stage,
    *,
    settings: Settings | None = None,
    options: Settings | None = None,
    sshd: Sequence[str] = (),
    recordings: Path | None = None,
    listen: Sequence[str] = (),
    start: bool = True,
) -> House:
    """Start all of it. ``settings`` go on top of the configuration, ``options`` are those of the role,
    ``sshd`` are lines for the target, ``listen`` are further endpoints."""
    joe_key, own_key, ann_key = await stage.key("joe"), await stage.key("joe"), await stage.key("ann")
    proxy = Proxy(stage.path(stage.unique("proxy")), role(**(options or {})))
    users = {
        "joe": {"authorized_keys": [joe_key.line, own_key.line], "roles": ["ops"]},
        "ann": {"authorized_keys": [ann_key.line], "roles": ["ops"]},
    }
    proxy.configure({"users": users})
    if recordings is not None:
        proxy.recordings_directory = recordings
        proxy.configure({"recordings": {"directory": str(recordings)}})
    proxy.configure(settings or {})
    if listen:
        own = f"tcp:{proxy.port}:interface={proxy.host}"
        proxy.configure({"listen": [own, *listen]})
    user_authority = stage.path(f"{proxy.directory.name}/user_ca.pub")
    target = await stage.sshd(users=[joe_key], user_authority=user_authority, more=sshd)
    proxy.trust(target.known_as())
    house = House(
        stage=stage,
        proxy=proxy,
        target=target,
        joe=Person(name="joe", key=joe_key, agent=await stage.agent(joe_key)),
        keyless=Person(name="joe", key=own_key),
        ann=Person(name="ann", key=ann_key),
        authority="",
    )
    stage.at_end(proxy.stop)
    if start:
        await proxy.start()
        house.authority = proxy.new_authority("host")
        user_authority.write_text(proxy.new_authority("user"))
    return house
