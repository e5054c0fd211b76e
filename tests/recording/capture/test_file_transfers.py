"""Recognition of transfers, and the account of a session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.capture.file_transfers import (
    LISTED,
    LISTED_TEXT,
    RecognisedTransfer,
    TransferAccount,
    recognise,
    transfer_programs,
)
from conchrec.recording.format.transfer_account import AccountLost, Files, TransferFact
from tests.recording.sftp_talk import Talk

SFTP = RecognisedTransfer(by="sftp")


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
        ("git-upload-pack x; true", None),
        ("cd x && rsync --server . .", None),
        ("sudo", None),
        ("scp -t 'not closed", None),
        ("", None),
    ],
)
def test_recognises_transfer_commands(command: str, by: str | None) -> None:
    transfer = recognise("exec", command)
    assert (transfer.by if transfer is not None else None) == by
    assert transfer is None or transfer.copies_files == (by in ("scp", "sftp"))


@pytest.mark.parametrize(
    ("command", "mixed", "unread"),
    [
        ("scp -t /tmp", False, ""),
        ("sudo -u root scp -prt 'a b'", False, ""),
        ("cd /x && scp -t .", True, ""),
        ("scp -t /tmp; rm -r /", True, ""),
        ("scp -t $(rm -r /)", True, ""),
        ("scp -t `id`", True, ""),
        ("scp -t /tmp > /etc/x", True, ""),
        ("LD_PRELOAD=/tmp/x.so scp -t /tmp", True, ""),
        ("env LD_PRELOAD=/tmp/x.so scp -t /tmp", True, ""),
        ("true\nsftp-server", True, ""),
        ("sftp-server && sftp-server", True, ""),
        ("git-upload-pack x; scp -t /etc", True, "the command runs several transfer programs"),
        ("scp -t /a; scp -t /b", True, "the command runs several transfer programs"),
        ("rsync --server . . | sftp-server", True, "the command runs several transfer programs"),
    ],
)
def test_marks_commands_that_may_run_other_programs(command: str, mixed: bool, unread: str) -> None:
    transfer = recognise("exec", command)
    assert transfer is not None
    assert (transfer.mixed, transfer.unread) == (mixed, unread)
    account = TransferAccount(transfer, lambda: 0.0)
    assert account.begin() == ((AccountLost(reason=unread),) if unread else ())
    files = account.files()
    assert (files.mixed, files.lost) == (mixed, unread)
    assert Files.parse(files.fields()) == files


@pytest.mark.parametrize(
    ("command", "programs"),
    [
        ("scp -t /etc", "scp"),
        ("git-upload-pack x; scp -t /etc", "git-upload-pack scp"),
        ("sh -c 'scp -t /etc'", "scp"),
        ("if true; then scp -t /etc; fi", "scp"),
        ("eval scp -t /etc", "scp"),
        ("timeout 5 /usr/bin/scp -t /etc", "scp"),
        ("x=`scp -f /etc/shadow`", "scp"),
        ("s\\cp -t x", "scp"),
        ("sc\\\np -t x", "scp"),
        ("'s'\"cp\" -t x", "scp"),
        ("s$''cp -t x", "scp"),
        ("{ scp -t x\n}", "scp"),
        ("scp -t 'not closed", "scp"),
        (": " + "x" * 100_000 + "; scp -t x", "scp"),
        ("exec /usr/lib/openssh/sftp-server||internal-sftp", "sftp"),
        ("rsync --server . . & sftp-server", "rsync sftp"),
        ("scp $x /etc", "scp"),
        ("scp -{t,} /etc", "scp"),
        ("echo scp -t x", "scp"),
        ("man scp", ""),
        ("scp a web2:", ""),
        ("tail -f /etc/scp/x scp.txt my-scp xscp scp-2 -scp", ""),
        ("uptime", ""),
    ],
)
def test_finds_transfer_program_anywhere_in_a_command(command: str, programs: str) -> None:
    assert transfer_programs("exec", command) == frozenset(programs.split())


SHELL_WORDS = st.sampled_from(
    [
        "true",
        ";",
        "&&",
        "|",
        "(",
        ")",
        "\n",
        "if",
        "then",
        "'a b'",
        "sudo",
        "env",
        "A=1",
        "--",
        "$x",
        '"',
        "\\",
    ]
)


@given(
    st.lists(SHELL_WORDS, max_size=8), st.lists(SHELL_WORDS, max_size=8), st.sampled_from(["", "/usr/bin/"])
)
def test_finds_transfer_program_between_other_words(
    before: list[str], after: list[str], directory: str
) -> None:
    command = " ".join([*before, f"{directory}scp -t /etc", *after])
    assert "scp" in transfer_programs("exec", command)
    transfer = recognise("exec", command)
    assert transfer is None or transfer.copies_files


@given(st.text())
def test_finds_every_recognised_program_for_role_options(command: str) -> None:
    transfer = recognise("exec", command)
    if transfer is not None and transfer.copies_files:
        assert transfer.by in transfer_programs("exec", command)


def test_recognises_subsystems_and_nothing_else() -> None:
    assert transfer_programs("subsystem", "sftp") == {"sftp"}
    assert transfer_programs("subsystem", "netconf") == transfer_programs("shell", "") == frozenset()
    assert recognise("subsystem", "sftp") == SFTP
    assert recognise("subsystem", "scp -t x") is None
    assert recognise("shell", "") is None


@given(st.text())
def test_accepts_any_command(command: str) -> None:
    transfer = recognise("exec", command)
    assert transfer is None or transfer.by


def account(talk: Talk) -> tuple[TransferAccount, list[TransferFact]]:
    account = TransferAccount(SFTP, lambda: 0.0)
    facts: list[TransferFact] = []
    for from_user, data in talk.passed:
        facts += (account.from_user if from_user else account.from_target)(data)
    return account, [*facts, *account.end()]


def test_sums_up_transfers() -> None:
    talk = Talk()
    talk.to_write(b"/a")
    talk.write(0, b"some")
    talk.close()
    talk.to_read(b"/b")
    talk.read(0, b"thing", length=6)
    talk.close()
    talk.change(13, b"\0\0\0\2/c", code=2)
    all_of_it, facts = account(talk)
    files = all_of_it.files()
    assert files.operations == tuple(facts) and len(facts) == 3
    counts = (files.read, files.read_bytes, files.written, files.written_bytes, files.changes, files.failed)
    assert counts == (1, 5, 1, 4, 1, 1)
    assert files.sent == sum(len(data) for from_user, data in talk.passed if from_user)
    assert files.received == sum(len(data) for from_user, data in talk.passed if not from_user)
    assert Files.parse(files.fields()) == files


def test_limits_listed_operations() -> None:
    talk = Talk()
    for number in range(LISTED + 7):
        talk.change(13, b"\0\0\0\4%04d" % number)
    all_of_it, facts = account(talk)
    files = all_of_it.files()
    assert (len(facts), files.changes, len(files.operations)) == (LISTED + 7, LISTED + 7, LISTED)
    assert files.left_out == 7
    talk = Talk()
    for _ in range(LISTED):
        talk.change(13, b"\0\0\x04\0" + b"x" * 1024)
    files = account(talk)[0].files()
    assert sum(len(operation.path) for operation in files.operations) <= LISTED_TEXT
    assert files.left_out > 0


def test_reports_lost_account_in_the_summary() -> None:
    talk = Talk()
    talk.passed.append((False, bytes(5)))
    all_of_it, facts = account(talk)
    assert facts == [AccountLost(reason="a packet is too short")]
    assert all_of_it.files().lost == "a packet is too short"


def test_ends_only_the_account_at_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    for name in ("from_user", "from_target", "end"):
        with monkeypatch.context() as context:
            context.setattr(f"conchrec.recording.capture.sftp.SftpReader.{name}", broken)
            all_of_it, facts = account(Talk())
        assert facts == [AccountLost(reason="an internal error in conchrec")]
        assert all_of_it.files().lost == "an internal error in conchrec"


def test_counts_bytes_of_protocols_that_are_not_read() -> None:
    account = TransferAccount(RecognisedTransfer(by="rsync"), lambda: 0.0)
    assert (*account.from_user(b"abc"), *account.from_target(b"defgh"), *account.end()) == ()
    assert account.files() == Files(by="rsync", sent=3, received=5)
    assert not account.reads
