"""An agent with a simulated hardware key: signatures as in PROTOCOL.u2f, and touches as the test says."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from conchrec.ssh import agent_messages as a
from conchrec.ssh.wire import string, uint32
from tests.support.fakeagent import FakeAgent, Habit
from tests.support.stage import Stage

TYPE = b"sk-ssh-ed25519@openssh.com"
APPLICATION = b"ssh:"
PRESENT = 0x01


class SkAgent(FakeAgent):
    """``touched``: somebody touches the key, each time. In ``keys`` certificates for it may stand, too."""

    def __init__(self, stage: Stage, *, touched: bool = True) -> None:
        super().__init__(stage, Habit.REFUSES)
        self.touched = touched
        self._key = Ed25519PrivateKey.generate()
        public = self._key.public_key().public_bytes_raw()
        self.blob = string(TYPE) + string(public) + string(APPLICATION)
        self.keys.append(self.blob)
        self._counter = 0

    def answer(self, message: bytes) -> bytes | None:
        """Return the reply to a message; sign as a hardware key does."""
        if message[0] != a.SIGN_REQUEST:
            return super().answer(message)
        self.requests.append(message[0])
        request = a.SignRequest.parse(message)
        if request.blob not in self.keys:
            return a.encode_message(a.FAILURE)
        self._counter += 1
        tail = bytes((PRESENT if self.touched else 0,)) + uint32(self._counter)
        signed = hashlib.sha256(APPLICATION).digest() + tail + hashlib.sha256(request.data).digest()
        return a.sign_response(string(TYPE) + string(self._key.sign(signed)) + tail)
