# make run    start the daemon with its defaults and a cache in your home; postfix-mtasts-query is in .venv/bin
# make test   run everything: linters, types, layers, unit, integration and end-to-end tests; the machine's mail is not touched
# make roots  as root: build small systems of Debian 12, 13 and 14, in which `make test` then tests too
# make bench  as root: measure speed and memory, and compare with a C program that only answers and postfix-mta-sts-resolver
# make advice as root: what doctor advises puts right each Postfix that there is a root of; a quarter of an hour
# make fuzz   search for inputs that break a parser: SECONDS (60) for each parser, two at once
# make soak   judge every answer of a daemon whose world changes for MINUTES (10), and watch its memory
# make fleet  RELAYS (16) share what they know of DOMAINS (5000): each is discovered once, and answered as by a daemon alone
# make fleet-faults  ask relays while their server fails in each way that one can: no answer is wrong, or too late
# make deb    build the Debian package of the files that git knows, as they are now: dist/postfix-mtasts_*.deb
# make vm     as root: boot a Debian of its own with the package, and try what only a whole machine shows; 20 to 90 minutes
# make demo   as root: watch a real Postfix deliver one mail and hold back another
# make demo-web  show the dashboard on made data, on http://127.0.0.1:8463/
# make pictures  take the pictures in docs/images anew, in a real browser
# make clean  remove what these made in the clone, and name what they made elsewhere
# Each target needs some Debian packages. As root, it installs them; otherwise it names them. It removes none.
PYTHON ?= python3
VENV = .venv
# This environment has the library versions of Debian 12, the oldest Debian that the package supports, and runs on asyncio's
# event loop. The other one runs on uvloop's.
OLDEST = .venv-debian12
# What takes minutes, and depends on the versions of libraries only where other tests try it.
SLOW = $(patsubst %,--ignore=tests/integration/%,daemon/test_fleet_sentinels.py query/domain publish/test_caddy.py publish/test_command.py \
	publish/test_told.py publish/test_web_servers.py web/test_proxies.py web/test_ssh.py)
# The files of the tests are shared out among processes, each in a namespace of its own: one more than processors, for tests wait.
pytest = $(1)/bin/python -m pytest --dist loadfile --no-loadscope-reorder --tx '$(shell expr $$(nproc) + 1)*popen//python=tests/namespace $(1)/bin/python'
# The Debian package is built here.
DIST = dist
STATE = $${XDG_STATE_HOME:-$$HOME/.local/state}/postfix-mtasts
ROOTS = $${POSTFIX_MTASTS_ROOTS:-/var/cache/postfix-mtasts/roots}
IMAGES = $${XDG_CACHE_HOME:-$$HOME/.cache}/postfix-mtasts-vm

# What the benchmark compares with, in an environment of its own.
PEER = .venv-peer

.PHONY: run test advice fuzz soak fleet fleet-faults roots lint bench deb source vm demo demo-web pictures clean

run: $(VENV)/.run
	@mkdir -p "$(STATE)"
	@[ -e "$(STATE)/postfix-mtasts.toml" ] || \
		printf '[server]\ncontrol = "%s"\n[cache]\npath = "%s"\n' "$(STATE)/control" "$(STATE)/policies.sqlite" \
		> "$(STATE)/postfix-mtasts.toml"
	@exec $(VENV)/bin/postfix-mtasts-daemon --config "$(STATE)/postfix-mtasts.toml"

# With TESTS=FILES, only these tests are run, once, and nothing is searched for.
test: lint $(if $(TESTS),,$(OLDEST)/.test)
	.ci/need $(if $(TESTS),demo,test)
ifdef TESTS
	tests/namespace $(VENV)/bin/python -m pytest $(TESTS)
else
	$(call pytest,$(OLDEST)) tests/unit tests/integration tests/hostile $(SLOW)
	$(call pytest,$(VENV))
	$(MAKE) fuzz SECONDS=20
endif

advice: $(VENV)/.test
	.ci/need demo
	EVERY_POSTFIX=1 tests/namespace $(VENV)/bin/python -m pytest tests/e2e/test_doctor_advice.py

fuzz: $(VENV)/.fuzz
	$(VENV)/bin/python -m tests.fuzz $(or $(SECONDS),60) $(ONLY)

# timeout(1) sends KILL because unshare(1) ignores other signals. When unshare ends, everything that it started ends too.
soak: $(VENV)/.test
	.ci/need demo
	timeout --foreground --signal=KILL $$(($(or $(MINUTES),10) + 3))m tests/namespace $(VENV)/bin/python -m tests.soak \
		$(or $(MINUTES),10) $(SEED)

fleet: $(VENV)/.test
	.ci/need bench
	timeout --foreground --signal=KILL 15m tests/namespace $(VENV)/bin/python -m tests.soak.fleet $(or $(RELAYS),16) \
		$(or $(DOMAINS),5000)

fleet-faults: $(VENV)/.test
	.ci/need bench
	timeout --foreground --signal=KILL 15m tests/namespace $(VENV)/bin/python -m tests.soak.fleet_faults

roots:
	.ci/need roots
	tests/roots
	tests/package-roots

# The build uses Debian's Python, whatever stands before it in PATH.
deb:
	.ci/need deb
	$(MAKE) --no-print-directory source
	cd $(DIST)/postfix-mtasts && PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage --no-sign

# The source of the Debian package is a tree, and a tarball of all in it that is not in debian/.
source:
	rm -rf $(DIST)
	mkdir -p $(DIST)/postfix-mtasts
	git ls-files -z | tar --create --null --files-from=- | tar --extract --directory=$(DIST)/postfix-mtasts
	version=$$(sed -n '1s/.*(\(.*\)-.*/\1/p' debian/changelog) && time=$$(git log -1 --format=@%ct) && cd $(DIST) && \
	tar --create --exclude=postfix-mtasts/debian --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
		--mtime="$$time" postfix-mtasts | gzip --no-name > postfix-mtasts_$$version.orig.tar.gz

# It ends as soak does.
bench: $(VENV)/.test $(PEER)/.bench
	.ci/need bench
	mkdir -p build
	$(CC) -O2 -Wall -o build/load tests/bench/load.c
	$(CC) -O2 -Wall -o build/limit tests/bench/limit.c
	timeout --foreground --signal=KILL 12m tests/namespace $(VENV)/bin/python -m tests.bench build $(PEER) build/bench.json $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only $(ONLY))

# SUITE is trixie or bookworm; PARTS are the parts that tests/vm/run names.
vm: deb
	.ci/need vm
	tests/vm/run $(or $(SUITE),trixie) $(PARTS)

demo: $(VENV)/.test
	.ci/need demo
	@tests/namespace $(VENV)/bin/python -m tests.demo

demo-web: $(VENV)/.test
	.ci/need demo
	@$(VENV)/bin/python -m tests.demo_web

pictures: $(VENV)/.test
	.ci/need test
	tests/namespace $(VENV)/bin/python -m tests.pictures docs/images

lint: $(VENV)/.test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(VENV)/.run: pyproject.toml
	.ci/need build
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[certificates,speed]'
	@touch $@

$(VENV)/.test: pyproject.toml
	.ci/need build
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[test,speed]'
	@touch $(VENV)/.run $@

$(VENV)/.fuzz: $(VENV)/.test
	$(VENV)/bin/python -m pip install --quiet --editable '.[fuzz]'
	@touch $@

$(OLDEST)/.test: pyproject.toml tests/debian12.txt
	.ci/need build
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --editable '.[test]' --constraint tests/debian12.txt
	@touch $@

$(PEER)/.bench: Makefile
	.ci/need build
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -m pip install --quiet 'postfix-mta-sts-resolver[sqlite,uvloop]'
	@touch $@

# What lies elsewhere may be shared, or be somebody's configuration.
clean:
	rm -rf $(VENV) $(OLDEST) $(PEER) .ci/programs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .grimp_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	@for left in "$(STATE)" "$(ROOTS)" "$(IMAGES)"; do \
		[ ! -e "$$left" ] || echo "left: $$(du -sh "$$left" 2>/dev/null | cut -f 1) in $$left; to remove it: rm -r $$left"; \
	done
	@[ ! -s .ci/installed ] || echo "left: packages that were installed for this; to remove them: apt remove" $$(cat .ci/installed)
