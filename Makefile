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
MUSL_CC ?= musl-gcc

ifneq ($(SAN),)
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
BUILD := $(BUILD)-san
endif

# Another architecture's files stay out: they end in its name.
OTHER := $(if $(filter x86_64,$(ARCH)),%_aarch64.c,%_x86_64.c)
SRCS := $(filter-out $(OTHER),$(wildcard vmm/*.c devices/*.c virtio/*.c boot/*.c))
OBJS := $(SRCS:%.c=$(BUILD)/%.o) $(BUILD)/boot/guest_init.o
LIB := $(BUILD)/libmvm.a
UNITS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2);)

.PHONY: all
all: $(BUILD)/mvm ## the VMM and the guest's init

$(BUILD)/mvm: $(BUILD)/vmm/main.o $(LIB)
	$(call say,LD,$@)$(CC) $(ALL_CFLAGS) -o $@ $^ $(ALL_LDFLAGS) $(LIBS)

$(LIB): $(filter-out $(BUILD)/vmm/main.o,$(OBJS))
	$(call say,AR,$@)rm -f $@; $(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(ALL_CFLAGS) -c -o $@ $<

# guest/init runs in the guest: static, small, without sanitizers.
$(BUILD)/guest/init: $(wildcard guest/*.c guest/*.h)
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
units: $(UNITS)

.PHONY: clean
clean: ## remove what was built
	rm -rf build build-san build-fuzz build-cov

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
