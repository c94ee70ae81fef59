"""`make demo`: a mail that is delivered and one that must not be, by a real Postfix in an Internet of its own.

The Postfix is this machine's, with a configuration and a queue of its own, or else that of the newest root.
"""

import sys

from tests.world.mail import MAP, mail_world
from tests.world.postfix import HERE, INSTALLATIONS, unfit

POLICY = "version: STSv1\nmode: enforce\nmx: mx.{domain}\nmax_age: 604800\n"
DOMAINS = ("good.test", "wrong.test")


def main() -> None:
    """Show it."""
    chosen = next((one for one in (HERE, *reversed(INSTALLATIONS)) if not one.missing()), None)
    if not chosen:
        roots = "needs a Postfix: run `sudo make roots`, which leaves this machine's mail as it is"
        sys.exit(f"make demo: {unfit('demo') or roots}")
    if chosen is not HERE:
        show("Postfix", f"of the root {chosen.root}")
    with mail_world(chosen) as world:
        show("main.cf", f"smtp_tls_policy_maps = {MAP}")
        world.add("good.test", "good", POLICY.format(domain="good.test"))
        world.add("wrong.test", "wrong name", POLICY.format(domain="wrong.test"))
        for domain in DOMAINS:
            show(f"postmap -q {domain} {MAP}", world.postfix.postmap_q(MAP, domain) or "")
        show("the daemon's log", *world.daemon.log)
        for domain in DOMAINS:
            delivery = world.postfix.deliver(f"you@{domain}")
            show(f"a mail to you@{domain}", *(line.split(": ", 1)[1] for line in delivery.lines))


def show(title: str, *lines: str) -> None:
    """One part of the picture."""
    print(f"{title}:", *lines, sep="\n    ", end="\n\n")  # noqa: T201 - this is its output


if __name__ == "__main__":
    main()
