"""Random values of our types, and text near their grammars."""

import json

from hypothesis import strategies as st

from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode, MxPattern, Policy
from postfix_mtasts.sts.record import Record
from postfix_mtasts.sts.schedule import MAX_FAILED

labels = st.from_regex(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
top_labels = st.sampled_from(["com", "Example", "NET", "xn--p1ai", "a1", "1a", "x" * 63])
hostnames = st.builds(lambda rest, top: ".".join([*rest, top]), st.lists(labels, max_size=4), top_labels)
patterns = st.builds(lambda star, host: MxPattern(star + host), st.sampled_from(["", "*."]), hostnames)
domains = st.builds(lambda label, host: PolicyDomain(f"{label}.{host}".lower()), labels, hostnames)
records = st.builds(Record, st.from_regex(r"[A-Za-z0-9]{1,32}", fullmatch=True))
ages = st.integers(0, MAX_AGE_LIMIT)
policies = st.builds(
    Policy,
    st.sampled_from([Mode.ENFORCE, Mode.TESTING]),
    ages,
    st.lists(patterns, min_size=1, max_size=8).map(tuple),
) | st.builds(Policy, st.just(Mode.NONE), ages, st.lists(patterns, max_size=3).map(tuple))
record_ids = records.map(lambda record: record.id)
times = st.floats(-9.9e11, 9.9e11)
cached_policies = st.builds(CachedPolicy, policies, st.text(), record_ids, times)
failures = st.builds(Failure, st.sampled_from(Stage), st.text(max_size=20), st.none() | st.sampled_from(ResultType))
failed_fetches = st.lists(
    st.builds(FailedFetch, record_ids, st.integers(1, 2**70), times, failures),
    max_size=MAX_FAILED,
    unique_by=lambda failed: failed.record_id,
).map(tuple)
# Those that are stored.
entries = st.builds(
    Entry,
    cached_policies,
    failed=failed_fetches,
    checked_at=times,
    last_used=times,
    unused_at=st.none() | times,
)

chunks = st.lists(st.integers(0, 30), max_size=40)


def near(*tokens: str) -> st.SearchStrategy[str]:
    """Text of the tokens of a grammar, in any order, and some other characters."""
    return st.lists(st.sampled_from(tokens) | st.text(max_size=2), max_size=25).map("".join)


_lines = st.builds(
    lambda name, delimiter, value: name + delimiter + value,
    st.sampled_from(["version", "mode", "mx", "max_age", "Mode", "note", "mx1", "x" * 33, " mx", "#"]),
    st.sampled_from([":", ": ", ":\t ", " :", "="]),
    st.sampled_from(["STSv1", "enforce", "testing", "none", "86400", "-1", "a b", "}", "{ policy_string = x }", ""])
    | st.sampled_from(["mx.example.com", "*.example.net", "*.*.com", "ü.example", "a.example servername=x"])
    | st.text(max_size=20)
    | patterns.map(str),
)
_good_lines = st.tuples(
    st.just("version: STSv1"),
    st.sampled_from(["mode: enforce", "mode:testing", "mode: none "]),
    st.integers(0, 9_999_999_999).map(lambda age: f"max_age: {age}"),
    patterns.map(lambda pattern: f"mx: {pattern}"),
)
policy_texts = st.builds(
    lambda lines, end: end.join(lines),
    st.builds(lambda good, others: [*good, *others], _good_lines, st.lists(_lines, max_size=6)).flatmap(
        st.permutations
    ),
    st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\u2028"]),
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a.example", "enforce", 10**400, -(10**400), 1e308, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)

_toml_leaves = (
    st.sampled_from(["true", "nan", "-inf", "1979-05-27", "07:32:00", "0o777", "0o666", "1_0", "''", "{}", "[]"])
    | st.integers().map(str)
    | st.floats().map(repr)
    | near("inet:", "unix:", "/run/x", "[", "]", ":", "127.0.0.1", "::1", "%", "0", "53", "65536", "/24").map(
        lambda text: json.dumps(text, ensure_ascii=False)
    )
)
_toml_values = st.recursive(
    _toml_leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | inner.map(lambda item: f"{{ key = {item} }}")
    ),
    max_leaves=5,
)
_keys = st.sampled_from(["listen", "socket_mode", "answer_within", "path", "nameservers", "timeout"]) | st.sampled_from(
    [
        "policies_in_memory",
        "no_policies_in_memory",
        "ca_file",
        "allow_addresses",
        "style",
        "on_failure",
        "lisen",
        '"é"',
        '""',
        "a.b",
    ]
)
_tables = st.sampled_from(["server", "cache", "dns", "fetch", "reply", "discovery", "severr", '"\\u0001"'])
toml_texts = st.lists(
    st.builds(
        lambda table, lines: "\n".join([f"[{table}]", *lines]),
        _tables,
        st.lists(st.builds(lambda key, value: f"{key} = {value}", _keys, _toml_values), max_size=3),
    ),
    max_size=3,
).map("\n".join)
