"""The TXT record. A zero octet ends a record, and 0xff a string of it. RecordError is declared."""

from collections.abc import Iterator

from postfix_mtasts.sts.record import RecordError, find_record
from tests.fuzz.targets import cases, check_words


def seeds() -> Iterator[bytes]:
    for case in cases("txt_records.json"):
        records = case["txt_strings"] or []
        yield b"\0".join(b"\xff".join(text.encode("latin-1", "replace") for text in strings) for strings in records)
    yield b"v=STSv1; id=1" + b"; a=b" * 1500
    yield b"v=STSv1; id=1;" + b" " * 8000 + b";"
    yield b"\0".join(b"v=STSv1;%d" % number for number in range(1000))


def run(data: bytes) -> None:
    records = [text.split(b"\xff") for text in data.split(b"\0")]
    try:
        found = find_record(records)
    except RecordError as error:
        check_words(str(error))
        assert any(b"".join(strings).startswith(b"v=STSv1") for strings in records)
        return
    if found:
        assert 1 <= len(found.id) <= 32, found
        assert found.id.isascii(), found
        assert found.id.isalnum(), found
        assert find_record([[str(found).encode()]]) == found
        # Neither the order nor the repetition of records counts, nor how one is cut into strings.
        assert find_record([[b"".join(strings)] for strings in reversed(records * 2)]) == found
