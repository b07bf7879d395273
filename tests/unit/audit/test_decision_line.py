"""The quick way to a record and the plain way give the same bytes."""

from hypothesis import given
from hypothesis import strategies as st

from helm_sentry.audit import record
from helm_sentry.audit.line import decision_line
from helm_sentry.decision import Decision, Reason, Verdict
from helm_sentry.operation import Kind, Operation

paths = st.binary(min_size=1, max_size=30).map(lambda raw: "/" + raw.decode("utf-8", "surrogateescape"))
operations = st.builds(Operation, st.sampled_from(Kind), path=paths) | st.builds(
    Operation,
    st.sampled_from([Kind.NET_CONNECT, Kind.NET_SEND, Kind.NET_BIND]),
    address=st.ip_addresses().map(str),
    port=st.integers(0, 65535),
    protocol=st.sampled_from(["tcp", "udp", "132"]),
)
decisions = st.builds(
    Decision, st.sampled_from(Verdict), st.sampled_from(Reason), st.sampled_from(["default", "python/stdlib"])
)


@given(
    tid=st.integers(1, 1 << 22),
    asked=st.lists(operations, min_size=1, max_size=3),
    decided=decisions,
    action=st.sampled_from(["fd", "value", "errno"]),
    code=st.sampled_from(["", "EACCES"]),
    object=st.sampled_from(["", "fe00:1f"]),
    seq=st.integers(0, 1 << 40),
    time=st.integers(0, 1 << 52),
)
def test_same_bytes(tid, asked, decided, action, code, object, seq, time):
    fields = record.decision(tid, "openat", asked, decided, action, errno=code, object=object)
    fields |= {"seq": seq, "time": time, "prev": record.FIRST_PREV}
    line = decision_line(tid, "openat", asked, decided, action, code, object)
    text, digest = line.fill(record.FIRST_PREV, seq, time)
    assert text == record.link(fields)
    assert digest == fields["hash"]
