"""Whether the DANE settings of Postfix and the daemon fit together, and the level with reports about mode testing."""

from collections.abc import Iterator

from postfix_mtasts.config import DaneSetting, OnTesting
from postfix_mtasts.postfix.installation import DANE_LEVELS
from postfix_mtasts.postfix.tables import tables
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Client
from postfix_mtasts.query.doctor.scene import PARAMETER, Scene
from postfix_mtasts.query.output import Status

_STRICT = ("encrypt", "fingerprint", "dane-only", "verify", "secure")
_OVERRULED = "MTA-STS policies override DANE, which RFC 8461 forbids"


def check_dane(scene: Scene) -> Iterator[Finding]:
    """Settings that contradict each other, for each client."""
    for client in scene.postfix.clients:
        yield from _check(scene, client)
        yield from _testing(scene, client)


def _check(scene: Scene, client: Client) -> Iterator[Finding]:
    dane, level = scene.rules.dane, client.level
    has_dnssec = client["smtp_dns_support_level"] == "dnssec"
    place = f"{scene.file}, [reply]"
    where = client.where("smtp_tls_security_level")
    if dane is DaneSetting.OFF and level in DANE_LEVELS and has_dnssec:
        what = f"{where} is {level}, but the daemon has reply.dane off"
        yield Finding("dane", Status.ERROR, what, _OVERRULED, place, 'dane = "yield"')
    elif dane is DaneSetting.YIELD and level not in DANE_LEVELS:
        what = f"reply.dane is yield, but {where} is {level or 'empty'}"
        why = "for domains with TLSA records, Postfix checks neither these records nor the policy"
        yield Finding("dane", Status.ERROR, what, why, place, 'dane = "auto"')
    elif dane is DaneSetting.DANE_ONLY and not has_dnssec:
        what = f"reply.dane is dane-only, but {client.where('smtp_dns_support_level')} is not dnssec"
        why = "mail to domains with TLSA records is deferred"
        line = scene.postfix.set(client, {"smtp_dns_support_level": "dnssec"})
        yield Finding("dane", Status.ERROR, what, why, "run", line)


def _testing(scene: Scene, client: Client) -> Iterator[Finding]:
    """A level that mail to domains in mode testing loses, because the daemon answers `may` so that it is reported."""
    asks = any(scene.is_ours(client, table) for table in tables(client[PARAMETER]))
    if asks and client.level in _STRICT and scene.rules.testing is OnTesting.REPORT:
        where = client.where("smtp_tls_security_level")
        what = f"reply.testing is report, and {where} is {client.level}"
        why = "mail to domains in mode testing is sent at level may, so that Postfix can report on it"
        yield Finding("testing", Status.WARNING, what, why, f"{scene.file}, [reply]", 'testing = "ignore"')
