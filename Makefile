# whet: `make` builds ./whet, `make demo` trains a real model, `make test` runs the tests, `make help` lists the rest.

ROOMS   := rl rollout reward datasets kernels
VARIANT ?= plain
BUILD   := build/$(VARIANT)

CC      ?= gcc
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wundef -Werror
CFLAGS  := -std=c11 -D_GNU_SOURCE -O3 -g -fno-math-errno -ffp-contract=off -pthread $(WARN) -I.
LDLIBS  := -lsqlite3 -lz -ljansson -lpcre2-8 -lyaml -lutf8proc -lxxhash -lflint-arb -lflint -lmpfr -lgmp -lseccomp -lm -ldl -lpthread

# Variants of the build, each in a folder of its own: the sanitizers, and every real number as a double.
ifeq ($(VARIANT),asan)
CFLAGS  += -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(VARIANT),double)
CFLAGS  += -DWHET_DOUBLE
endif

SOURCES := $(foreach room,$(ROOMS),$(wildcard $(room)/*.c $(room)/*/*.c))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIBS    := $(foreach room,$(ROOMS),$(BUILD)/lib$(room).a)
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))

.PHONY: all help deps demo test test-all tests-built clean
all: whet

whet: build/plain/whet
	@cp -f $< $@
$(BUILD)/whet: $(BUILD)/rl/main.o $(LIBS)
	$(CC) $(LDFLAGS) -o $@ $< $(LIBS) $(LDLIBS)

# Each room is a static library, linked in the order of the arrows: a wrong arrow does not link.
define room_rule
$(BUILD)/lib$(1).a: $$(filter-out %/main.o,$$(filter $(BUILD)/$(1)/%,$$(OBJECTS)))
	@rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach room,$(ROOMS),$(eval $(call room_rule,$(room))))

# The instruction sets of the CPU back: one file each, chosen at run time.
$(BUILD)/kernels/cpu/avx2.o:   CFLAGS += -mavx2 -mfma
$(BUILD)/kernels/cpu/avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
$(BUILD)/kernels/cpu/dot.o:    CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma

# The Python that runs inside the sandbox is a part of the program (.incbin).
$(BUILD)/reward/sandbox_python.o: $(wildcard reward/*.py)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
# The store's schema, a documented SQL file, becomes a string in the program.
$(BUILD)/rl/schema.inc: rl/schema.sql
	@mkdir -p $(@D)
	@sed 's/[\\"]/\\&/g; s/.*/"&\\n"/' $< > $@
$(BUILD)/rl/store.o: $(BUILD)/rl/schema.inc
$(BUILD)/rl/store.o: CFLAGS += -I$(BUILD)
# tests/test_ROOM_*.c links ROOM and what lies below it, and nothing else.
USES_kernels  := kernels
USES_datasets := datasets kernels
USES_reward   := reward datasets kernels
USES_rollout  := rollout datasets kernels
USES_rl       := rl rollout reward datasets kernels
define test_rule
$(BUILD)/tests/test_$(1)_%: tests/test_$(1)_%.c $(USES_$(1):%=$(BUILD)/lib%.a)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $$@ $$< $(USES_$(1):%=$(BUILD)/lib%.a) -lcmocka $(LDLIBS)
endef
$(foreach room,$(ROOMS),$(eval $(call test_rule,$(room))))
tests-built: $(TESTS)
-include $(OBJECTS:.o=.d) $(TESTS:=.d)

clean:
	rm -rf build whet
