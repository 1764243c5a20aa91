SHELL := /bin/bash
.DEFAULT_GOAL := help

CONFIG ?=
config_flags = $(foreach file,$(CONFIG),--config $(file))
BINARY = target/release/coupon-svc

export CONFIG SEED MINUTES DESTDIR PREFIX SYSCONFDIR UNITDIR

SECONDS ?= 60
STAGE ?= single

.PHONY: help run test check fmt fuzz burst loadtest bench growth chaos overload limiter audit stack-up stack-down stack-status stack-wipe \
	install uninstall install-check rolling-upgrade \
	topologies image stage stage-down stage-status operators-day dashboards dashboards-check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables: CONFIG="FILE..." (run, burst, audit), KEEP_STACK=1 (test), DB=mariadb and STACK_MODE=native (stack-up, test),\n'
	@printf 'STAGE (stage), SEED and MINUTES (chaos), DESTDIR and PREFIX (install), BASE_URLS, USERS, STOCK, IDENTITY (burst), those of loadtest/README.md (loadtest); the scripts in scripts/ name the rest.\n'

run: ## build and start the service on its embedded parts (or on CONFIG)
	cargo build --release
	$(BINARY) $(config_flags)

test: ## start the local stack, run every test, stop what was started
	@scripts/test.sh

check: ## formatting, lints and documentation, all without a warning; compose files and dashboards are what their descriptions say
	@python3 -B scripts/topology check
	@python3 -B -m unittest discover -q -s scripts/topology
	@python3 -B scripts/dashboards check
	@python3 -B -m unittest discover -q -s scripts/dashboards/live
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --all-features --no-deps --document-private-items

fmt: ## format the sources
	cargo fmt

fuzz: ## fuzz the record codec and the rule for SECONDS (60); installs cargo-fuzz when missing
	@scripts/fuzz.sh "$(SECONDS)"

burst: ## 10,000 users at one instant for 1,000 coupons, against a running service (k6)
	@scripts/burst.sh

bench: ## how fast, as ratios to ceilings of the same run: ROUNDS=5 ONLY=embedded,distributed,drained,drain,gate
	@scripts/bench.sh

growth: ## what a request costs and a coupon weighs as holders, coupons, APIs and consumers grow
	@ONLY=growth scripts/bench.sh

loadtest: ## a crowd with a report and plots: SCENARIO=burst|ramp|soak|repeat-storm|soldout-storm|restock|mixed STACK=embedded|distributed, or STAGE=single|split|split-db|scaled|ha|ha-two-brokers
	@$(if $(filter file,$(origin STAGE)),scripts/loadtest.sh,scripts/loadtest-stage.sh "$(STAGE)")

chaos: ## the promise under faults: SEED=1 MINUTES=10; exit code 1 on a violation
	@scripts/chaos.sh

overload: ## a crowd that never stops at twice the capacity, one server after another away: MINUTES=5
	@OVERLOAD=1 MINUTES=$${MINUTES:-5} scripts/chaos.sh

limiter: ## an adaptive limit beside a fixed one while the database slows down to a tenth and recovers: CSV and plot in target/limiter
	@scripts/limiter-demo.sh

audit: $(BINARY) ## recompute everything from the journal and compare it with the ledger
	$(BINARY) audit $(config_flags)

$(BINARY):
	cargo build --release

stack-up: ## start Redis, Kafka and MySQL on loopback ports
	@scripts/stack.sh up

stack-down: ## stop what stack-up started; data stays
	@scripts/stack.sh down

stack-status: ## what runs, where, which version
	@scripts/stack.sh status

stack-wipe: ## stop the stack and delete its data
	@scripts/stack.sh wipe

install: ## put the release build, its units and examples on this host: DESTDIR= PREFIX=/usr/local; keeps what is in /etc/coupon-svc
	@scripts/install.sh install

uninstall: ## take them away again; /etc/coupon-svc stays
	@scripts/install.sh uninstall

install-check: ## try install and uninstall in a temporary folder, and let systemd read the units
	@scripts/install-check.sh

rolling-upgrade: ## restart a consumer and two APIs behind nginx, one after another, under a steady load; exit code 1 if a request is lost
	@scripts/rolling-upgrade.sh

topologies: ## make docker/compose/*.yaml of docker/topologies/*.toml and config/stages/*.toml
	@python3 -B scripts/topology compose

dashboards: ## make dashboards/grafana/*.json of dashboards/panels/*.toml
	@python3 -B scripts/dashboards make

dashboards-check: ## ask a real Prometheus, which watches a load, every query of the dashboards, rules and alerts
	@scripts/dashboards-check.sh

image: ## build the service's container image (needs Docker)
	docker build -f docker/Dockerfile -t coupon-svc:$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1) .

stage: ## start a deployment stage natively, a namespace for each host: STAGE=single|split|split-db|scaled|ha|ha-two-brokers
	@scripts/stage.sh up "$(STAGE)"

stage-down: ## end what `make stage` started; logs and data stay until the next stage
	@scripts/stage.sh down

operators-day: ## carry out docs/operators-day.md command by command, on the stage ha
	@scripts/operators-day.sh

stage-status: ## what of the stage runs where, and how much memory it uses
	@scripts/stage.sh status
