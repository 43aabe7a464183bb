# Everything a developer runs. Each target installs what it needs into .cache, and works as root and as any user.

.PHONY: help build test lint demo torture bench clean-cache

help:
	@echo 'make build    the program, target/release/everpoint'
	@echo 'make test     all tests, on real servers too'
	@echo 'make lint     formatting, lints, shape of the repository'
	@echo 'make demo     two clusters, a disaster, and both brought back'
	@echo 'make torture  long trials: exactness, kill -9, packages, trees, life in place, a full disk, a daemon, the guide on a Debian (root) (COUNT=20 KILLS=50 TREES=480 LIVES=20 MINUTES=30)'
	@echo 'make bench    measurements beside pgBackRest and pg_basebackup (ARGS="--scale 20 --runs 3")'

build:
	@scripts/need-tools
	cargo build --release --locked -p everpoint

test:
	@scripts/test $(ARGS)

lint:
	@scripts/lint

demo: build
	@scripts/install-test-servers 15 18
	@scripts/demo

COUNT ?= 20
KILLS ?= 50
TREES ?= 480
SCHEDULES ?= 1000
MINUTES ?= 30
LIVES ?= 20
LIFE_SEED ?= 1
VERSIONS ?= 13,15,18

torture: build
	@scripts/install-test-servers
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  exactness --count $(COUNT) --version $(VERSIONS) --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  kill9 --count $(KILLS) --version 15 --capture stream,archive,none --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  trees --count $(TREES) --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  calls --count $(KILLS) --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  days --moments 10 --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  days --count 5 --failed 2,3,4 --moments 10 --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  full --megabytes 1024 --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  serve --minutes $(MINUTES) --binary $(CURDIR)/target/release/everpoint
	cargo run --release --locked -p everpoint-testkit --bin everpoint-torture -- \
	  life --seed $(LIFE_SEED) --count $(LIVES) --jobs 2 --results $(CURDIR)/target/life-results.txt \
	  --binary $(CURDIR)/target/release/everpoint
	scripts/debian-trial --binary $(CURDIR)/target/release/everpoint
	EVERPOINT_BUDGET_SCHEDULES=$(SCHEDULES) cargo test --release --locked -p everpoint-app --test offsite_budget

bench: build
	@scripts/install-test-servers 15 18
	@scripts/install-peers
	bench/run $(ARGS)

clean-cache:
	rm -rf .cache
