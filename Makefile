.PHONY: help build static install deb fresh-debian demo demo-without-rsync man test librarian wrappers big-table long-table latency benchmarks fleet fleet-galera node-away night beside-socs monitor-load beside-monitor faults soak power-cut fuzz deny sbom reproducible miri avx512 lint structure

PREFIX ?= /usr/local
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# In CI only what is wrong, and with the features of the tests, which are built there already.
QUIET := $(if $(CI),--quiet)
PROGRAMS := $(if $(CI),--workspace --bins --tests,--bins --package pysmurf-archiver --package demo)
DEMO = $${CARGO_TARGET_DIR:-target}/debug/demo

fleet: ## 100,000 rows of 40 sources, three archivers, one killed every 5 s: each row once; then rows a second of 1, 2 and 4
	scripts/install-missing
	scripts/release
	scripts/fleet --compare 1,2,4

node-away: ## A storage node of two is away for SECONDS (300) while rows come, and comes back with an empty disk: both complete, nothing deleted early
	ARCHIVER_AWAY=$(or $(SECONDS),300) cargo test $(QUIET) --locked --workspace --test archiver away_and_then_wiped -- --nocapture

fleet-galera: ## The same in a Galera cluster of three that loses nodes and connections; its state goes by our own rsync
	scripts/install-missing --peers
	scripts/release
	scripts/fleet --galera

benchmarks: ## The tables of BENCHMARKS.md measured anew, on a machine that does nothing else: an hour or two
	scripts/install-missing
	scripts/release
	scripts/benchmarks

help: ## What there is to make
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 26

build: ## The program, optimised: target/release/pysmurf-archiver
	scripts/install-missing
	scripts/release

static: ## The program for machines of its kind without any library: target/<kind of machine>/release/pysmurf-archiver
	scripts/install-missing
	RUSTFLAGS="-C target-feature=+crt-static" scripts/release --features static --target $(HOST)
	scripts/is-static target/$(HOST)/release/pysmurf-archiver

install: ## The program with unit, manual pages and completions on this machine, below PREFIX (/usr/local)
	$(MAKE) build
	scripts/install-files target/release/pysmurf-archiver "$(DESTDIR)" "$(PREFIX)"

deb: ## A package for Debian, with unit, account, manual pages and completions: target/deb
	scripts/install-missing
	scripts/deb

fresh-debian: ## The package installed in a bare Debian, docs/first-steps.md typed there, and the package removed; as root
	scripts/install-missing
	scripts/fresh-debian

demo: ## Copies a whole tree through SSH on this machine and proves it
	scripts/install-missing
	cargo build $(QUIET) --locked $(PROGRAMS)
	$(DEMO) $(DEMO_FLAGS)

demo-without-rsync: ## The same with a storage node that has no rsync: our own uploaded, then by SFTP alone
	scripts/install-missing
	cargo build $(QUIET) --locked $(PROGRAMS)
	$(DEMO) --size 60 --no-rsync bootstrap $(DEMO_FLAGS)
	$(DEMO) --size 60 --no-rsync sftp $(DEMO_FLAGS)

man: ## Manual page and completions of the rsync command: target/man
	cargo build --locked --bins
	mkdir -p target/man
	target/debug/pysmurf-archiver rsync --generate man > target/man/rsync.1
	target/debug/pysmurf-archiver rsync --generate bash > target/man/rsync.bash
	target/debug/pysmurf-archiver rsync --generate zsh > target/man/_rsync
	target/debug/pysmurf-archiver rsync --generate fish > target/man/rsync.fish

test: ## All tests; installs the servers they need where it may
	scripts/test

librarian: ## Tests of integrations/librarian; with LIBRARIAN_SRC=TREE against the genuine Librarian, too
	scripts/librarian

wrappers: ## Test suites of programs that call rsync, with ours in the place of stock; as root
	cargo build $(QUIET) --locked $(PROGRAMS)
	scripts/wrappers

big-table: ## How long a new file waits beside two million rows, five thousand of them due for deletion
	scripts/release
	scripts/big-table --db sqlite
	scripts/big-table --db mariadb

long-table: ## How long what a run asks time and again takes beside five million rows, while ten write: SQLite, MariaDB
	ARCHIVER_LONG_TABLE=5000000 cargo test --release --test archiver duties_ask_a_long_table -- --nocapture --test-threads 1

latency: ## How long a row takes from its INSERT to the proof of its copy
	scripts/release
	scripts/latency --db sqlite
	scripts/latency --db mariadb

night: ## A night with troubles, and what status, metrics, log and alerts said of each and when: target/night/report.md; as root
	scripts/release
	scripts/night --db sqlite
	scripts/night --db mariadb
	cat target/night/sqlite.md target/night/mariadb.md > target/night/report.md

monitor-load: ## 2,000 messages a second for a minute and bursts of 10,000, with the database locked and the process killed
	ARCHIVER_SLOW=1 cargo test $(QUIET) --locked --test archiver no_message_is_lost_or_doubled_under_load -- --nocapture

beside-monitor: ## Each datagram to the genuine monitor of socs 0.6.4 and to ours: equal rows
	cargo build $(QUIET) --locked --bins
	scripts/beside-monitor target/debug/pysmurf-archiver

beside-socs: ## Turns with the genuine SupRsync of socs on one database, under load: nothing copied twice, equal statistics
	cargo build $(QUIET) --locked --bin pysmurf-archiver
	scripts/beside-socs --program target/debug/pysmurf-archiver

faults: ## Whatever befalls links and processes, by every road, three times MINUTES (10) from SEED: tables of runs, hangs and what was wrong
	ARCHIVER_FAULTS=$(or $(MINUTES),10) ARCHIVER_SEED=$(SEED) cargo test $(QUIET) --locked --workspace --test archiver faults:: -- --nocapture
	ARCHIVER_FAULTS=$(or $(MINUTES),10) cargo test $(QUIET) --locked --workspace --test archiver cuts:: -- --nocapture
	ARCHIVER_FAULTS=1 cargo test $(QUIET) --locked --workspace --test rsync cut_at_bytes -- --nocapture
	ARCHIVER_FAULTS=$(or $(MINUTES),10) ARCHIVER_SEED=$(SEED) cargo test $(QUIET) --locked --workspace --test agent faults:: -- --nocapture

soak: ## Two archivers, a producer, and whatever befalls them for MINUTES (30) from SEED: rows lost, wrong, twice, hangs; ROWS=1000000: small files, and memory
	ARCHIVER_SOAK=$(or $(MINUTES),30) ARCHIVER_SOAK_ROWS=$(ROWS) ARCHIVER_SEED=$(SEED) cargo test $(QUIET) --locked --workspace --test archiver soak:: -- --nocapture

power-cut: ## A storage node that loses power at POINTS (2000) moments from SEED, by every road, on FS (ext4 and XFS): rows that lost their file; as root
	ARCHIVER_POINTS=$(or $(POINTS),2000) ARCHIVER_SEED=$(SEED) ARCHIVER_FS=$(FS) cargo test $(QUIET) --locked --workspace --test archiver power:: -- --nocapture

fuzz: ## What peers may send, made up by libFuzzer for each decoder and machine, a minute each; FUZZ="--seconds 340" for an hour
	scripts/fuzz $(FUZZ)

# Miri asks the compiler and not the machine for vectors; of AVX-512 it knows too little.
miri: ## The one unsafe file under Miri, which sees undefined behaviour; takes the nightly compiler
	rustup toolchain install nightly --profile minimal --component miri,rust-src
	RUSTFLAGS="-C target-feature=+avx2,+bmi1,+bmi2" cargo +nightly miri test --locked --package protocol --lib --target-dir target/miri simd

avx512: ## The protocol's tests in an emulated processor with AVX-512, for machines that have none
	scripts/emulated-avx512

deny: ## Licences, sources and doubles of what is built in, by deny.toml; weaknesses too where RustSec's database can be had
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny --locked check bans licenses sources
	if cargo deny --locked fetch db; then cargo deny --locked check --disable-fetch advisories; else echo "Weaknesses were not asked for: no database"; fi

sbom: ## What the program is built of, for those who compare it with known weaknesses: target/sbom.cdx.json
	cargo cyclonedx --version >/dev/null 2>&1 || cargo install --locked cargo-cyclonedx
	mkdir -p target
	scripts/sbom target/sbom.cdx.json

reproducible: ## Two builds of what is committed, in two folders: the same bytes
	scripts/install-missing
	scripts/reproducible

lint: ## Format, lints, documentation, what the house is like
	cargo fmt --all --check
	scripts/structure --check
	cargo clippy $(QUIET) --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(QUIET) --locked --workspace --no-deps

structure: ## Import circles, names with several meanings, long functions, bare bools: what the house is like
	@scripts/structure
