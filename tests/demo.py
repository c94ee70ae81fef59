"""`make demo`: a mail that is delivered and one that must not be, by a real Postfix in an Internet of its own."""

import sys

from tests.world.mail import MAP, mail_world
from tests.world.postfix import HERE

POLICY = "version: STSv1\nmode: enforce\nmx: mx.{domain}\nmax_age: 604800\n"
DOMAINS = ("good.test", "wrong.test")


def main() -> None:
    """Show it."""
    if why := HERE.missing():
        sys.exit(f"make demo: {why}")
    with mail_world() as world:
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
