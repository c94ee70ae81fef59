"""Where Postfix sends mail: services that do not exist, tables that cannot be used, and relays."""

from collections.abc import Iterator

from postfix_mtasts.query.doctor.check_tables import table_trouble
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.doctor.installed import Installed
from postfix_mtasts.query.doctor.routes import Hop, Routes
from postfix_mtasts.query.output import Status

_NOWHERE = ("error", "discard", "retry")
_RELAY = "the policies of the recipients' domains are that relay's job"


def check_routes(postfix: Installed, routes: Routes) -> Iterator[Finding]:
    """Everything that is wrong, and where mail does not go to the MX hosts of its recipients."""
    for (parameter, table), why in routes.broken.items():
        trouble = table_trouble(postfix, table, why)
        if trouble:
            _, problem, line = trouble
            what = f"{parameter}: {table.text}: {problem}"
            yield Finding("table", Status.ERROR, what, "Postfix defers all mail", "run" if line else "", line)
    clients = {name.partition("/")[0] for client in postfix.clients for name in client.names}
    services = {name.partition("/")[0] for name in postfix.services if name.endswith("/unix")}
    for hop in (routes.default, *routes.others):
        is_for_all = hop.whom == "*"
        if hop.service not in services and hop.service != "":
            yield _missing(postfix, hop)
        elif hop.service in clients and hop.next_hop and is_for_all:
            if hop is routes.default or hop.text != routes.default.text:
                yield _relay(hop)
        elif hop is routes.default and hop.service not in (*clients, *_NOWHERE):
            what = f"{hop.origin} is {hop.text}, a service of master.cf that does not run smtp(8)"
            yield Finding("routes", Status.WARNING, what, "Postfix looks up no MTA-STS policy for that mail")


def _relay(hop: Hop) -> Finding:
    relay = hop.next_hop if hop.origin == "relayhost" else hop.text
    verb = "is" if ":" not in hop.origin else "sends mail of all domains to"
    what = f"{hop.origin} {verb} {relay}: Postfix applies the policy of that host only"
    check = hop.origin if hop.origin == "relayhost" else "routes"
    return Finding(check, Status.OK, what, _RELAY)


def _missing(postfix: Installed, hop: Hop) -> Finding:
    whom = "all mail" if hop.whom == "*" else f"mail to {hop.whom}"
    what = f"{hop.origin} sends {whom} to {hop.text}, but master.cf has no service {hop.service}"
    fix = ("", "")
    if hop.origin == "default_transport":
        fix = "run", postfix.edit(f"-e 'default_transport = smtp{hop.next_hop and f':{hop.next_hop}'}'")
    return Finding("routes", Status.ERROR, what, "that mail is deferred", *fix)
