"""What the tables of policy hosts are made of: sites that do this or that."""

import ssl
from collections.abc import Sequence
from functools import partial

from tests.hostile.case import POLICY, Site
from tests.world.ca import Ca, Kind
from tests.world.https import HANG, Sealed, Step, answer

ANSWER = answer(POLICY)
SERVER = "127.0.2.1"
# HelloRetryRequest is a ServerHello with this random (RFC 8446, 4.1.3).
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
TLS13 = bytes.fromhex("002b 0002 0304")  # Its extension.
_KEY_SHARE = b"\x00\x33"
_HANDSHAKE = b"\x16\x03\x03"
_FFDHE8192 = b"\x01\x04"


def at(*addresses: str) -> Site:
    """A host that is as it should be, if one of its addresses is."""
    return Site([ANSWER], partial(_context), addresses=addresses)


def at_once(*steps: Step) -> Site:
    """What comes before the ClientHello is read."""
    return Site(steps, at_once=True)


def plain(*steps: Step) -> Site:
    """What follows the ClientHello, without TLS."""
    return Site(steps)


def octets(hexadecimal: str, *more: Step, times: int = 1) -> Site:
    """The same, given in hexadecimal."""
    return plain(bytes.fromhex(hexadecimal) * times, *more)


def https(*steps: Step) -> Site:
    """What follows the request, in sound TLS."""
    return Site(steps, partial(_context))


def sealed(*contents: bytes) -> Site:
    """The same, in records of TLS 1.3 made by hand."""
    return Site([Sealed(contents), HANG], _sealing)


def tls(
    *names: str, kind: Kind = "good", only: ssl.TLSVersion | None = None, ciphers: str = "", field: int = 0
) -> Site:
    """A good answer, in TLS that differs so. {} among the names of the certificate stands for the policy host.

    With `field`, the key exchange is in a finite field of so many bits. OpenSSL takes no more than 10,000.
    """
    context = partial(_context, names=names or ("{}",), kind=kind, only=only, ciphers=ciphers, field=field)
    return Site([ANSWER], context)


def on_curve(name: str) -> Site:
    """A good answer, on no curve but this."""
    return Site([ANSWER], partial(_on_curve, name))


def with_others(size: int) -> Site:
    """A good answer, with so many octets of certificates that are not needed."""
    return Site([ANSWER], partial(_with_others, size))


def asking(mode: ssl.VerifyMode) -> Site:
    """A good answer, to a client that may or must have a certificate."""
    return Site([ANSWER], partial(_asking, mode))


def server_hello(
    extensions: bytes = b"", *, random: bytes = bytes(32), version: int = 0x0303, cipher: bytes = b"\x13\x02"
) -> Site:
    """A ServerHello made by hand, and nothing else."""
    return plain(lambda hello: _server_hello(hello, random, extensions, version, cipher), HANG)


def retry(*groups: bytes) -> Site:
    """HelloRetryRequest for each of these groups, and nothing else."""
    return plain(*(partial(_retry, group) for group in groups), HANG)


def retry_with_large_field(before: bytes = b"", size: int = 0x4000) -> Site:
    """HelloRetryRequest for the largest field of RFC 7919, and at once a ServerHello with a key of it.

    Something may come before; the messages are in records of this size.
    """
    share = TLS13 + _KEY_SHARE + _sized(_FFDHE8192 + _sized(b"\x7f" * 1024))

    def messages(hello: bytes) -> bytes:
        whole = _retry(_FFDHE8192, hello)[5:] + _server_hello(hello, b"\x01" * 32, share)[5:]
        return before + b"".join(_HANDSHAKE + _sized(whole[at : at + size]) for at in range(0, len(whole), size))

    return plain(messages, HANG)


def _retry(group: bytes, hello: bytes) -> bytes:
    return _server_hello(hello, _RETRY, TLS13 + _KEY_SHARE + _sized(group))


def _server_hello(
    hello: bytes, random: bytes, extensions: bytes, version: int = 0x0303, cipher: bytes = b"\x13\x02"
) -> bytes:
    """In a record of its own. The session id of the ClientHello is sent back (RFC 8446, 4.1.3)."""
    session_id = hello[43 : 44 + hello[43]]
    body = version.to_bytes(2, "big") + random + session_id + cipher + b"\0" + _sized(extensions)
    return _HANDSHAKE + _sized(b"\x02\x00" + _sized(body))


def _sized(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content


def _context(
    ca: Ca,
    host: str,
    names: Sequence[str] = ("{}",),
    kind: Kind = "good",
    only: ssl.TLSVersion | None = None,
    ciphers: str = "",
    field: int = 0,
) -> ssl.SSLContext:
    issued = ca.issue(*(name.format(host) for name in names), kind=kind)
    oldest = ssl.TLSVersion.TLSv1 if kind == "weak key" else ssl.TLSVersion.TLSv1_2  # OpenSSL takes the key then.
    context = issued.server_context(only or oldest, only or ssl.TLSVersion.MAXIMUM_SUPPORTED)
    if ciphers:
        context.set_ciphers(ciphers)
    if field:
        context.set_ciphers("DHE")
        file = issued.file.with_suffix(".dh")
        prime = 2**field - 1  # It is none, and OpenSSL does not see that.
        content = _der(2, prime.to_bytes(field // 8 + 1, "big")) + _der(2, b"\x02")
        file.write_text(ssl.DER_cert_to_PEM_cert(_der(48, content)).replace("CERTIFICATE", "DH PARAMETERS"))
        context.load_dh_params(str(file))
    return context


def _der(tag: int, content: bytes) -> bytes:
    size = b"\x82" + len(content).to_bytes(2, "big") if len(content) > 127 else bytes([len(content)])
    return bytes([tag]) + size + content


def _sealing(ca: Ca, host: str) -> ssl.SSLContext:
    """For records made by hand."""
    issued = ca.issue(host)
    context = issued.server_context(ssl.TLSVersion.TLSv1_3)
    context.num_tickets = 0
    context.keylog_filename = str(issued.file.with_suffix(".keys"))
    return context


def _on_curve(name: str, ca: Ca, host: str) -> ssl.SSLContext:
    context = ca.issue(host).server_context()
    context.set_ecdh_curve(name)
    return context


def _with_others(size: int, ca: Ca, host: str) -> ssl.SSLContext:
    issued = ca.issue(host)
    other = ca.issue(*(f"{number}.{'x' * 60}.test" for number in range(size // 70)))
    issued.file.write_bytes(issued.file.read_bytes() + other.file.read_bytes())
    return issued.server_context()


def _asking(mode: ssl.VerifyMode, ca: Ca, host: str) -> ssl.SSLContext:
    context = ca.issue(host).server_context()
    context.load_verify_locations(ca.file)
    context.verify_mode = mode
    return context
