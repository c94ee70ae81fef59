"""TLS 1.3 records made by hand (RFC 8446, 5.2), such as those that cost their receiver more than their sender."""

import hmac
import struct
from collections.abc import Iterable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CIPHER = "TLS_AES_256_GCM_SHA384"
_HASH, _HASH_SIZE, _KEY_SIZE, _IV_SIZE = "sha384", 48, 32, 12
_ALERT, _HANDSHAKE, _DATA = b"\x15", b"\x16", b"\x17"  # The type of a record stands at its end.

# Contents of records.
KEY_UPDATE = bytes.fromhex("18 000001 00") + _HANDSHAKE  # New keys for each (4.6.3); no update is requested in return.
KEY_UPDATE_REQUESTED = bytes.fromhex("18 000001 01") + _HANDSHAKE
WARNING = bytes.fromhex("01 5a") + _ALERT  # user_canceled
NOTHING = _DATA
PADDING = _DATA + bytes(0x4000)  # A full record without content.
TICKET = bytes.fromhex("04 000016 00001c20 00000000 01 00 0008 0011223344556677 0000") + _HANDSHAKE
BEGINNING = b"\x04" + _HANDSHAKE  # One octet of a handshake message.


def records(secret: bytes, contents: Iterable[bytes]) -> bytes:
    """The first records of a sender with this application traffic secret. New keys follow each KeyUpdate."""
    sealed = []
    cipher, iv, number = _keys(secret)
    for content in contents:
        header = struct.pack("!BHH", 23, 0x0303, len(content) + 16)
        nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(_IV_SIZE, "big")
        sealed.append(header + cipher.encrypt(nonce, content, header))
        number += 1
        if content in {KEY_UPDATE, KEY_UPDATE_REQUESTED}:
            secret = _expand(secret, b"traffic upd", _HASH_SIZE)
            cipher, iv, number = _keys(secret)
    return b"".join(sealed)


def _keys(secret: bytes) -> tuple[AESGCM, bytes, int]:
    return AESGCM(_expand(secret, b"key", _KEY_SIZE)), _expand(secret, b"iv", _IV_SIZE), 0


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, 7.1) without a context, for what fits one block."""
    name = b"tls13 " + label
    info = struct.pack("!HB", size, len(name)) + name + b"\x00" + b"\x01"
    return hmac.digest(secret, info, _HASH)[:size]
