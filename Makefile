# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets.

CC ?= gcc
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
SAN ?=
V ?=

VERSION := 0.1.0
ARCH := $(shell uname -m)

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu11 $(WARN) -D_GNU_SOURCE -DMVM_VERSION='"$(VERSION)"' -I. -MMD -MP \
	-fno-strict-aliasing -fstack-protector-strong -fvisibility=hidden -pthread $(CFLAGS) $(SANFLAGS)
ALL_LDFLAGS = -pthread -Wl,--as-needed -Wl,-O1 -Wl,--gc-sections $(LDFLAGS) $(SANFLAGS)
LIBS := -laio -lz -ljansson
HEADERS := libaio.h zlib.h jansson.h
MUSL_CC ?= musl-gcc

ifneq ($(SAN),)
SAN_THREAD := $(findstring thread,$(SAN))
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
# gcc's does not see fences, and says so; clang does not know the warning.
SANFLAGS += $(if $(SAN_THREAD),-Wno-tsan -Wno-unknown-warning-option)
BUILD := $(BUILD)-$(if $(SAN_THREAD),tsan,san)
endif

# Another architecture's files stay out: they end in its name.
OTHER := $(if $(filter x86_64,$(ARCH)),%_aarch64.c,%_x86_64.c)
SRCS := $(filter-out $(OTHER),$(wildcard vmm/*.c devices/*.c virtio/*.c boot/*.c))
OBJS := $(SRCS:%.c=$(BUILD)/%.o) $(BUILD)/boot/guest_init.o
LIB := $(BUILD)/libmvm.a
UNITS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

# As many jobs as processors, unless the user says how many.
JOBS = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2);)

.PHONY: all
all: $(BUILD)/mvm ## the VMM and the guest's init

# Changes when the compiler or its flags do; everything compiled depends on it.
$(BUILD)/flags: export FLAGS = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIBS) $(MUSL_CC)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$FLAGS" | cmp -s - $@ || { $(check_tools); printf '%s\n' "$$FLAGS" >$@; }

advice := is missing: run make deps (as root)
define check_tools
for tool in $(firstword $(CC)) $(firstword $(MUSL_CC)); do \
	command -v $$tool >/dev/null || { echo "$$tool $(advice)" >&2; exit 1; }; done; \
for header in $(HEADERS); do \
	echo "#include <$$header>" | $(CC) $(CFLAGS) -E -o /dev/null -x c - 2>/dev/null || \
		{ echo "the header $$header $(advice)" >&2; exit 1; }; done
endef

.PHONY: FORCE
FORCE:

$(BUILD)/mvm: $(BUILD)/vmm/main.o $(LIB)
	$(call say,LD,$@)$(CC) $(ALL_CFLAGS) -o $@ $^ $(ALL_LDFLAGS) $(LIBS)

$(LIB): $(filter-out $(BUILD)/vmm/main.o,$(OBJS))
	$(call say,AR,$@)rm -f $@; $(AR) rcs $@ $^

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# guest/init runs in the guest: static, small, without sanitizers.
$(BUILD)/guest/init: $(wildcard guest/*.c guest/*.h) $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,MUSL,$@)$(MUSL_CC) -std=gnu11 -Os $(WARN) -D_GNU_SOURCE -static -s -I. \
		-ffunction-sections -fdata-sections -Wl,--gc-sections -o $@ $(filter %.c,$^)

$(BUILD)/boot/guest_init.o: boot/guest_init.S $(BUILD)/guest/init
	@mkdir -p $(@D)
	$(call say,AS,$<)$(CC) -c -DINIT_PATH='"$(BUILD)/guest/init"' -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,UNIT,$@)$(CC) $(ALL_CFLAGS) -o $@ $< $(LIB) $(ALL_LDFLAGS) $(LIBS) -lcmocka

.PHONY: units
units: $(UNITS) ## the unit tests' programs

# ---------------------------------------------------------------- targets

DEPS = tools/deps

.PHONY: deps
deps: ## install what building, testing and the demo need (Debian, Ubuntu; root)
	@$(DEPS) build test

.PHONY: demo
demo: ## boot a stock Debian kernel from a disk image to a shell, and show the boot timeline
	@$(DEPS) build test
	@$(MAKE) --no-print-directory $(JOBS) all
	@BUILD=$(BUILD) tools/demo

.PHONY: test
test: ## all tests; on a host without hardware KVM the boots run in a nested host
	@$(DEPS) build test lint
	@$(MAKE) --no-print-directory $(JOBS) all units payload
	@$(MAKE) --no-print-directory $(JOBS) SAN=address,undefined all units payload
	@tests/run.py --build $(abspath $(BUILD))

.PHONY: soak
soak: ## the long loads
	@$(DEPS) build test
	@$(MAKE) --no-print-directory $(JOBS) all payload
	@tests/run.py --build $(abspath $(BUILD)) soak

.PHONY: bench
bench: ## side by side with QEMU; prints the tables of tests/bench/README.md
	@$(DEPS) build test
	@$(MAKE) --no-print-directory $(JOBS) all
	@tests/bench/run.py --build $(abspath $(BUILD))

# Freestanding guests for the native tests.
PAYLOADS := $(patsubst tests/native/payload/%.c,$(BUILD)/payload/%.elf,$(wildcard tests/native/payload/guest_*.c))
PAYLOAD_SRCS := $(filter-out tests/native/payload/guest_%,$(wildcard tests/native/payload/*.c tests/native/payload/*.S))
PAYLOAD_CFLAGS := -std=gnu11 -O1 $(WARN) -I. -ffreestanding -nostdlib -static -fno-pie -no-pie \
	-mno-red-zone -mgeneral-regs-only -mcmodel=kernel -fno-stack-protector -fno-asynchronous-unwind-tables \
	-Wl,-n -Wl,--build-id=none -Wl,-T,tests/native/payload/payload.ld

.PHONY: payload
payload: $(PAYLOADS) ## the native tests' guests

$(BUILD)/payload/%.elf: tests/native/payload/%.c $(PAYLOAD_SRCS) $(wildcard tests/native/payload/*.h tests/native/payload/*.ld)
	@mkdir -p $(@D)
	$(call say,GUEST,$@)gcc $(PAYLOAD_CFLAGS) -o $@ $< $(PAYLOAD_SRCS)

# Fuzzing needs clang; each target runs FUZZ_SECONDS on the corpus in build-fuzz/corpus.
FUZZ_SECONDS ?= 60
FUZZ_CC ?= clang
FUZZ_BUILD := build-fuzz
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZ_SECONDS (60)
	@$(DEPS) build lint
	@$(MAKE) --no-print-directory $(JOBS) CC=$(FUZZ_CC) BUILD=$(FUZZ_BUILD) \
		CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined' \
		fuzzers
	@tests/fuzz/run.sh $(FUZZ_BUILD) $(FUZZ_SECONDS)

.PHONY: fuzzers
fuzzers: $(FUZZERS)

$(BUILD)/fuzz/%: tests/fuzz/%.c $(LIB)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $< $(LIB) $(ALL_LDFLAGS) $(LIBS)

.PHONY: coverage
coverage: ## line coverage of the unit and native tests (gcovr)
	@$(DEPS) build test lint
	@$(MAKE) --no-print-directory $(JOBS) BUILD=build-cov CFLAGS='-O0 -g --coverage' LDFLAGS=--coverage all units payload
	@find build-cov -name '*.gcda' -delete
	@GCOV_ERROR_FILE=/dev/null tests/run.py --build $(abspath build-cov) unit native
	@gcovr -r . --object-directory build-cov -e tests --gcov-ignore-parse-errors -s | tee build-cov/coverage.txt

C_FILES = $(shell find boot devices guest tests tools virtio vmm -name '*.[ch]')
SCRIPTS = $(shell grep -rlE '^\#!.*(bash|sh)$$' .ci tests tools)
.PHONY: lint
lint: ## clang-format, cppcheck, shellcheck
	@$(DEPS) build lint
	@$(MAKE) --no-print-directory lint-format lint-cppcheck lint-shellcheck
	@echo 'lint: clean'

# The parts; tests/run.py calls them one by one.
.PHONY: lint-format lint-cppcheck lint-shellcheck
lint-format:
	@clang-format --dry-run -Werror $(C_FILES)

lint-cppcheck:
	@cppcheck -q --std=c11 --error-exitcode=1 --inline-suppr \
		--enable=warning,portability -I. -DINIT_PATH= $(filter-out tests/%,$(filter %.c,$(C_FILES)))

lint-shellcheck:
	@shellcheck $(SCRIPTS)

.PHONY: install
install: all ## install mvm, its manual page and licence below DESTDIR/PREFIX
	install -D -m 755 -s $(BUILD)/mvm $(DESTDIR)$(PREFIX)/bin/mvm
	install -D -m 644 vmm/mvm.1 $(DESTDIR)$(PREFIX)/share/man/man1/mvm.1
	install -D -m 644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/mvm/LICENSE

.PHONY: uninstall
uninstall: ## remove what install put there
	rm -rf $(addprefix $(DESTDIR)$(PREFIX)/,bin/mvm share/man/man1/mvm.1 share/doc/mvm)

.PHONY: size
size: $(BUILD)/mvm ## bytes of the stripped binary
	@strip -o $(BUILD)/mvm.stripped $< && stat -c '%s bytes stripped' $(BUILD)/mvm.stripped

.PHONY: clean
clean: ## remove what was built: build and build-*
	rm -rf build build-*

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'
	@echo
	@echo '  CC=gcc|clang  SAN=address,undefined|thread  BUILD=DIR  V=1  DESTDIR= PREFIX='

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
