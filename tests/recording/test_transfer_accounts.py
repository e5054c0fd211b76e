"""What is recognised as a transfer, and the account of a session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sftp_talk import Talk

from conchrec.recording.account import Files, Found, Lost
from conchrec.recording.transfers import LISTED, LISTED_TEXT, Account, Transfer, recognise

SFTP = Transfer(by="sftp")


@pytest.mark.parametrize(
    ("command", "by"),
    [
        ("scp -t /tmp", "scp"),
        ("scp -v -r -p -t -- '/tmp/a b'", "scp"),
        ("/usr/bin/scp -f ~/x", "scp"),
        ("sudo -u root scp -prt .", "scp"),
        ("A=1 exec env B=2 scp -f x", "scp"),
        ("cd /x && scp -t .", "scp"),
        ("(scp -t x)", "scp"),
        ("/usr/lib/openssh/sftp-server -l INFO", "sftp"),
        ("sudo -n /usr/lib/openssh/sftp-server", "sftp"),
        ("test -x /usr/lib/sftp-server && exec /usr/lib/sftp-server\nexec sftp-server", "sftp"),
        ("rsync --server -vlogDtpre.iLsfxCIvu . /tmp", "rsync"),
        ("git-upload-pack '/x/y.git'", "git-upload-pack"),
        ("git receive-pack x", "git-receive-pack"),
        ("/usr/bin/git-upload-archive x", "git-upload-archive"),
        ("scp a web2:", None),
        ("scp -- -t", None),
        ("scp", None),
        ("echo scp -t x", None),
        ("echo 'scp -t x'", None),
        ("rsync -a . web2:", None),
        ("git status", None),
        ("git", None),
        ("sudo", None),
        ("scp -t 'not closed", None),
        ("", None),
    ],
)
def test_commands(command: str, by: str | None) -> None:
    found = recognise("exec", command)
    assert (found.by if found is not None else None) == by
    assert found is None or found.copies_files == (by in ("scp", "sftp"))


def test_the_rest() -> None:
    assert recognise("subsystem", "sftp") == SFTP
    assert recognise("subsystem", "scp -t x") is None
    assert recognise("shell", "") is None


@given(st.text())
def test_any_command_may_come(command: str) -> None:
    found = recognise("exec", command)
    assert found is None or found.by


def account(talk: Talk) -> tuple[Account, list[Found]]:
    account = Account(SFTP, lambda: 0.0)
    found: list[Found] = []
    for from_user, data in talk.passed:
        found += (account.from_user if from_user else account.from_target)(data)
    return account, [*found, *account.end()]


def test_the_sum_of_it() -> None:
    talk = Talk()
    talk.to_write(b"/a")
    talk.write(0, b"some")
    talk.close()
    talk.to_read(b"/b")
    talk.read(0, b"thing", length=6)
    talk.close()
    talk.change(13, b"\0\0\0\2/c", code=2)
    all_of_it, found = account(talk)
    files = all_of_it.files()
    assert files.operations == tuple(found) and len(found) == 3
    counts = (files.read, files.read_bytes, files.written, files.written_bytes, files.changes, files.failed)
    assert counts == (1, 5, 1, 4, 1, 1)
    assert files.sent == sum(len(data) for from_user, data in talk.passed if from_user)
    assert files.received == sum(len(data) for from_user, data in talk.passed if not from_user)
    assert Files.parse(files.fields()) == files


def test_the_list_has_a_bound() -> None:
    talk = Talk()
    for number in range(LISTED + 7):
        talk.change(13, b"\0\0\0\4%04d" % number)
    all_of_it, found = account(talk)
    files = all_of_it.files()
    assert (len(found), files.changes, len(files.operations)) == (LISTED + 7, LISTED + 7, LISTED)
    assert files.left_out == 7
    talk = Talk()
    for _ in range(LISTED):
        talk.change(13, b"\0\0\x04\0" + b"x" * 1024)
    files = account(talk)[0].files()
    assert sum(len(one.path) for one in files.operations) <= LISTED_TEXT
    assert files.left_out > 0


def test_a_lost_thread_is_in_the_sum() -> None:
    talk = Talk()
    talk.passed.append((False, bytes(5)))
    all_of_it, found = account(talk)
    assert found == [Lost(reason="a packet is too short")]
    assert all_of_it.files().lost == "a packet is too short"


def test_a_bug_of_ours_ends_the_account_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    for name in ("from_user", "from_target", "end"):
        with monkeypatch.context() as context:
            context.setattr(f"conchrec.recording.sftp.SftpReader.{name}", broken)
            all_of_it, found = account(Talk())
        assert found == [Lost(reason="an error of conchrec's own")]
        assert all_of_it.files().lost == "an error of conchrec's own"


def test_bytes_alone_of_what_is_not_read() -> None:
    account = Account(Transfer(by="rsync"), lambda: 0.0)
    assert (*account.from_user(b"abc"), *account.from_target(b"defgh"), *account.end()) == ()
    assert account.files() == Files(by="rsync", sent=3, received=5)
    assert not account.reads
