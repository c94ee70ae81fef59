"""contrib/nginx with certbot, and contrib/apache with mod_md: the real servers check them, get a certificate from
pebble, and serve a policy in which `check` finds nothing wrong.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.publish.conftest import NAMESERVER, WEB, FileServer, Place
from tests.world.ca import Ca
from tests.world.dns import DnsServer
from tests.world.postfix import TMP
from tests.world.servers import ACME, ROOT, lacking, pebble, running

CONTRIB = Path(__file__).parents[3] / "contrib"
DOMAIN = "example.test"
HOST = f"mta-sts.{DOMAIN}"
DAYS_30 = 30 * 86_400

pytestmark = pytest.mark.timeout(300)

NGINX = """daemon off; user root; pid FOLDER/nginx.pid; worker_processes 1;
events { }
http {
    access_log off;
    client_body_temp_path FOLDER/temp; proxy_temp_path FOLDER/temp; fastcgi_temp_path FOLDER/temp;
    uwsgi_temp_path FOLDER/temp; scgi_temp_path FOLDER/temp;
    include FOLDER/conf.d/*.conf;
}
"""
MODULES = ("mpm_event", "authz_core", "macro", "md", "ssl")
APACHE = """ServerRoot FOLDER
DefaultRuntimeDir FOLDER
PidFile FOLDER/apache.pid
ErrorLog FOLDER/apache.log
Mutex file:FOLDER default
User www-data
Group www-data
ServerName web.test
ServerAdmin postmaster@web.test
Listen 80
Listen 443
MDStoreDir FOLDER/md
MDCertificateAuthority ACME
MDCACertificateFile FOLDER/ca.pem
Include FOLDER/mta-sts.conf
"""


@pytest.fixture
def place(namespace: None) -> Iterator[Place]:
    """A published domain, whose policy host nobody serves yet, and a CA; its folder may be read by every user."""
    if why := lacking("pebble", "nginx", "certbot", "apache2"):
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="postfix-mtasts-", dir=TMP) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        ca = Ca(folder)
        dns = stack.enter_context(DnsServer(NAMESERVER, 53))
        made = Place(folder, ca, dns, FileServer(WEB, folder / "policies", ca), stack)
        stack.enter_context(ROOT.mounted())
        root = stack.enter_context(pebble(folder, ca, NAMESERVER, DAYS_30))
        made.ca_file = folder / "both.pem"
        made.ca_file.write_bytes(ca.file.read_bytes() + root)
        made.configure()
        made.mx(DOMAIN)
        assert made.run("add", DOMAIN).returncode == 0
        made.customer(DOMAIN)
        made.load_zone()
        yield made


def ours(place: Place, file: str) -> str:
    """A file of contrib, for this place."""
    text = (CONTRIB / file).read_text().replace("example.com", DOMAIN)
    for theirs, here in (
        ("/var/lib/postfix-mtasts-publish/policies", "policies"),
        ("/etc/letsencrypt", "letsencrypt"),
        ("/var/www/html", "www"),
    ):
        text = text.replace(theirs, f"{place.folder}/{here}")
    return text


def checked(*words: str) -> str:
    """What a command in the root says, which succeeds."""
    command = ROOT.command(*words)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def is_served(place: Place) -> None:
    """A sender sees what is published: at first the file, then the record too."""
    place.json("check", DOMAIN)
    place.load_zone()
    found = place.json("check", DOMAIN)
    assert (found["remarks"], found["waits"], found["id_in_dns"]) == ([], [], True)


def test_nginx_and_certbot(place: Place) -> None:
    folder = place.folder
    for part in ("conf.d", "temp", "www"):
        (folder / part).mkdir()
    (folder / "nginx.conf").write_text(NGINX.replace("FOLDER", str(folder)))
    nginx = ("nginx", "-e", "stderr", "-c", f"{folder}/nginx.conf")
    (folder / "conf.d/mta-sts.conf").write_text(ours(place, "nginx/mta-sts.conf"))
    assert "syntax is ok" in checked(*nginx, "-t")
    with running(folder / "nginx.log", *ROOT.command(*nginx)):
        wait_until((folder / "nginx.pid").exists, folder / "nginx.log")
        own = [word for part in ("config", "work", "logs") for word in (f"--{part}-dir", f"{folder}/letsencrypt")]
        asked = ["--webroot", "--webroot-path", f"{folder}/www", "--domain", HOST]
        account = ["--server", ACME, "--agree-tos", "--register-unsafely-without-email", "--non-interactive"]
        checked("env", f"REQUESTS_CA_BUNDLE={place.ca.file}", "certbot", "certonly", *own, *asked, *account)
        (folder / f"conf.d/{HOST}.conf").write_text(ours(place, "nginx/mta-sts.example.com.conf"))
        assert "syntax is ok" in checked(*nginx, "-t")
        checked(*nginx, "-s", "reload")
        wait_until(lambda: connects(WEB, 443), folder / "nginx.log")
        is_served(place)


def test_apache_and_mod_md(place: Place) -> None:
    folder = place.folder
    load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in MODULES)
    text = load + APACHE.replace("FOLDER", str(folder)).replace("ACME", ACME)
    (folder / "apache.conf").write_text(text)
    (folder / "mta-sts.conf").write_text(ours(place, "apache/mta-sts.conf"))
    apache = ("apache2", "-f", f"{folder}/apache.conf")
    assert "Syntax OK" in checked(*apache, "-t")
    log = folder / "apache.log"
    with running(folder / "apache.out", *ROOT.command(*apache, "-D", "FOREGROUND")):
        wait_until(lambda: log.exists() and f"The Managed Domain {HOST} has been setup" in log.read_text(), log)
        checked(*apache, "-k", "graceful")
        wait_until(lambda: log.read_text().count("resuming normal operations") == 2, log)
        is_served(place)


def connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def wait_until(is_so: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)
