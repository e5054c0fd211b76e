"""What a certificate does not permit is shut, whatever the roles say."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.certificate_permits import SELF_SERVICE, SWITCHES_OF, withheld
from conchrec.access.closed_options import find_closed_option
from conchrec.access.options import SWITCHES, RoleOptions, SessionOptions
from conchrec.ssh.certificate_extensions import PERMITS, permits
from tests.access.test_policy import allowed, decision_of, joe, role

SOME = st.frozensets(st.sampled_from(sorted(SWITCHES_OF)))
ROLE_OPTIONS = st.builds(
    RoleOptions,
    switches=st.dictionaries(st.sampled_from(list(SWITCHES)), st.booleans()),
    max_sessions=st.none() | st.integers(1, 99),
)


@given(SOME)
def test_withholds_missing_extensions(given_: frozenset[str]) -> None:
    assert withheld(given_) == SWITCHES_OF.keys() - given_ == withheld({*given_, "x@example.com"})
    assert permits(withheld(given_)).keys() == given_
    assert withheld({*given_, SELF_SERVICE}) == frozenset()


def test_maps_each_extension_to_known_switches() -> None:
    assert set(PERMITS) == set(SWITCHES_OF)


@given(ROLE_OPTIONS, ROLE_OPTIONS, SOME)
def test_closes_only_withheld_options(
    some: RoleOptions, others: RoleOptions, without: frozenset[str]
) -> None:
    policy, identity = joe(role("a", options=some), role("b", options=others))
    with_all = allowed(decision_of((policy, identity)))
    answer = allowed(decision_of((policy, replace(identity, withheld=without))))
    shut = {switch for permit in without for switch in SWITCHES_OF[permit]}
    for option in fields(SessionOptions):
        expected = False if option.name in shut else getattr(with_all.options, option.name)
        assert getattr(answer.options, option.name) == expected, option.name
    assert answer.rule == with_all.rule


@pytest.mark.parametrize("permit", [permit for permit, switches in SWITCHES_OF.items() if switches])
def test_names_certificate_in_audit_rule(permit: str) -> None:
    everything = RoleOptions(switches=dict.fromkeys(SWITCHES, True))
    policy, identity = joe(role(options=everything))
    answer = allowed(decision_of((policy, replace(identity, withheld=frozenset({permit})))))
    for switch in SWITCHES_OF[permit]:
        shut = find_closed_option(answer.roles, switch)
        assert (shut.rule, shut.why) == (f"certificate: no {permit}", f"your certificate has no {permit}")


def test_names_role_that_says_no_before_certificate() -> None:
    """A new certificate would not help."""
    policy, identity = joe(role(options=RoleOptions(switches={"pty": False})))
    answer = allowed(decision_of((policy, replace(identity, withheld=frozenset({"permit-pty"})))))
    assert find_closed_option(answer.roles, "pty").rule == "role ops: pty"
