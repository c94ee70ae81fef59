"""Policy hosts that misbehave before they are asked for the policy, or in TLS: a line each."""

import ssl
from functools import partial

from tests.hostile.case import KIB, LATE, SECURE, Case
from tests.hostile.sites import (
    ANSWER,
    SERVER,
    TLS13,
    asking,
    at,
    at_once,
    octets,
    on_curve,
    plain,
    retry,
    retry_with_large_field,
    sealed,
    server_hello,
    tls,
    with_others,
)
from tests.world import tls13
from tests.world.https import HANG, Drip, End, Flood, answer

TOO_MANY = "the host sent more than 1000 records of TLS without an end"
NOT_TLS, CLOSED, RESET = "the answer is not valid TLS", "the host closed the connection", "connection reset by peer"
NO_COMMON_VERSION = "no common TLS version (TLS 1.2 or later is needed)"
MISMATCH = "*ostname mismatch, certificate is not valid for 'mta-sts.*'*"
NOBODY, SILENT = "127.0.2.2", "127.0.2.3"  # Nothing listens there, and nothing is accepted here.
NOWHERE = [f"127.0.2.{number}" for number in range(20, 36)]  # Nothing listens there either.
NAMES = [f"{number}.example.com" for number in range(4000)]
TLS1, TLS1_1, TLS1_2 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2
HELLO_REQUEST = "16 0303 0004 00000000"
BEGUN = "16 0303 0100 020000fc 0303"  # The beginning of a ServerHello.
FFDHE = "the host wants a finite field for the key exchange (ffdhe)"
X25519, P521, UNKNOWN = b"\x00\x1d", b"\x00\x19", b"\xfa\xfa"

_alert = "the host sent TLS alert '{}'".format
_connect = partial(Case, stage="connection to the policy host", connections=0)
_tls = partial(Case, stage="TLS handshake with the policy host")
_flood = partial(_tls, octets=512 * KIB, cpu=0.5)
_certificate = partial(Case, stage="certificate of the policy host", octets=0)
_sealed = partial(Case, stage="HTTP response", octets=512 * KIB, cpu=0.5)

CONNECTIONS = [
    _connect("nobody listens", at(NOBODY), f"{NOBODY}: connection refused"),
    _connect("nobody listens at 16 addresses", at(*NOWHERE), "127.0.2.20: connection refused; *"),
    _connect("nobody answers", at(SILENT), f"{SILENT}: no answer within 3 s"),
    _connect("only the last of 16 listens", at(*NOWHERE[1:], SERVER), SECURE, connections=1),
    _tls("accepts, and nothing more", at_once(HANG), LATE),
    _tls("accepts and resets", at_once(End.RESET), "*", stage="*"),
    _tls("accepts and closes", at_once(), "*"),
    _tls("accepts and closes its half", at_once(End.HALF), CLOSED),
    _tls("one octet at once", at_once(b"\x16", HANG), LATE),
    _tls("zeros at once, without end", at_once(Flood(4_000_000)), NOT_TLS, octets=64 * KIB),
    _tls("zeros at once, one by one", at_once(Drip(bytes(100), 0.1)), NOT_TLS),
    _tls("half a record at once", at_once(b"\x16\x03\x03\x40\x00" + bytes(100), HANG), "*"),
    _tls("an SSH server", at_once(b"SSH-2.0-OpenSSH_9.2p1\r\n", HANG), NOT_TLS),
    _tls("an SMTP server", at_once(b"220 mx.example.com ESMTP\r\n", HANG), NOT_TLS),
    _tls("an FTP server that closes", at_once(b"220 ftp\r\n"), "*"),
    _tls("an HTTP response at once", at_once(answer(status=400), HANG), NOT_TLS),
    _tls("a fatal alert at once", at_once(bytes.fromhex("15 0303 0002 0228"), HANG), _alert("handshake failure")),
    _tls("the end of TLS at once", at_once(bytes.fromhex("15 0303 0002 0100"), HANG), "the host ended *"),
]
HANDSHAKES = [
    _tls("nothing", plain(HANG), LATE),
    _tls("the end", plain(End.CUT), CLOSED),
    _tls("a reset", plain(End.RESET), RESET),
    _tls("the end of its half", plain(End.HALF), CLOSED),
    _tls("HTTP without TLS", plain(ANSWER), NOT_TLS),
    _tls("garbage", plain(b"\xff" * 1000), NOT_TLS),
    _tls("a name that the host does not know", octets("15 0303 0002 0270"), _alert("unrecognized name")),
    _tls("a warning about the name, and nothing", octets("15 0303 0002 0170", HANG), LATE),
    _tls("a warning about the name, and the end", octets("15 0303 0002 0170"), CLOSED),
    _tls("an internal error", octets("15 0303 0002 0250"), _alert("internal error")),
    _tls("access is denied", octets("15 0303 0002 0231"), _alert("access denied")),
    _tls("an alert that nobody knows", octets("15 0303 0002 02ee"), "unknown TLS error"),
    _tls("an alert of no level", octets("15 0303 0002 0950"), "*"),
    _tls("an alert of one octet", octets("15 0303 0001 02"), "*"),
    _tls("half an alert", octets("15 0303 0002 02", HANG), LATE),
    _flood("warnings without end", octets("15 0303 0002 015a", times=100_000), "*"),
    _flood("empty records without end", octets("16 0303 0000", times=200_000), "*"),
    _flood("HelloRequest without end", octets(HELLO_REQUEST, times=100_000), "*"),
    _flood("many HelloRequest in each record", octets(f"16 0303 4000 {bytes(0x4000).hex()}", times=64), "*"),
    _flood("ChangeCipherSpec without end", octets("14 0303 0001 01", times=200_000), "*"),
    _tls("application data", octets("17 0303 0005 68656c6c6f"), "*"),
    _tls("a heartbeat", octets("18 0303 0003 01ffff"), "*"),
    _tls("a record of no type", octets("63 0303 0001 00"), "*"),
    _flood("a record of 65,535 octets", octets(f"16 0303 ffff {bytes(0xFFFF).hex()}"), "*"),
    _tls("a record that does not end", octets(f"16 0303 4000 02003ff0 {bytes(1000).hex()}", HANG), LATE),
    _flood("a message of 16 MB", octets(f"16 0303 4000 02ffffff {bytes(0x3FFC).hex()}", times=64), "*"),
    _tls("a ServerHello of nothing", octets("16 0303 0004 02000000"), "*"),
    _tls("a ServerHello drop by drop", plain(Drip(bytes.fromhex(BEGUN) + bytes(250), 0.1)), LATE),
    _tls("a ServerHello cut short", octets(BEGUN), CLOSED),
    _tls("a ServerHello and a reset", octets(BEGUN, End.RESET), RESET),
    _tls("a Certificate first", octets("16 0303 0004 0b000000"), "*"),
    _tls("a Finished first", octets("16 0303 0010 1400000c 000000000000000000000000"), "*"),
    _tls("a ClientHello in return", plain(lambda hello: hello), "*"),
    _tls("a ServerHello of SSL 3.0", server_hello(version=0x0300), NO_COMMON_VERSION),
    _tls("a ServerHello of TLS 1.4", server_hello(bytes.fromhex("002b 0002 0305")), "*"),
    _tls("a cipher that nobody offered", server_hello(TLS13, cipher=b"\x00\x05"), "*"),
    _tls("an extension that nobody asked for", server_hello(TLS13 + bytes.fromhex("ffff 0000")), "*"),
    _tls("an extension twice", server_hello(TLS13 * 2), "*"),
    _tls("a downgrade to TLS 1.2", server_hello(random=bytes(24) + b"DOWNGRD\x01", cipher=b"\xc0\x2c"), "*"),
    _tls("a retry for the group that was sent", retry(X25519), "*"),
    _tls("a retry for another group, and nothing", retry(P521), LATE),
    _tls("a retry twice", retry(P521, P521), "*"),
    _tls("a retry for a group that nobody knows", retry(UNKNOWN), "*"),
    _tls("a retry for a field of 8,192 bits", retry_with_large_field(), FFDHE),
    _tls("such a retry octet by octet", retry_with_large_field(size=1), FFDHE, octets=8 * KIB),
    _flood("such a retry behind others", retry_with_large_field(bytes.fromhex(HELLO_REQUEST) * 500), FFDHE),
    _tls("a curve that takes a retry", on_curve("secp521r1"), SECURE),
    _tls("a field of 10,000 bits", tls(kind="RSA", only=TLS1_2, field=10_000), _alert("handshake failure")),
    _tls("TLS 1.0", tls(only=TLS1), NO_COMMON_VERSION),
    _tls("TLS 1.1", tls(only=TLS1_1), NO_COMMON_VERSION),
    _tls("TLS 1.2", tls(only=TLS1_2), SECURE),
    _tls("no cipher but an old one", tls(kind="RSA", only=TLS1_2, ciphers="AES128-SHA"), _alert("handshake failure")),
    _tls("certificates of 120 KB", with_others(120_000), "*", octets=0),
    _tls("certificates of 80 KB", with_others(80_000), SECURE),
    _tls("a certificate of 4,000 names", tls(*NAMES, "{}"), SECURE),
    _tls("the client may have a certificate", asking(ssl.CERT_OPTIONAL), SECURE),
    _sealed("the client must have a certificate", asking(ssl.CERT_REQUIRED), "*", octets=0),
]
CERTIFICATES = [
    _certificate("expired", tls(kind="expired"), "certificate has expired"),
    _certificate("not yet valid", tls(kind="not yet valid"), "certificate is not yet valid"),
    _certificate("self-signed", tls(kind="self-signed"), "self*signed certificate"),
    _certificate("of an unknown CA", tls(kind="unknown CA"), "intermediate certificate missing, or CA not trusted"),
    _certificate("of a host that is no CA", tls(kind="of a host"), "invalid CA certificate"),
    _certificate("a key of 1,024 bits", tls(kind="weak key"), "*"),
    _certificate("for clients", tls(kind="for clients"), "unsu* certificate purpose"),
    _certificate("an extension to heed", tls(kind="unknown critical extension"), "unhandled critical extension"),
    _certificate("the name as common name only", tls(kind="no alternative names"), MISMATCH),
    _certificate("for another host", tls("mta-sts.example.com"), MISMATCH),
    _certificate("a wildcard for all", tls("*"), MISMATCH),
    _certificate("a wildcard for two labels", tls("*.hostile.test"), MISMATCH),
    _certificate("a wildcard for a label more", tls("*.{}"), MISMATCH),
    _certificate("a wildcard in a label", tls("mta-*.hostile.test"), MISMATCH),
    _certificate("for the address", tls(SERVER), MISMATCH),
    _certificate("for a name that begins so", tls("{}.example.com"), MISMATCH),
    _certificate("for a name that ends so", tls("x{}"), MISMATCH),
]
AFTER_THE_HANDSHAKE = [
    _sealed("KeyUpdate without end", sealed(*[tls13.KEY_UPDATE] * 20_000), TOO_MANY, cpu=1),
    _sealed("KeyUpdate for each of ours", sealed(*[tls13.KEY_UPDATE_REQUESTED] * 20_000), TOO_MANY, cpu=1),
    _sealed("empty records without end", sealed(*[tls13.NOTHING] * 20_000), "*"),
    _sealed("padding without end", sealed(*[tls13.PADDING] * 100), "*"),
    _sealed("tickets without end", sealed(*[tls13.TICKET] * 20_000), "*"),
    _sealed("warnings without end", sealed(*[tls13.WARNING] * 20_000), "*"),
    _sealed("parts of a message without end", sealed(*[tls13.BEGINNING] * 20_000), "*"),
    _sealed("a record of no type", sealed(bytes(100)), "*"),
    _sealed("a ClientHello", sealed(bytes.fromhex("01 000000") + b"\x16"), "*"),
    _sealed("a certificate is wanted", sealed(bytes.fromhex("0d 000005 00 0002 0000") + b"\x16"), "*"),
    _sealed("a KeyUpdate of a wrong size", sealed(bytes.fromhex("18 000002 0000") + b"\x16"), "*"),
    _sealed("a KeyUpdate of no kind", sealed(bytes.fromhex("18 000001 07") + b"\x16"), "*"),
    _sealed("half a KeyUpdate", sealed(b"\x18\x00" + b"\x16"), LATE),
]
