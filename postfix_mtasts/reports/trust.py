"""Verifies who sent a report: DKIM (RFC 6376), as RFC 8460, 3, asks for it.

dkimpy computes the signatures. It takes very long for some mails, and raises other errors than it documents. So what it
is given is bounded here.
"""

import datetime
import email.message
import email.utils
import re
from collections.abc import Mapping, Sequence

import dkim
import dkim.util
import publicsuffix2

from postfix_mtasts.dns.nameservers import DnsError
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.reports.report import Dkim, DkimState
from postfix_mtasts.sts.domain import HostnameError, hostname

_MAX_HEADERS = 128 * 1024  # Octets of all headers of a mail, and their number.
_MAX_HEADER_COUNT = 1000
_MAX_LINES = 400_000  # A mail of 20 MB in base64 has 270,000.
_MAX_SIGNATURES = 5  # That are verified. Each may cost a lookup, and the hash of the whole mail.
_MAX_FIELD = 4000  # Octets of From or of a signature.
_MAX_SIGNED = 100  # Names of headers in a signature.
_MAX_KEYS = 1000  # That are remembered.
_MAX_KEY = 1024  # Octets of a key's TXT record. One of 4096 bits has 750.
_MIN_KEY = 1024  # Bits (RFC 8301, 3.2).
_ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256")  # RFC 8301, 3.1; RFC 8463, 3.
_SERVICES = {b"*", b"email", b"tlsrpt"}

_HEADERS_END = re.compile(rb"^\r?\n", re.MULTILINE)
_BARE_CR = re.compile(rb"\r(?!\n)")
_SELECTOR = re.compile(rb"[A-Za-z0-9._-]{1,200}")
_BLANKS = re.compile(rb"[ \t]+")
_RELAXED_BODY = re.compile(rb"[a-z]+/relaxed")
_NOT_ADDRESS = re.compile(r'"[^"]*"|\([^()]*\)')
_ADDRESS = re.compile(r"<([^<>]*)>")
_NUMBER = re.compile(rb"[0-9]{1,12}")
_OF_REPORTS = (b"tls-report-domain", b"tls-report-submitter")
_SUBJECT = re.compile(rb"\s*Report\s+Domain:", re.IGNORECASE)


class _NotVerified(Exception):  # noqa: N818 - this is a result
    """A signature does not verify who sent the mail. The message says why."""

    def __init__(self, reason: str, state: DkimState = DkimState.INVALID) -> None:
        super().__init__(reason)
        self.state = state


class Verifier:
    """Verifies mails, with the keys that `resolver` finds.

    Each key is looked up once, so a verifier is for one run of a command.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._keys: dict[str, bytes | _NotVerified] = {}
        self._suffixes: publicsuffix2.PublicSuffixList | None = None

    async def verify(self, mail: bytes, now: datetime.datetime) -> Dkim:
        """Verify a mail as it was delivered.

        A signature must be valid when the mail was received: at the time in its first Received field, or else `now`.
        """
        try:
            return await self._verify(mail, now)
        except _NotVerified as error:
            return Dkim(error.state, None, str(error))

    def organizational_domain(self, domain: str) -> str:
        """Return the domain just below the public suffix of a domain, or the domain itself if it is one."""
        if not self._suffixes:
            self._suffixes = publicsuffix2.PublicSuffixList()
        # publicsuffix2.get_sld() returns the top-level domain if it is not in the list.
        suffix = self._suffixes.get_tld(domain) or ""
        return ".".join(domain.split(".")[-suffix.count(".") - 2 :])

    async def _verify(self, mail: bytes, now: datetime.datetime) -> Dkim:
        _check_headers(mail)
        try:
            message = dkim.DKIM(mail, minkey=_MIN_KEY, tlsrpt=True)
        except Exception as error:  # See above. It has no other state than the message.
            raise _NotVerified("malformed headers") from error
        if len(message.headers) > _MAX_HEADER_COUNT:
            raise _NotVerified(f"more than {_MAX_HEADER_COUNT} headers")
        signatures = [header for header in message.headers if header[0].lower() == b"dkim-signature"]
        if not signatures:
            raise _NotVerified("no DKIM signature", DkimState.NONE)
        sender = _sender(message)
        allowed = {sender, self.organizational_domain(sender)}
        received = _received(message, now)
        body = message.body
        results = []
        for signature in signatures[:_MAX_SIGNATURES]:
            domain = None
            message.body = body
            try:
                fields = _fields(signature[1])
                domain = hostname(fields[b"d"].decode("ascii", "replace"))
                if domain not in allowed:
                    raise _NotVerified(f"the signature is not of {sender}", DkimState.OTHER_DOMAIN)
                await self._verify_signature(message, signature, fields, domain, received)
            except _NotVerified as error:
                results.append(Dkim(error.state, domain, str(error)))
            except HostnameError as error:
                results.append(Dkim(DkimState.INVALID, None, f"d= in the signature is not a domain: {error}"))
            else:
                return Dkim(DkimState.VERIFIED, domain)
        # The failure of a signature of the sender's says more than another signature.
        return min(results, key=lambda result: result.state is DkimState.OTHER_DOMAIN)

    async def _verify_signature(
        self,
        message: dkim.DKIM,
        signature: Sequence[bytes],
        fields: Mapping[bytes, bytes],
        domain: str,
        received: datetime.datetime,
    ) -> None:
        """Raise _NotVerified unless the signature is valid."""
        names = [name.strip().lower() for name in fields[b"h"].split(b":")]
        if len(names) > _MAX_SIGNED:
            raise _NotVerified(f"the signature names more than {_MAX_SIGNED} headers")
        if b"from" not in names:
            raise _NotVerified("the signature does not cover From")
        if b"l" in fields:
            raise _NotVerified("the signature covers only a part of the mail (l=)")
        if fields[b"a"] not in _ALGORITHMS:
            raise _NotVerified("the signature uses an obsolete algorithm")
        _check_media_type(message, names)
        _check_expiry(fields, received)
        key = await self._key(fields[b"s"], domain)
        if _RELAXED_BODY.fullmatch(fields.get(b"c", b"")):
            # The same for the signature, and without long runs of blanks, on which dkimpy takes very long.
            message.body = _BLANKS.sub(b" ", message.body)
        try:
            valid = message.verify_sig(fields, names, signature, lambda name, timeout: key)
        except Exception as error:  # See above.
            raise _NotVerified(f"the signature is not valid: {_reason(error)}") from error
        if not valid:
            raise _NotVerified("the signature is not valid")

    async def _key(self, selector: bytes, domain: str) -> bytes:
        """Return the key of a signature. Raises _NotVerified."""
        if not _SELECTOR.fullmatch(selector):
            raise _NotVerified("s= in the signature is not a selector")
        name = f"{selector.decode()}._domainkey.{domain}"
        if name not in self._keys:
            if len(self._keys) == _MAX_KEYS:
                self._keys.clear()
            self._keys[name] = await self._look_up(name)
        found = self._keys[name]
        if isinstance(found, _NotVerified):
            raise _NotVerified(str(found), found.state)
        return found

    async def _look_up(self, name: str) -> bytes | _NotVerified:
        """Look up a key. Return it, or why there is none."""
        try:
            records = [b"".join(strings) for strings in (await self._resolver.texts(name)).records]
        except DnsError as error:
            return _NotVerified(f"the key was not found: {error}", DkimState.UNKNOWN)
        if not records:
            return _NotVerified(f"there is no key at {name}")
        if len(records[0]) > _MAX_KEY:
            return _NotVerified(f"the key at {name} is larger than {_MAX_KEY} octets")
        return _for_reports(records[0], name)


def _for_reports(record: bytes, name: str) -> bytes | _NotVerified:
    """Return a key's record without `s=`, of which dkimpy knows only lists of one, if it is a key for mail.

    RFC 6376, 3.6.1.
    """
    try:
        tags = dkim.util.parse_tag_value(record)
    except dkim.util.InvalidTagValueList:
        return _NotVerified(f"the record at {name} is not a key")
    services = {service.strip() for service in tags.pop(b"s", b"*").split(b":")}
    if not services & _SERVICES:
        return _NotVerified(f"the key at {name} is not for mail")
    if not tags.get(b"p"):
        return _NotVerified(f"the key at {name} is revoked")
    return b";".join(b"%b=%b" % tag for tag in tags.items())


def _check_headers(mail: bytes) -> None:
    match = _HEADERS_END.search(mail)
    end = match.start() if match else len(mail)
    if end > _MAX_HEADERS:
        raise _NotVerified(f"headers of more than {_MAX_HEADERS // 1024} KiB")
    # Python's `email`, which finds the report, takes it for the end of a line, and dkimpy does not.
    if _BARE_CR.search(mail, 0, end):
        raise _NotVerified("malformed headers")
    if mail.count(b"\n") > _MAX_LINES:
        raise _NotVerified(f"a mail with more than {_MAX_LINES} lines")


def _values(message: dkim.DKIM, name: bytes) -> list[bytes]:
    """The values of a header, the topmost first."""
    return [value for other, value in message.headers if other.lower() == name]


def _sender(message: dkim.DKIM) -> str:
    """The domain in From. Raises _NotVerified unless there is one address."""
    values = _values(message, b"from")
    if len(values) != 1 or len(values[0]) > _MAX_FIELD:
        raise _NotVerified("the mail has not one From field")
    # Without names in quotes and comments. Python's parser recurses.
    text = _NOT_ADDRESS.sub("", values[0].decode("utf-8", "replace"))
    in_brackets = _ADDRESS.findall(text)
    if "," in text or len(in_brackets) > 1:
        raise _NotVerified("From has more than one address")
    try:
        return hostname("".join(in_brackets or [text]).rpartition("@")[2].strip())
    except HostnameError as error:
        raise _NotVerified(f"From has no valid domain: {error}") from error


def _check_media_type(message: dkim.DKIM, names: Sequence[bytes]) -> None:
    """Raise _NotVerified if somebody may have made a report of a mail in which the sender signed none.

    Whoever has any mail of a sender with words of his own in it could add what the signature leaves out, and the media
    type and the name of a file decide what of the body is the report. RFC 6376, 5.4.1, does not ask for them to be
    signed, and Google does not sign them. A signature covers the last one of several fields.
    """
    for name in (b"Content-Type", b"Content-Transfer-Encoding"):
        if len(_values(message, name.lower())) > 1:
            raise _NotVerified(f"the mail has more than one {name.decode()} field")
    part = email.message.Message()
    for value in _values(message, b"content-type"):
        part["Content-Type"] = value[:_MAX_FIELD].decode("ascii", "replace")
    try:
        begin, kind = f"--{part.get_boundary('')}".encode("ascii", "replace"), part.get_content_maintype()
    except Exception as error:  # As in `mail`.
        raise _NotVerified("malformed headers") from error
    is_signed = b"content-type" in names
    if not (is_signed and kind != "text") and not _says_that_it_is_a_report(message, names):
        raise _NotVerified("the signature covers no header that says that this is a report")
    # What the sender wrote before the words of another, if anything, is the first line. It has to begin a part.
    if (
        not is_signed
        and kind == "multipart"
        and message.body.lstrip(b"\r\n").partition(b"\r\n")[0].rstrip(b" \t") != begin
    ):
        raise _NotVerified("the signature does not cover Content-Type, and the body begins with something else")


def _says_that_it_is_a_report(message: dkim.DKIM, names: Sequence[bytes]) -> bool:
    """Whether the signature covers a header that only reports have (RFC 8460, 5.3)."""
    signed = {name: values[0] for name in names if len(values := _values(message, name)) == 1}
    return any(name in signed for name in _OF_REPORTS) or bool(_SUBJECT.match(signed.get(b"subject", b"")))


def _received(message: dkim.DKIM, now: datetime.datetime) -> datetime.datetime:
    """When the mail was received (RFC 6376, 3.5, on x=): our own mail server added the topmost Received field."""
    for value in _values(message, b"received")[:1]:
        try:
            received = email.utils.parsedate_to_datetime(value.rpartition(b";")[2][:100].decode("ascii").strip())
            return min(now, received if received.tzinfo else received.replace(tzinfo=datetime.UTC))
        except (ValueError, TypeError, OverflowError):
            pass
    return now


def _fields(value: bytes) -> Mapping[bytes, bytes]:
    """The tags of a signature. Raises _NotVerified if one is missing or malformed."""
    if len(value) > _MAX_FIELD:
        raise _NotVerified(f"a signature of more than {_MAX_FIELD} octets")
    try:
        fields: dict[bytes, bytes] = dkim.util.parse_tag_value(value)
        # Not its times: dkimpy compares them with the present.
        dkim.validate_signature_fields({name: text for name, text in fields.items() if name not in (b"t", b"x")})
    except Exception as error:  # See above.
        raise _NotVerified(f"the signature is malformed: {_reason(error)}") from error
    return fields


def _check_expiry(fields: Mapping[bytes, bytes], received: datetime.datetime) -> None:
    expires = fields.get(b"x")
    if expires is None:
        return
    if not _NUMBER.fullmatch(expires):
        raise _NotVerified("x= in the signature is not a time")
    if int(expires) < received.timestamp():
        raise _NotVerified("the signature had expired when the mail was received")


def _reason(error: Exception) -> str:
    """What dkimpy says, without the parts of the mail that it quotes in parentheses."""
    return str(error).partition(" (")[0][:100] or type(error).__name__
