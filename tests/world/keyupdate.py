"""TLS records that cost their receiver more than their sender: KeyUpdate (RFC 8446, 4.6.3), with new keys for each."""

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CIPHER = "TLS_AES_256_GCM_SHA384"
_HASH, _HASH_SIZE, _KEY_SIZE, _IV_SIZE = hashlib.sha384, 48, 32, 12
_UPDATE = bytes.fromhex("18 000001 00") + b"\x16"  # No update is requested in return; the type of the record.
_HEADER = struct.pack("!BHH", 23, 0x0303, len(_UPDATE) + 16)


def key_updates(secret: bytes, count: int) -> bytes:
    """The first records of a sender with this application traffic secret: so many KeyUpdates."""
    records = []
    for _ in range(count):
        key, iv = _expand(secret, b"key", _KEY_SIZE), _expand(secret, b"iv", _IV_SIZE)
        records.append(_HEADER + AESGCM(key).encrypt(iv, _UPDATE, _HEADER))
        secret = _expand(secret, b"traffic upd", _HASH_SIZE)
    return b"".join(records)


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446, 7.1) without a context, for what fits one block."""
    name = b"tls13 " + label
    info = struct.pack("!HB", size, len(name)) + name + b"\x00" + b"\x01"
    return hmac.new(secret, info, _HASH).digest()[:size]
