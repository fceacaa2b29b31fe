.PHONY: build demo test lint

build: ## The program, optimised: target/release/pysmurf-archiver
	scripts/install-missing
	cargo build --locked --release

demo: ## Copies a whole tree through SSH on this machine and proves it
	scripts/install-missing
	cargo build --locked --bins --example demo
	cargo run --locked --quiet --example demo -- $(DEMO_FLAGS)

test: ## All tests; installs the servers they need where it may
	scripts/test

lint: ## Format, lints, documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
