"""What the Debian package repeats of the program is the same there."""

import configparser
import re
import tomllib
from pathlib import Path

from postfix_mtasts import __version__, config
from postfix_mtasts.config import Config
from postfix_mtasts.daemon import command as daemon
from postfix_mtasts.daemon import service
from postfix_mtasts.query.output import Status
from postfix_mtasts.reports import telling
from postfix_mtasts.web import helper
from postfix_mtasts.web import main as web

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "debian"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read(DEBIAN / name)
    return parser


def test_the_version_is_that_of_the_program() -> None:
    found = re.match(r"postfix-mtasts \((.*)-.*\) ", (DEBIAN / "changelog").read_text())
    assert found
    assert found[1] == __version__


def test_the_socket_unit_has_the_default_address() -> None:
    socket = unit("postfix-mtasts.socket")["Socket"]
    assert [f"inet:{socket['ListenStream']}"] == [str(one) for one in config.DEFAULT_LISTEN]
    assert socket["FileDescriptorName"] == service._SOCKETMAP


def test_the_socket_for_a_chroot_is_for_the_same_service() -> None:
    socket = unit("postfix-mtasts.postfix-mtasts-chroot.socket")["Socket"]
    assert socket["Service"] == "postfix-mtasts.service"
    assert socket["FileDescriptorName"] == service._SOCKETMAP


def test_the_socket_for_metrics_is_for_the_same_service() -> None:
    socket = unit("postfix-mtasts.postfix-mtasts-metrics.socket")["Socket"]
    assert socket["Service"] == "postfix-mtasts.service"
    assert socket["FileDescriptorName"] == service._METRICS
    assert socket["ListenStream"] in (ROOT / "contrib/prometheus/prometheus.yml").read_text()


def test_the_service_has_the_default_folders_and_waits_for_the_daemon() -> None:
    settings = unit("postfix-mtasts.service")["Service"]
    assert Path("/var/lib", settings["StateDirectory"]) == Path(Config().cache.path).parent
    assert Path("/run", settings["RuntimeDirectory"]) == Path(config.DEFAULT_CONTROL).parent
    assert int(settings["TimeoutStopSec"]) >= 2 * daemon._STOP_WITHIN


def test_a_start_ends_when_a_service_answers() -> None:
    """Who starts it sees whether it did, and what is ordered behind it may ask at once."""
    services = {file.name: unit(file.name)["Service"] for file in DEBIAN.glob("*.service")}
    lasting = {name: service["Type"] for name, service in services.items() if "Restart" in service}
    names = ("postfix-mtasts", "postfix-mtasts-publish", "postfix-mtasts-web")
    assert lasting == dict.fromkeys((f"{name}.service" for name in names), "notify")


def test_what_asks_dns_by_itself_waits_for_a_resolver_of_this_machine() -> None:
    services = ("postfix-mtasts.service", "postfix-mtasts-publish.postfix-mtasts-publish-check.service")
    assert ["nss-lookup.target" in unit(name)["Unit"]["After"].split() for name in services] == [True, True]


def test_every_command_is_packaged_with_its_manual() -> None:
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    manuals = {page.stem for page in (ROOT / "docs/man").iterdir()}
    assert set(commands) <= manuals
    assert Path(unit("postfix-mtasts.service")["Service"]["ExecStart"]).name in commands


def test_documents_that_packaged_ones_lead_to_are_packaged() -> None:
    packaged = {ROOT / name for file in DEBIAN.glob("*.docs") for name in file.read_text().split()}
    named = set(re.findall(r"docs/[a-z]+\.md", (ROOT / "docs/postfix-mtasts.toml").read_text()))
    for file in packaged - {ROOT / "README.md"}:
        named |= {f"docs/{name}" for name in re.findall(r"\]\(([a-z]+\.md)", file.read_text())}
    # What is about the source is with the source.
    assert {ROOT / name for name in named} - packaged == {ROOT / "docs/development.md"}


def test_the_service_for_reports_has_the_default_folder_and_the_command() -> None:
    settings = unit("postfix-mtasts-reports@.service")["Service"]
    folder = Path(Config().reports.path).parent
    assert Path("/var/lib", settings["StateDirectory"]) == folder
    assert settings["ExecStart"] == "/usr/bin/postfix-mtasts-reports %i"
    timers = [unit(path.name)["Timer"]["Unit"] for path in sorted(DEBIAN.glob("postfix-mtasts-reports.*.timer"))]
    assert timers == [f"postfix-mtasts-reports@{name}.service" for name in ("alert", "summary")]
    assert set(telling.SUBCOMMANDS) == {"alert", "summary"}


def test_postfix_receives_reports_as_the_user_of_the_package() -> None:
    user = unit("postfix-mtasts-reports@.service")["Service"]["User"]
    assert (DEBIAN / "postfix-mtasts-reports.sysusers").read_text().split()[1] == user
    lines = (ROOT / "contrib/postfix/master.cf.tls-reports").read_text()
    assert f"user={user} argv=/usr/bin/postfix-mtasts-reports receive" in lines
    assert f"--owner={user} --group={user} " in (DEBIAN / "postfix-mtasts-reports.postinst").read_text()


def test_the_services_for_publishing_have_the_default_folder_and_the_command() -> None:
    folder = Path(Config().publish.path).parent
    assert Path(Config().publish.policies).parent == folder
    check = "postfix-mtasts-publish.postfix-mtasts-publish-check.service"
    for name, subcommand in (("postfix-mtasts-publish.service", "serve"), (check, "check")):
        settings = unit(name)["Service"]
        assert Path("/var/lib", settings["StateDirectory"]) == folder
        assert settings["ExecStart"] == f"/usr/bin/postfix-mtasts-publish {subcommand}"
    # Its name is that of the service, which it starts.
    assert unit(check.replace(".service", ".timer"))["Timer"]["OnCalendar"] == "daily"
    assert int(unit(check)["Service"]["SuccessExitStatus"]) == Status.WARNING


def test_whoever_publishes_has_the_group_of_the_reports_and_owns_the_folder() -> None:
    lines = [line.split() for line in (DEBIAN / "postfix-mtasts-publish.sysusers").read_text().splitlines()]
    (user,) = [line[1] for line in lines if line[0] == "u"]
    reports = (DEBIAN / "postfix-mtasts-reports.sysusers").read_text().split()[1]
    assert [line[1:] for line in lines if line[0] == "m"] == [[user, reports]]
    for name in DEBIAN.glob("postfix-mtasts-publish*.service"):
        assert unit(name.name)["Service"]["User"] == user
    assert f"--owner={user} --group={user} " in (DEBIAN / "postfix-mtasts-publish.postinst").read_text()


def test_both_services_for_publishing_are_locked_up_alike() -> None:
    serve, check = (
        (DEBIAN / f"postfix-mtasts-publish.{name}service").read_text().split("\nCapabilityBoundingSet=")[1]
        for name in ("", "postfix-mtasts-publish-check.")
    )
    assert serve.partition("\n[Install]")[0] == check


def sandbox(name: str) -> dict[str, str]:
    """What stands below the capabilities in a service."""
    settings = list(unit(name)["Service"].items())
    first = next(number for number, (key, _) in enumerate(settings) if key == "CapabilityBoundingSet")
    return dict(settings[first:])


def test_each_helper_of_the_dashboard_is_the_user_to_whom_things_belong_and_locked_up_like_him() -> None:
    owners = {
        "postfix-mtasts-query": "postfix-mtasts.service",
        "postfix-mtasts-publish": "postfix-mtasts-publish.service",
        "postfix-mtasts-reports": "postfix-mtasts-reports@.service",
    }
    assert tuple(owners) == web.PROGRAMS
    folder = Path(unit("postfix-mtasts-web.service")["Service"]["ExecStart"].partition("--helpers ")[2])
    for program, owner in owners.items():
        name = f"postfix-mtasts-web-{program.rpartition('-')[2]}"
        file = f"postfix-mtasts-web@.{name}.service"  # So debhelper names the file of a template.
        service, owned = unit(file)["Service"], unit(owner)["Service"]
        assert service["ExecStart"] == f"/usr/bin/postfix-mtasts-web --helper {program}"
        assert service["User"] == owned["User"]
        is_daemon = owner == "postfix-mtasts.service"  # It is asked, and its files are left alone.
        assert service.get("StateDirectory") == (None if is_daemon else owned["StateDirectory"])
        families = "AF_UNIX" if is_daemon else "AF_INET AF_INET6 AF_UNIX"
        like = sandbox("postfix-mtasts-publish.service") | {"RestrictAddressFamilies": families}
        assert sandbox(file) == like
        assert int(service["RuntimeMaxSec"]) > helper.WITHIN
        socket = unit(f"postfix-mtasts-web.{name}.socket")["Socket"]
        assert Path(socket["ListenStream"]) == folder / program
        assert (socket["SocketUser"], socket["SocketMode"]) == ("_postfix-mtasts-web", "0600")


def test_the_user_of_the_dashboard_may_look_and_give_its_socket_away() -> None:
    lines = [line.split() for line in (DEBIAN / "postfix-mtasts-web.sysusers").read_text().splitlines()]
    (user,) = [line[1] for line in lines if line[0] == "u"]
    service = unit("postfix-mtasts-web.service")["Service"]
    assert (service["User"], service["Type"]) == (user, "notify")
    owners = {unit(f"postfix-mtasts{name}service")["Service"]["User"] for name in (".", "-publish.", "-reports@.")}
    groups = {line[2] for line in lines if line[0] == "m" and line[1] == user}
    assert groups == owners | {Config().web.group}
    assert ["g", Config().web.group, "-"] in lines
    assert f'listen = "unix:/run/{service["RuntimeDirectory"]}/socket"' in (ROOT / "docs/web.md").read_text()
    assert int(service["RestartPreventExitStatus"]) == Status.CONFIG
