# Each target is one command. On a fresh Debian machine `make demo` and `make test` install what they
# need (image-tests/host-packages says what).

EDITION ?= nucleus-lite
KEY     ?= ecc-p256

# The program for the operator's bench, a workspace of its own.
STATION = cd firstboot/station && cargo
# cargo-fuzz's targets. To check them, its fuzzer in C++ need not be built.
FUZZ    = cd firstboot/formats/fuzz && CUSTOM_LIBFUZZER_PATH=none/none.a cargo

.PHONY: demo test layer boot powercut guest sweep fuzz fleet station bench generated lint build clean

# An unprovisioned software TPM becomes a Greengrass identity, and a real TLS client proves it.
#   make demo [EDITION=nucleus-lite|nucleus|v1] [KEY=ecc-p256|rsa-2048]
demo:
	image-tests/host-packages --demo
	cargo build --release --locked
	cd image-tests && cargo run --quiet --locked --bin demo -- $(EDITION) $(KEY)

# Everything, as CI runs it.
test:
	image-tests/host-packages
	$(MAKE) lint
	cargo test --locked
	$(STATION) test --locked
	cargo build --release --locked
	image-tests/guest/build
	$(STATION) build --release --locked
	cd image-tests && cargo test --locked
	image-tests/layer/check

# The Yocto layer and the overlays, checked without a Yocto build.
layer:
	image-tests/host-packages
	image-tests/layer/check

# An arm64 machine in QEMU boots, with a software TPM, Debian 13 and systemd, also with plugs pulled.
boot: guest
	cd image-tests && cargo test --locked --test boot

# Their long form: each cut on a device of its own, and 500 points of each write log. Half an hour.
POINTS ?= 500
powercut: guest
	cd image-tests && POWERCUT=full POINTS=$(POINTS) cargo test --locked --test boot -- --show-output pulled_plugs write_log new_key

guest: build
	image-tests/host-packages
	image-tests/guest/build

# The power is cut at every point of everything: about two hours on two cores. `make test` has a sample.
sweep: build
	image-tests/host-packages
	# wrapped replies are the station's
	$(STATION) build --release --locked
	# --release: each TPM command goes through the proxy
	cd image-tests && cargo run --release --quiet --locked --bin sweep
	cd image-tests && SWEEP=full cargo test --locked --test power_cuts --test faults --test eap_tls

# Property tests of everything that reads the card, with many more cases: about half an hour. CASES=… for
# another number; `make test` has a few hundred of each.
CASES ?= 20000
fuzz:
	image-tests/host-packages
	cd image-tests && PROPTEST_CASES=$(CASES) cargo test --release --locked --test fuzz

# Only fleet provisioning: against a double of AWS IoT Core, end to end and misbehaving, then DEVICES at once, which
# spread their first connections over SPREAD seconds, and renew within WINDOW seconds and a half minute of their own:
# the renewal timer's own hour is compressed. A thousand need about 7 GiB of memory.
DEVICES ?= 1000
SPREAD  ?= 400
WINDOW  ?= 400
fleet: build
	image-tests/host-packages
	cd image-tests && cargo test --locked --test fleet
	cd image-tests && DEVICES=$(DEVICES) SPREAD=$(SPREAD) WINDOW=$(WINDOW) cargo run --quiet --locked --bin fleet_load

# Only the proof that a key is in a TPM: firstboot-station and devices that open its replies, a thousand requests in one
# run, and what it refuses.
station: build
	image-tests/host-packages
	$(STATION) build --release --locked
	cd image-tests && cargo test --locked --test station -- --show-output

# What firstboot costs, beside the recipe that people follow today: one table, and target/bench.json. Five
# minutes on a machine that does nothing else. PAIRS=… and CYCLES=… for other numbers than 7 and 1000; PARTS="ecc idle"
# for some of ecc, rsa, idle, boot, footprint, growth, status.
bench: guest
	image-tests/host-packages --bench
	# --release: each TPM command goes through the proxy
	cd image-tests && cargo run --release --quiet --locked --bin bench

# Generated files in the repository: the recipe's crates, the licence texts of linked crates, manual pages and shell
# completions. Tests say which of them are out of date.
generated:
	image-tests/layer/crates >meta-tpm-greengrass/recipes-tpm-greengrass/firstboot/firstboot-crates.inc
	image-tests/dependencies/notices.py firstboot >firstboot/THIRD-PARTY.txt
	image-tests/dependencies/notices.py firstboot/station >firstboot/station/THIRD-PARTY.txt
	cd image-tests && MANUAL=write cargo test --quiet --locked --test docs manual::pages

lint: export RUSTDOCFLAGS = -D warnings
lint:
	cargo fmt --all --check
	$(STATION) fmt --check
	$(FUZZ) fmt --check
	cd image-tests && cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(STATION) clippy --locked --all-targets -- -D warnings
	$(FUZZ) clippy --locked -- -D warnings
	cd image-tests && cargo clippy --locked --all-targets -- -D warnings
	cargo doc --locked --no-deps
	$(STATION) doc --locked --no-deps
	image-tests/dependencies/check.py
	shellcheck .ci/run image-tests/host-packages image-tests/layer/check
	shellcheck firstboot/conf/bind-tpm firstboot/conf/start-networks
	shellcheck image-tests/guest/build image-tests/guest/fetch image-tests/guest/configure
	shellcheck image-tests/guest/files/usr/lib/stand-in/* image-tests/guest/editions/*/usr/lib/stand-in/*

build:
	cargo build --release --locked

clean:
	cargo clean
