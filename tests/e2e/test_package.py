"""The Debian package: built, looked at, and installed with apt in a fresh Debian, all without a network."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.world.package import BUILD, PROJECT, Built, build, build_in, renamed, source
from tests.world.root import Root, changeable, missing
from tests.world.theirs import EXIM, POSTFIX, MailServer, put, state

pytestmark = pytest.mark.timeout(400)  # apt and dpkg take their time.

LATER = "0.1.0-1+later"
# Answers to what Debian's Postfix asks when it is installed, for a machine that sends mail and gets none.
ANSWERS = (
    ("main_mailer_type", "select", "Satellite system"),
    ("mailname", "string", "client.test"),
    ("relayhost", "string", ""),
)
DEB = "POSTFIX_MTASTS_DEB"
REPORTS = ("alert", "summary")  # What the timers of postfix-mtasts-reports run.
HELPERS = ("query", "publish", "reports")  # Of the dashboard.
SOURCE = "/tmp/source"
# What a project without a public home has not.
HOMELESS = ("no-homepage-field", "upstream-metadata-missing-bug-tracking", "upstream-metadata-missing-repository")
# What lintian of a release knows better: the source is the same for all of them, and in the words of the oldest.
KNOWN = {
    "bookworm": ("newer-standards-version", "package-supports-alternative-init-but-no-init.d-script"),
    "trixie": ("newer-standards-version",),
    "forky": (
        "older-debian-watch-file-standard",  # The next one is new in Debian 13.
        "package-uses-old-debhelper-compat-version",  # So is the next one of these.
        "redundant-priority-optional-field",  # Before, they were not.
        "redundant-rules-requires-root-no-field",
    ),
}


@pytest.fixture(scope="module", params=["bookworm", "trixie", "forky"])
def suite(request: pytest.FixtureRequest) -> str:
    """Where it is built."""
    name: str = request.param
    if why := missing(f"{name}-build"):
        pytest.skip(why)
    return name


# Where it is installed: what Debian 14 will be changes every day.
installing = pytest.mark.parametrize("suite", ["bookworm", "trixie"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source(tmp_path_factory.mktemp("package") / "source")


@pytest.fixture(scope="module")
def builder(suite: str) -> Iterator[Root]:
    with changeable(f"{suite}-build") as root:
        yield root


@pytest.fixture(scope="module")
def built(builder: Root, files: Path) -> Built:
    """Built with the unit tests, which run with the Debian's own libraries."""
    return build(builder, files)


@contextmanager
def with_source(suite: str, built: Built) -> Iterator[Root]:
    """A Debian that nothing was installed in; in /tmp are the package and what its tests take of its source."""
    if why := missing(f"{suite}-fresh"):
        pytest.skip(why)
    with changeable(f"{suite}-fresh") as root:
        built.put(root.path / "tmp/packages")
        (root.path / "tmp/source").mkdir()
        for name in ("contrib", "debian", "docs", "tests"):
            shutil.copytree(PROJECT / name, root.path / "tmp/source" / name)
        for name in ("README.md", "pyproject.toml"):
            shutil.copy(PROJECT / name, root.path / "tmp/source")
        (root.path / "etc/resolv.conf").write_text("")
        for name, kind, value in ANSWERS:
            root.run("sh", "-c", 'echo "postfix postfix/$0 $1 $2" | debconf-set-selections', name, kind, value)
        yield root


@pytest.fixture
def fresh(suite: str, built: Built) -> Iterator[Root]:
    """For a test that installs and removes; without what packages only recommend, which takes time."""
    with with_source(suite, built) as root:
        (root.path / "etc/apt/apt.conf.d/lean").write_text('APT::Install-Recommends "false";\n')
        yield root


@pytest.fixture(scope="module")
def installed(suite: str, built: Built) -> Iterator[Root]:
    """For tests of the installed package."""
    with with_source(suite, built) as root:
        yield root


def install(root: Root, *packages: str) -> str:
    """With apt, as an administrator does."""
    return root.run("apt-get", "install", "--yes", *packages)


def needs(name: str) -> list[str]:
    """The packages that one of debian/tests needs."""
    paragraphs = (PROJECT / "debian/tests/control").read_text().split("\n\n")
    fields = [dict(line.split(": ", 1) for line in paragraph.strip().split("\n")) for paragraph in paragraphs]
    (found,) = [field["Depends"].split(", ") for field in fields if field["Tests"] == name]
    return found


def run_test(root: Root, name: str, built: Built, **environment: str) -> str:
    """One of debian/tests, with what it needs, and our packages where it needs them."""
    install(
        root, *(f"/tmp/packages/{built.debs[package]}" if package in built.debs else package for package in needs(name))
    )
    folder = Path("/tmp/autopkgtest", name)
    (root.path / folder.relative_to("/")).mkdir(parents=True)
    return root.run(f"debian/tests/{name}", folder=SOURCE, environment={"AUTOPKGTEST_TMP": str(folder), **environment})


def test_the_unit_tests_ran(built: Built) -> None:
    assert re.search(r"^=+ \d+ passed in ", built.log, flags=re.MULTILINE)


def test_lintian_finds_nothing(suite: str, builder: Root, built: Built) -> None:
    (changes,) = [name for name in built.files if name.endswith(".changes")]
    found = builder.ask("lintian", "--allow-root", "--display-info", "--pedantic", changes, folder=BUILD)
    known = re.compile(rf"[WIP]: postfix-mtasts(-publish|-web| source)?: ({'|'.join((*HOMELESS, *KNOWN[suite]))}) ")
    assert [line for line in found.stdout.splitlines() if not known.match(f"{line} ")] == []


def test_it_is_reproducible(suite: str, files: Path, built: Built) -> None:
    """Elsewhere, for another user's language and clock, and without the tests, the same octets come out."""
    environment = {"DEB_BUILD_OPTIONS": "nocheck", "LC_ALL": "C", "TZ": "Pacific/Kiritimati", "HOME": "/nonexistent"}
    again = build_in(f"{suite}-build", files, environment=environment, place="/elsewhere/again")
    same = (".deb", ".dsc", ".orig.tar.gz", ".debian.tar.xz")
    assert [name for name in again.files if name.endswith(same) and again.files[name] != built.files[name]] == []
    assert len([name for name in again.files if name.endswith(same)]) == len(same) + 3  # There are four packages.


def test_the_units_are_where_the_release_has_them(suite: str, builder: Root, built: Built) -> None:
    folder = "./lib" if suite == "bookworm" else "./usr/lib"
    listed = builder.run("dpkg-deb", "--contents", f"{BUILD}/{built.deb}").splitlines()
    units = sorted(line.split()[-1] for line in listed if re.search(r"\.(service|socket)$", line))
    names = ("-chroot.service", "-chroot.socket", "-metrics.service", "-metrics.socket", ".service", ".socket")
    assert units == [f"{folder}/systemd/system/postfix-mtasts{name}" for name in names]


@pytest.mark.parametrize("theirs", [EXIM, POSTFIX], ids=lambda server: str(server.package))
@installing
def test_the_mail_server_that_is_there_is_as_before(fresh: Root, built: Built, theirs: MailServer) -> None:
    put(theirs, fresh)
    (fresh.path / "etc/apt/apt.conf.d/lean").unlink()
    before = state(fresh)
    install(fresh, f"/tmp/packages/{built.deb}")
    assert "installed" in fresh.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "postfix-mtasts")
    assert state(fresh) == before


def test_the_profile_is_understood(builder: Root, built: Built) -> None:
    profile = f"{BUILD}/postfix-mtasts/debian/apparmor/usr.sbin.postfix-mtasts-daemon"
    builder.run("apparmor_parser", "--skip-kernel-load", "--skip-cache", "--quiet", profile)


@installing
def test_the_units_are_understood_and_the_service_is_locked_up(installed: Root, built: Built) -> None:
    debs = {name: f"/tmp/packages/{file}" for name, file in built.debs.items()}
    publishing = debs.pop("postfix-mtasts-publish")
    install(installed, *debs.values())
    install(installed, "--no-install-recommends", publishing)  # A web server is not at hand.
    web = "postfix-mtasts-web.service"
    helpers = [f"postfix-mtasts-web-{name}{kind}" for name in HELPERS for kind in ("@.service", ".socket")]
    service, reports = "postfix-mtasts.service", [f"postfix-mtasts-reports@{name}.service" for name in REPORTS]
    publish = ["postfix-mtasts-publish.service", "postfix-mtasts-publish-check.service"]
    others = (f"postfix-mtasts-{name}.{kind}" for name in ("chroot", "metrics") for kind in ("socket", "service"))
    units = (service, "postfix-mtasts.socket", *others)
    timers = [*(f"postfix-mtasts-reports-{name}.timer" for name in REPORTS), "postfix-mtasts-publish-check.timer"]
    verified = installed.run(
        "systemd-analyze", "verify", "--man=no", *units, *reports, *publish, *timers, web, *helpers
    )
    assert verified == ""
    for one in (service, *publish):
        installed.run("systemd-analyze", "security", "--offline=true", "--threshold=12", one)
    installed.run("systemd-analyze", "security", "--offline=true", "--threshold=15", web)
    for one in helpers[::2]:
        installed.run("systemd-analyze", "security", "--offline=true", "--threshold=12", one)
    # They may not have user namespaces, which would take away the group that may hand over mails.
    for one in reports:
        installed.run("systemd-analyze", "security", "--offline=true", "--threshold=20", one)


def test_the_timer_of_publish_is_started_and_its_service_is_not(builder: Root, built: Built) -> None:
    builder.run("dpkg-deb", "--control", f"{BUILD}/{built.debs['postfix-mtasts-publish']}", "/tmp/of-publish")
    script = (builder.path / "tmp/of-publish/postinst").read_text()
    assert re.findall(r"deb-systemd-invoke \S+ (.*?) >", script.replace("'", "")) == [
        "postfix-mtasts-publish.service",
        "postfix-mtasts-publish-check.timer",
    ]


def test_an_upgrade_restarts_a_dashboard_that_runs_and_nothing_else_starts_it(builder: Root, built: Built) -> None:
    builder.run("dpkg-deb", "--control", f"{BUILD}/{built.debs['postfix-mtasts-web']}", "/tmp/of-web")
    script = (builder.path / "tmp/of-web/postinst").read_text()
    assert re.findall(r"deb-systemd-invoke (\S+ \S+)", script.replace("'", "")) == [
        "try-restart postfix-mtasts-web.service"
    ]
    # An installation enables it only if it was enabled when it was removed.
    assert re.findall(r"^\t?if (deb-systemd-helper \S+)", script, re.MULTILINE) == [
        "deb-systemd-helper debian-installed"
    ]


def test_an_upgrade_restarts_the_service_and_leaves_its_sockets_alone(suite: str, builder: Root, built: Built) -> None:
    builder.run("dpkg-deb", "--control", f"{BUILD}/{built.deb}", "/tmp/control")
    scripts = {file.name: file.read_text() for file in (builder.path / "tmp/control").iterdir()}
    invoked = [
        (name, action, units.replace("'", ""))
        for name, script in sorted(scripts.items())
        for action, units in re.findall(r"deb-systemd-invoke (\S+) (.*?) >", script)
    ]
    assert invoked == [
        ("postinst", "start", "postfix-mtasts.socket"),  # Does nothing if it is there.
        ("postinst", "$_dh_action", "postfix-mtasts.service"),
        ("prerm", "stop", "postfix-mtasts.socket postfix-mtasts-chroot.socket postfix-mtasts-metrics.socket"),
        ("prerm", "stop", "postfix-mtasts.service"),
        # Debian 14 also stops a unit that the package does not start.
        *(
            [
                ("prerm", "stop", "postfix-mtasts-metrics.service postfix-mtasts-metrics.socket"),
                ("prerm", "stop", "postfix-mtasts-chroot.service postfix-mtasts-chroot.socket"),
            ]
            if suite == "forky"
            else []
        ),
        ("prerm", "stop", "postfix-mtasts.socket"),
    ]
    conditions = re.findall(r"^if (?=.*systemd)(.*)$", scripts["prerm"], flags=re.MULTILINE)
    assert [condition for condition in conditions if '"$1" = remove ]' not in condition] == []
    assert len(conditions) == len([one for one in invoked if one[0] == "prerm"])


@installing
def test_one_line_and_mail_is_verified_or_deferred(installed: Root, built: Built) -> None:
    assert run_test(installed, "delivery", built).splitlines()[-1] == "delivery: passed"


@installing
def test_each_example_works_with_the_units(fresh: Root, built: Built) -> None:
    assert "\nexamples: passed\n" in run_test(fresh, "examples", built)


@installing
def test_reports_come_in_and_are_told_of_and_a_purge_leaves_nothing(fresh: Root, built: Built) -> None:
    assert run_test(fresh, "reports", built).splitlines()[-1] == "reports: passed"


@installing
def test_a_policy_is_published_as_root_says_and_a_purge_leaves_nothing(fresh: Root, built: Built) -> None:
    assert run_test(fresh, "publish", built).splitlines()[-1] == "publish: passed"


@installing
def test_the_dashboard_looks_and_its_helpers_change_and_mail_goes_on_without_it(fresh: Root, built: Built) -> None:
    assert run_test(fresh, "web", built).splitlines()[-1] == "web: passed"


@installing
def test_an_upgrade_and_a_removal_keep_the_cache_and_a_purge_leaves_nothing(fresh: Root, built: Built) -> None:
    renamed(fresh, built, LATER).put(fresh.path / "tmp/packages")
    said = run_test(fresh, "lifecycle", built, **{DEB: f"/tmp/packages/postfix-mtasts_{LATER}_all.deb"})
    assert f"postfix-mtasts\t{LATER}\n" in said
    assert said.splitlines()[-1] == "lifecycle: passed"


@installing
def test_beside_the_resolver_it_says_what_to_do(fresh: Root, built: Built) -> None:
    run_test(fresh, "beside-resolver", built, **{DEB: f"/tmp/packages/{built.deb}"})


@installing
def test_the_unit_tests_pass_as_installed(installed: Root, built: Built) -> None:
    assert re.search(r"^=+ \d+ passed in ", run_test(installed, "unit", built), flags=re.MULTILINE)
