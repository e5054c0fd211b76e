"""Groups for finite-field Diffie-Hellman: primes, exponent sizes, and the check of a peer's public value.

The generator of each group is 2. Groups of 6144 bits and more are not offered: one exponentiation takes
tens of milliseconds, and every client that has such a group also has elliptic curves.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from conchrec.errors import RemoteViolation
from conchrec.reasons import ReasonCode

GENERATOR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A safe prime ``p`` (``(p - 1) / 2`` is also prime), and the size of private exponents.

    ``exponent_bits`` is twice the strength of the group, by the higher estimate in RFC 3526 section 8.
    Guessing an exponent of this size costs as much as breaking the group.
    """

    prime: int
    exponent_bits: int

    def exponent(self) -> int:
        """Return a new private exponent.

        All exponents have the same length, so that the computing time does not depend on it.
        """
        return 1 << self.exponent_bits | secrets.randbits(self.exponent_bits)

    def public_value(self, raw: bytes) -> int:
        """Parse a peer's public value: an mpint without its length.

        Raises RemoteViolation for a value out of range (RFC 4253 section 8). With 1 or p - 1 anyone could
        compute the secret (RFC 8268 section 4).
        """
        if len(raw) > self.prime.bit_length() // 8 + 1:
            raise RemoteViolation(
                "the Diffie-Hellman public value is out of range", code=ReasonCode.KEY_EXCHANGE_FAILED
            )
        value = int.from_bytes(raw, "big", signed=True)
        if not 1 < value < self.prime - 1:
            raise RemoteViolation(
                "the Diffie-Hellman public value is out of range", code=ReasonCode.KEY_EXCHANGE_FAILED
            )
        return value


def _prime(text: str) -> int:
    """Return the number that a hexadecimal text with spaces stands for."""
    return int(text.replace(" ", ""), 16)


#: RFC 2409 section 6.2, the "second Oakley group", which RFC 4253 calls group1.
GROUP1 = Group(
    exponent_bits=256,
    prime=_prime(
        "FFFFFFFF FFFFFFFF C90FDAA2 2168C234 C4C6628B 80DC1CD1 29024E08 8A67CC74 "
        "020BBEA6 3B139B22 514A0879 8E3404DD EF9519B3 CD3A431B 302B0A6D F25F1437 "
        "4FE1356D 6D51C245 E485B576 625E7EC6 F44C42E9 A637ED6B 0BFF5CB6 F406B7ED "
        "EE386BFB 5A899FA5 AE9F2411 7C4B1FE6 49286651 ECE65381 FFFFFFFF FFFFFFFF"
    ),
)
#: RFC 3526 section 3.
GROUP14 = Group(
    exponent_bits=320,
    prime=_prime(
        "FFFFFFFF FFFFFFFF C90FDAA2 2168C234 C4C6628B 80DC1CD1 29024E08 8A67CC74 "
        "020BBEA6 3B139B22 514A0879 8E3404DD EF9519B3 CD3A431B 302B0A6D F25F1437 "
        "4FE1356D 6D51C245 E485B576 625E7EC6 F44C42E9 A637ED6B 0BFF5CB6 F406B7ED "
        "EE386BFB 5A899FA5 AE9F2411 7C4B1FE6 49286651 ECE45B3D C2007CB8 A163BF05 "
        "98DA4836 1C55D39A 69163FA8 FD24CF5F 83655D23 DCA3AD96 1C62F356 208552BB "
        "9ED52907 7096966D 670C354E 4ABC9804 F1746C08 CA18217C 32905E46 2E36CE3B "
        "E39E772C 180E8603 9B2783A2 EC07A28F B5C55DF0 6F4C52C9 DE2BCBF6 95581718 "
        "3995497C EA956AE5 15D22618 98FA0510 15728E5A 8AACAA68 FFFFFFFF FFFFFFFF"
    ),
)
#: RFC 3526 section 5.
GROUP16 = Group(
    exponent_bits=480,
    prime=_prime(
        "FFFFFFFF FFFFFFFF C90FDAA2 2168C234 C4C6628B 80DC1CD1 29024E08 8A67CC74 "
        "020BBEA6 3B139B22 514A0879 8E3404DD EF9519B3 CD3A431B 302B0A6D F25F1437 "
        "4FE1356D 6D51C245 E485B576 625E7EC6 F44C42E9 A637ED6B 0BFF5CB6 F406B7ED "
        "EE386BFB 5A899FA5 AE9F2411 7C4B1FE6 49286651 ECE45B3D C2007CB8 A163BF05 "
        "98DA4836 1C55D39A 69163FA8 FD24CF5F 83655D23 DCA3AD96 1C62F356 208552BB "
        "9ED52907 7096966D 670C354E 4ABC9804 F1746C08 CA18217C 32905E46 2E36CE3B "
        "E39E772C 180E8603 9B2783A2 EC07A28F B5C55DF0 6F4C52C9 DE2BCBF6 95581718 "
        "3995497C EA956AE5 15D22618 98FA0510 15728E5A 8AAAC42D AD33170D 04507A33 "
        "A85521AB DF1CBA64 ECFB8504 58DBEF0A 8AEA7157 5D060C7D B3970F85 A6E1E4C7 "
        "ABF5AE8C DB0933D7 1E8C94E0 4A25619D CEE3D226 1AD2EE6B F12FFA06 D98A0864 "
        "D8760273 3EC86A64 521F2B18 177B200C BBE11757 7A615D6C 770988C0 BAD946E2 "
        "08E24FA0 74E5AB31 43DB5BFC E0FD108E 4B82D120 A9210801 1A723C12 A787E6D7 "
        "88719A10 BDBA5B26 99C32718 6AF4E23C 1A946834 B6150BDA 2583E9CA 2AD44CE8 "
        "DBBBC2DB 04DE8EF9 2E8EFC14 1FBECAA6 287C5947 4E6BC05D 99B2964F A090C3A2 "
        "233BA186 515BE7ED 1F612970 CEE2D7AF B81BDD76 2170481C D0069127 D5B05AA9 "
        "93B4EA98 8D8FDDC1 86FFB7DC 90A6C08F 4DF435C9 34063199 FFFFFFFF FFFFFFFF"
    ),
)
