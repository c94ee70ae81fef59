"""A policy file and a record that are published nowhere yet, as if they had been found."""

import pathlib
import time

from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.remote.network import in_words
from postfix_mtasts.sts import policy
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.observation import (
    Failure,
    FetchObservation,
    FetchTrace,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    RecordObservation,
    RecordTexts,
    ResultType,
    Stage,
)
from postfix_mtasts.sts.record import Record, RecordError, find_record


def record_of(domain: PolicyDomain, text: str) -> RecordObservation:
    """The record in a text, as it would be found in DNS."""
    octets = text.encode("utf-8", "surrogateescape")
    seen = RecordTexts((domain.record_name(),), (octets,), 0.0, secure=False)
    try:
        found = find_record([[octets]])
    except RecordError as error:
        return RecordInvalid(str(error), 0.0, seen)
    return RecordFound(found, seen) if found else RecordAbsent(0.0, seen)


def policy_of(file: str, record_id: str) -> FetchObservation:
    """The policy in a file, as it would be fetched. Raises QueryError."""
    try:
        with pathlib.Path(file).open("rb") as opened:
            body = opened.read(policy.MAX_SIZE + 1)
    except OSError as error:
        raise QueryError(f"--policy {file}: {in_words(error)}", status=Status.USAGE) from error
    seen = FetchTrace(body=body)
    if len(body) > policy.MAX_SIZE:
        failure = Failure(Stage.POLICY, policy.TOO_LARGE, ResultType.POLICY_INVALID)
        return PolicyInvalid(failure, record_id, policy.TOO_LARGE, (), seen)
    try:
        parsed, findings = policy.parse(body)
    except policy.PolicyError as error:
        failure = Failure(Stage.POLICY, str(error), ResultType.POLICY_INVALID)
        return PolicyInvalid(failure, record_id, error.fault, error.findings, seen)
    return PolicyFetched(parsed, body.decode("utf-8"), record_id, findings, seen)


def new_record(now: float) -> Record:
    """A record with a new id, which is the time."""
    return Record(time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)))


def to_publish(domain: PolicyDomain, record: Record) -> str:
    """The record as a line of a zone file."""
    return f'{domain.record_name()}. IN TXT "{record}"'
