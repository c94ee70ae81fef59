import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.postfix.socketmap import MAX_REPLY, MAX_REQUEST, Decoder, ProtocolError, Reply, Request, Status
from tests.unit.strategies import chunks, near


def _netstring(payload: bytes) -> bytes:
    return b"%d:%b," % (len(payload), payload)


def _decode(*parts: bytes) -> tuple[list[Request], str | None]:
    """The requests in a stream that comes in parts, and what was expected where it broke off."""
    decoder = Decoder()
    requests = []
    try:
        for part in parts:
            decoder.feed(part)
            while (request := decoder.next_request()) is not None:
                requests.append(request)
    except ProtocolError as error:
        return requests, str(error).partition(", got ")[0]
    return requests, None


def _error(stream: bytes) -> str | None:
    """The error that a stream ends in."""
    decoder = Decoder()
    decoder.feed(stream)
    try:
        while decoder.next_request() is not None:
            pass
    except ProtocolError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("stream", "requests"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"19:postfix example.com,", [Request(b"postfix", b"example.com")], id="one"),
        pytest.param(b"3:a b,3:c d,", [Request(b"a", b"b"), Request(b"c", b"d")], id="two at once"),
        pytest.param(b"3:a b,3:c d", [Request(b"a", b"b")], id="the second is not complete"),
        pytest.param(b"19", [], id="length without its colon"),
        pytest.param(b"10000", [], id="longest length without its colon"),
        pytest.param(b"5:a b c,", [Request(b"a", b"b c")], id="the first blank ends the name"),
        pytest.param(b"4:a  b,", [Request(b"a", b" b")], id="one blank only"),
        pytest.param(b"2:a ,", [Request(b"a", b"")], id="empty key"),
        pytest.param(b"2: b,", [Request(b"", b"b")], id="empty name"),
        pytest.param(b"7:a ,:\0\xff\n,", [Request(b"a", b",:\0\xff\n")], id="any octet in the key"),
        pytest.param(b"00003:a b,", [Request(b"a", b"b")], id="leading zeros, as Postfix reads them"),
        pytest.param(
            _netstring(b"a " + b"b" * (MAX_REQUEST - 2)), [Request(b"a", b"b" * (MAX_REQUEST - 2))], id="10000 octets"
        ),
    ],
)
def test_requests(stream: bytes, requests: list[Request]) -> None:
    assert _decode(stream) == (requests, None)
    assert _decode(*(bytes([octet]) for octet in stream)) == (requests, None)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        pytest.param(
            b"GET / HTTP/1.1\r\n", "expected the length of a netstring, got 'GET / HTTP/1.1\\r\\n'", id="HTTP"
        ),
        pytest.param(b"\x16\x03\x01", "expected the length of a netstring, got '\\x16\\x03\\x01'", id="TLS"),
        pytest.param(b"get a", "expected the length of a netstring, got 'get a'", id="tcp_table(5)"),
        pytest.param(b"+5:", "expected the length of a netstring, got '+5:'", id="int() takes a plus sign"),
        pytest.param(b"1_0:", "expected the length of a netstring, got '1_0:'", id="int() takes an underscore"),
        pytest.param(b" 5:", "expected the length of a netstring, got ' 5:'", id="int() takes a blank"),
        pytest.param(b"\xb2:", "expected the length of a netstring, got '\\xb2:'", id="superscript"),
        pytest.param("٣:".encode(), "expected the length of a netstring, got '\\xd9\\xa3:'", id="Arabic digit"),
        pytest.param(b"-1:", "expected the length of a netstring, got '-1:'", id="negative"),
        pytest.param(b":a b,", "expected a netstring of at most 10000 bytes, got ':a b,'", id="no length"),
        pytest.param(b"10001:", "expected a netstring of at most 10000 bytes, got '10001:'", id="10001 octets"),
        pytest.param(b"000003", "expected a netstring of at most 10000 bytes, got '000003'", id="six digits"),
        pytest.param(b"3:a bc", "expected a comma after the netstring, got '3:a bc'", id="no comma"),
        pytest.param(b"3:a b\n", "expected a comma after the netstring, got '3:a b\\n'", id="newline for a comma"),
        pytest.param(b"0:,", "expected the name of a map, a space and a key, got '0:,'", id="empty netstring"),
        pytest.param(b"3:a\tb,", "expected the name of a map, a space and a key, got '3:a\\tb,'", id="tab for a blank"),
        pytest.param(b"x" * 41, f"expected the length of a netstring, got '{'x' * 40}'", id="quotes 40 octets"),
        pytest.param(b"1:\xe9,", "expected the name of a map, a space and a key, got '1:\\xe9,'", id="quotes in ASCII"),
    ],
)
def test_messages(stream: bytes, message: str) -> None:
    assert _error(stream) == message


def test_request_before_the_error_comes_out_and_nothing_after_it() -> None:
    decoder = Decoder()
    decoder.feed(b"3:a b,x")
    assert decoder.next_request() == Request(b"a", b"b")
    for _ in range(2):
        with pytest.raises(ProtocolError):
            decoder.next_request()
        decoder.feed(b"3:a b,")


@pytest.mark.parametrize(
    ("before", "octet"),
    [
        pytest.param(b"1", b"x", id="in the length"),
        pytest.param(b"10000", b"1", id="one digit too many"),
        pytest.param(b"", b":", id="no length"),
        pytest.param(b"3:a b", b";", id="for the comma"),
        pytest.param(b"2:ab", b",", id="no blank"),
    ],
)
def test_error_at_the_first_octet_that_shows_it(before: bytes, octet: bytes) -> None:
    assert _decode(before) == ([], None)
    assert _decode(before, octet)[1] is not None


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        pytest.param(Reply(Status.OK, "secure"), b"9:OK secure,", id="value"),
        pytest.param(Reply(Status.OK), b"3:OK ,", id="blank after OK: without, Postfix 3.7 reads not found"),
        pytest.param(Reply(Status.NOTFOUND), b"9:NOTFOUND ,", id="blank after NOTFOUND"),
        pytest.param(Reply(Status.TEMP, "no DNS"), b"11:TEMP no DNS,", id="reason"),
        pytest.param(Reply(Status.TIMEOUT, "x"), b"9:TIMEOUT x,", id="timeout"),
        pytest.param(Reply(Status.PERM, "x"), b"6:PERM x,", id="perm"),
    ],
)
def test_replies(reply: Reply, octets: bytes) -> None:
    assert reply.encode() == octets


@pytest.mark.parametrize(("octets", "fits"), [(MAX_REPLY, True), (MAX_REPLY + 1, False)])
def test_reply_fits(octets: int, fits: bool) -> None:
    reply = Reply(Status.OK, "x" * (octets - len("OK ")))
    assert reply.fits() is fits
    assert reply.encode() == b"%d:OK %b," % (octets, b"x" * (octets - 3))


def _split(stream: bytes, lengths: list[int]) -> list[bytes]:
    parts = []
    for length in lengths:
        parts.append(stream[:length])
        stream = stream[length:]
    return [*parts, stream]


_requests = st.builds(Request, st.binary(max_size=9).map(lambda name: name.replace(b" ", b"_")), st.binary(max_size=9))
_streams = st.binary() | near("3:a b,", "0", "1", "10000", ":", ",", " ", "postfix", "é", "2:a ,").map(str.encode)


@given(st.lists(_requests), chunks)
def test_printed_requests_parse_however_split(requests: list[Request], lengths: list[int]) -> None:
    stream = b"".join(_netstring(request.name + b" " + request.key) for request in requests)
    assert _decode(*_split(stream, lengths)) == (requests, None)


@given(_streams, chunks)
def test_any_split_gives_the_same_requests_and_error(stream: bytes, lengths: list[int]) -> None:
    assert _decode(*_split(stream, lengths)) == _decode(stream)


@given(st.lists(_requests, max_size=3), _streams)
def test_requests_before_an_error_come_out(requests: list[Request], rest: bytes) -> None:
    stream = b"".join(_netstring(request.name + b" " + request.key) for request in requests)
    decoded, expected = _decode(stream + rest)
    others, error = _decode(rest)
    assert (decoded, expected) == (requests + others, error)


@given(_streams)
def test_message_is_one_line_of_ascii(stream: bytes) -> None:
    message = _error(stream) or ""
    assert message.isascii()
    assert message.isprintable()


@given(st.sampled_from(Status), st.text(st.characters(max_codepoint=127)))
def test_printed_reply_parses(status: Status, text: str) -> None:
    length, _, rest = Reply(status, text).encode().partition(b":")
    assert rest[int(length) :] == b","
    word, _, value = rest[: int(length)].decode("ascii").partition(" ")
    assert Reply(Status(word), value) == Reply(status, text)
