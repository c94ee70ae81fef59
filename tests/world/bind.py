"""BIND with the root zone and a zone of its own below it, both changed by updates; it answers everybody's queries.

with Bind(folder, "127.0.0.1", "sts.provider.test") as dns:
    dns.add("example.test", "MX", "10 mx1.example.test.")
    dns.remove("example.test", "MX")
    dns.key_file                        # for updates of sts.provider.test
"""

import base64
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.update

from tests.world.servers import ROOT, running

_SECRETS = {name: base64.b64encode(name[:1].encode() * 32).decode() for name in ("owners", "publish")}
_KEYS = {name: f'key "{name}" {{ algorithm hmac-sha256; secret "{secret}"; }};\n' for name, secret in _SECRETS.items()}
_CONF = """
options { directory "FOLDER"; listen-on { ADDRESS; }; listen-on-v6 { none; }; pid-file none;
  recursion yes; // Otherwise it follows no CNAME into its other zone.
  dnssec-validation no; session-keyfile none; lock-file none; };
controls { };
zone "." { type primary; file "root"; allow-update { key owners; }; };
zone "ZONE" { type primary; file "zone"; allow-update { key publish; }; };
"""
_ZONE = "$TTL 1\n@ IN SOA ns. hostmaster. 1 3600 900 604800 1\n@ IN NS ns.\n"


class Bind:
    """The name server, at an address that an interface has. `zone` is that of a key of its own."""

    def __init__(self, folder: Path, address: str, zone: str) -> None:
        self.address = address
        self.key_file = folder / "key"
        self.key_file.write_text(_KEYS["publish"])
        conf = _CONF.replace("FOLDER", str(folder)).replace("ADDRESS", address).replace("ZONE", zone)
        (folder / "named.conf").write_text("".join(_KEYS.values()) + conf)
        (folder / "root").write_text(f"{_ZONE}ns. IN A {address}\n{zone}. IN NS ns.\n")
        (folder / "zone").write_text(_ZONE)
        self._log = folder / "named.log"
        self._running = ExitStack()

    def __enter__(self) -> Self:
        command = ROOT.command("named", "-g", "-c", str(self._log.with_name("named.conf")))
        self._running.enter_context(running(self._log, *command))
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def add(self, name: str, rdtype: str, data: str) -> None:
        """Add a record."""
        change = self._change()
        change.add(f"{name}.", 1, rdtype, data)
        self._send(change)

    def add_txt(self, name: str, *strings: bytes) -> None:
        """Add a TXT record."""
        self.add(name, "TXT", " ".join(f'"{string.decode()}"' for string in strings))

    def remove(self, name: str, rdtype: str = "ANY") -> None:
        """Remove all records of a name, or those of a type."""
        change = self._change()
        change.delete(f"{name}.", rdtype)
        self._send(change)

    def texts(self, name: str) -> list[str]:
        """The TXT records of a name, at the end of its CNAMEs."""
        answer = dns.query.udp(dns.message.make_query(name, "TXT"), self.address, timeout=10).answer
        return [rdata.to_text() for rrset in answer for rdata in rrset if rdata.rdtype == dns.rdatatype.TXT]

    def _change(self) -> dns.update.UpdateMessage:
        ring = dns.tsigkeyring.from_text({"owners": _SECRETS["owners"]})
        return dns.update.UpdateMessage(".", keyring=ring, keyalgorithm="hmac-sha256")

    def _send(self, change: dns.update.UpdateMessage) -> None:
        answer = dns.query.tcp(change, self.address, timeout=20)
        assert answer.rcode() == dns.rcode.NOERROR, (answer, self._log.read_text())

    def _answers(self) -> bool:
        try:
            query = dns.message.make_query(".", "SOA")
            return bool(dns.query.udp(query, self.address, timeout=1).answer)
        except (dns.exception.Timeout, OSError):
            return False
