"""One example of each audit event, with the fields that such an event usually has."""

from __future__ import annotations

from conchrec.audit import events
from conchrec.audit.events import AuditEvent, Who
from conchrec.reasons import Reason, ReasonCode

_CID = "5f0c9a7b21de4a60"
_SID = "06f1r7k3b2m9x5t8q1c4w6n0ya"
_HEAD = "3c6d4f0e7a5b9182c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_USER_KEY = "SHA256:Uh3LrmyUWzBTX5k5SLQHjV3qzqVjSjJzBHq3cPqRS0c"
_HOST_KEY = "SHA256:x3pZ0dJ0W3Z0Y8Qn0n6mB8T2hHcQmS1oTtJq1y5m6Yk"
_CA_KEY = "SHA256:0n5oV2v1B2iN2n7m8V0q3Y6g8yYFz0mC4l3l5D8l9aE"
_CLIENT = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3"
_CAST = f"/var/lib/conchrec/recordings/2026/11/29/{_SID}.cast"
_LEDGER = "/var/lib/conchrec/recordings/ledger.jsonl"
_FIRST, _LAST = "2026-11-29T14:02:11.030Z", "2026-11-29T14:02:19.964Z"
_OUTER = Who(user="joe", login="", target="", addr="198.51.100.7:50122", cid=_CID, sid="")
_INNER = Who(user="joe", login="root", target="web1:22", addr="198.51.100.7:50122", cid=_CID, sid="")
_SESSION = Who(user="joe", login="root", target="web1:22", addr="198.51.100.7:50122", cid=_CID, sid=_SID)
_APPROVER = Who(
    user="joe", login="root", target="web1:22", addr="198.51.100.9:41870", cid="81d2c6f0a94b3e75", sid=""
)
_STORED = Who(user="joe", login="root", target="web1:22", addr="", cid="", sid=_SID)

EXAMPLES: tuple[AuditEvent, ...] = (
    events.UserLogin(
        **_OUTER,
        method="publickey",
        key=_USER_KEY,
        roles=("ops",),
        client=_CLIENT,
        algorithms=("sntrup761x25519-sha512", "ssh-ed25519", "aes128-gcm@openssh.com"),
    ),
    events.AuthRefused(
        **_OUTER, method="publickey", reason=Reason(ReasonCode.KEY_UNKNOWN, "the key is not a key of joe")
    ),
    events.ClientDisconnect(
        **_OUTER, reason=Reason(ReasonCode.USER_CLOSED, "the user closed the connection"), duration=184.203
    ),
    events.ConnectionRefused(
        addr="203.0.113.9:40022",
        reason=Reason(ReasonCode.TOO_MANY_CONNECTIONS_OF_ADDRESS, "too many connections of this address"),
        count=12,
    ),
    events.SessionStart(
        **_SESSION, kind="shell", recording=_CAST, head=_HEAD, term="xterm-256color", columns=80, rows=24,
        roles=("ops",), dialled="10.0.0.5:22", host_key=_HOST_KEY, trust="known_hosts /etc/ssh/known_hosts:3",
        target_method="publickey", target_key=_USER_KEY, proxy_address="192.0.2.1:3023", method="publickey",
        key=_USER_KEY,
    ),
    events.SessionEnd(
        **_SESSION, kind="shell", duration=61.42, stdout=5120, stderr=0, stdin=210, exit_status=0,
        recording=_CAST, digest=_SHA256, head=_HEAD,
    ),
    events.SessionRejected(
        **_INNER, reason=Reason(ReasonCode.SHELL_NOT_ALLOWED, "the role backup does not allow a shell"),
        rule="role backup: shell (line 31)",
    ),
    events.SessionsDelayed(**_INNER, seconds=3.5),
    events.Exec(**_SESSION, command="systemctl restart nginx"),
    events.Subsystem(**_SESSION, name="sftp"),
    events.Resize(**_SESSION, columns=132, rows=43),
    events.Env(**_SESSION, name="LANG", size=11, sha256=_SHA256),
    events.Signal(**_SESSION, name="TERM"),
    events.UnknownRequest(**_SESSION, request="x-trace@example.com", size=12, sha256=_SHA256),
    events.MessageDropped(
        **_SESSION, message="SSH_MSG_CHANNEL_DATA", size=512, sha256=_SHA256,
        reason=Reason(ReasonCode.DATA_AFTER_EOF, "data after EOF"),
    ),
    events.Sftp(
        **_SESSION, operation="write", path="/srv/www/index.html", result="ok", size=4096, sha256=_SHA256,
        duration=0.031,
    ),
    events.Scp(
        **_SESSION, operation="read", path="/var/log/syslog", name="syslog", result="ok", size=88123,
        sha256=_SHA256, duration=0.204,
    ),
    events.Transfer(**_SESSION, program="rsync", sent=10240, received=512),
    events.TransferLost(
        **_SESSION, program="sftp",
        reason=Reason(ReasonCode.TRANSFER_NOT_FOLLOWED, "a packet is longer than its message"),
    ),
    events.PassthroughStart(**_INNER, mode="node"),
    events.PassthroughEnd(**_INNER, mode="node", sent=20480, received=91234, duration=73.1),
    events.Port(
        **_INNER, kind="direct", action="close", destination="db1:5432", origin="127.0.0.1:40312", sent=1200,
        received=88000, duration=12.5,
    ),
    events.X11Forward(**_SESSION, action="request"),
    events.Agent(**_INNER, action="signed", path="inner"),
    events.UpstreamConnect(
        **_INNER, address="10.0.0.5:22", method="publickey", key=_USER_KEY, host_key=_HOST_KEY,
        trust="known_hosts /etc/ssh/known_hosts:3", server="SSH-2.0-OpenSSH_9.2p1",
        algorithms=("curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com"),
    ),
    events.UpstreamFailed(
        **_INNER, reason=Reason(ReasonCode.UNREACHABLE, "cannot reach web1:22: connection refused"),
        detail="10.0.0.5:22: Connection refused",
    ),
    events.HostKeyUnchecked(
        **_INNER, host_key=_HOST_KEY, reason=Reason(ReasonCode.HOST_KEY_UNKNOWN, "no known_hosts file has it")
    ),
    events.CertCreate(
        **_INNER, type="user", key_id="joe", serial="5402761390284613412", principals=("root",),
        valid_until="2026-11-29T14:12:11Z", key=_USER_KEY, purpose="one connection",
    ),
    events.CaRotate(type="user", phase="update", signs=_CA_KEY, trusted=(_CA_KEY,)),
    events.CaRevoke(what="serial", name="5402761390284613412"),
    events.LockCreate(
        kind="user", name="joe", by="root", sudo_user="ann", until="2026-11-29T16:00:00Z",
        reason="stolen laptop",
    ),
    events.LockRemove(kind="user", name="joe", by="root", sudo_user="ann"),
    events.AccessRequest(**_INNER, request="k7f2", reason="disk full", approvers="lead"),
    events.AccessApprove(**_APPROVER, request="k7f2", by="ann", note="for one hour"),
    events.AccessDeny(**_APPROVER, request="k7f2", by="ann", note="call me first"),
    events.AccessWithdraw(
        **_INNER, request="k7f2", reason=Reason(ReasonCode.APPROVAL_TIMEOUT, "nobody decided within 15m")
    ),
    events.RecordingFailed(
        **_SESSION, reason=Reason(ReasonCode.WRITE_FAILED, "the recording cannot be written"),
        detail="No space left on device",
    ),
    events.RecordingRecovered(**_STORED, status="interrupted", recording=_CAST, head=_HEAD),
    events.RecordingAccess(**_STORED, action="play", by="auditor"),
    events.RecordingRemoved(**_STORED, by="conchrec", reason="older than 365d"),
    events.RecordingHeld(**_STORED, action="hold", by="root", reason="case 4711", sudo_user="ann"),
    events.EvidenceTampered(
        ledger=_LEDGER, reason=Reason(ReasonCode.LEDGER_BROKEN, "the ledger is shorter than before"),
        expected=_HEAD, found=_SHA256, head=_HEAD,
    ),
    events.AuditHead(reason="interval", head=_HEAD),
    events.AuditRepair(size=213, sha256=_SHA256),
    events.AuditLost(
        count=7, events=("resize 5", "signal 2"), first=_FIRST, last=_LAST,
        reason=Reason(ReasonCode.AUDIT_WRITE_FAILED, "No space left on device"),
    ),
    events.Repeated(
        **_OUTER, of="session.rejected", count=59000, first=_FIRST, last=_LAST, examples=("reason=no shell",)
    ),
    events.DiskLow(
        what="recordings", path="/var/lib/conchrec/recordings", state="low", free=498_000_000,
        least=524_288_000,
    ),
    events.ServiceStart(version="0.1.0", mode="proxy", listen=("tcp:3023",)),
    events.ServiceStop(reason="SIGTERM", ledger=_LEDGER, head=_HEAD),
    events.ConfigReload(result="ok", changed=("roles", "web"), waiting=("web",)),
)  # fmt: skip
