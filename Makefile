# whet: `make` builds ./whet, `make demo` trains a real model, `make test` runs the tests, `make help` lists the rest.
# Settings, as in `make demo SEED=2`: SEED and STEPS of the demo; MODEL, a model for demo and tests instead of the one
# that is fetched; PYTHON, one with torch and transformers for test-all; V=1 shows the commands.

ROOMS   := rl rollout reward datasets kernels
VARIANT ?= plain
BUILD   := build/$(VARIANT)
SEED    ?= 1
MODEL   ?= build/model/SmolLM2-135M-Instruct.Q4_1.gguf
PYTHON  ?= build/venv/bin/python

CC      ?= gcc
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wundef -Werror
CFLAGS  := -std=c11 -D_GNU_SOURCE -O3 -g -fno-math-errno -ffp-contract=off -pthread $(WARN) -I.
LDLIBS  := -lsqlite3 -lcurl -lcrypto -lz -ljansson -lpcre2-8 -lyaml -lutf8proc -lxxhash -lflint-arb -lflint -lmpfr -lgmp -lseccomp -lm -ldl -lpthread

# Variants of the build, each in a folder of its own: the sanitizers, and every real number as a double.
ifeq ($(VARIANT),asan)
CFLAGS  += -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(VARIANT),double)
CFLAGS  += -DWHET_DOUBLE
endif

# One job a core, unless this is a make inside a make; commands are shown as one short line each.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif
say = $(if $(V),,@echo "  $(1)";)

# The CUDA back is built where nvcc is found; CUDA=0 leaves it out. CUDA_ARCHS=80 builds one architecture, faster.
NVCC    ?= $(firstword $(wildcard build/nvcc/bin/nvcc /usr/local/cuda/bin/nvcc) $(shell command -v nvcc))
CUDA_ASKED := $(CUDA)
CUDA    ?= $(if $(NVCC),1,0)
ifeq ($(VARIANT),double)
override CUDA := 0
endif
ifeq ($(CUDA),1)
CUDA_HOME  ?= $(patsubst %/bin/,%,$(dir $(NVCC)))
CUDA_ARCHS ?= $(filter 80 86 89 90 100 120,$(patsubst sm_%,%,$(shell $(NVCC) --list-gpu-code)))
# One PTX, that which the tests interpret, is assembled for each architecture and kept for later ones: nothing in the
# kernels asks which it is, and a PTX for each took nvcc twice as long.
CUDA_PTX   := -gencode arch=compute_$(firstword $(CUDA_ARCHS)),code=
GENCODE    := $(foreach a,$(CUDA_ARCHS:%=sm_%) compute_$(firstword $(CUDA_ARCHS)),$(CUDA_PTX)$(a))
NVCCFLAGS  := -std=c++17 -O3 -fmad=false -lineinfo -I. -Werror all-warnings -Xptxas -warn-spills,-Werror \
              -Xcompiler -fno-exceptions,-fno-rtti,-fno-threadsafe-statics
CUDA_LIBS  := -L$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/lib -lcudart_static -lrt
KERNELS    := $(patsubst kernels/cuda/%.cu,build/cuda/%.o,$(wildcard kernels/cuda/*.cu))
endif
# This file says in the build's folder which of the two it is.
CUDA_IS := $(BUILD)/cuda.$(CUDA)
$(CUDA_IS):
	@mkdir -p $(@D) && rm -f $(BUILD)/cuda.? && touch $@
	$(if $(NVCC)$(filter double,$(VARIANT)),,@echo '  no nvcc was found: built without CUDA, for the CPU alone')

SOURCES := $(foreach room,$(ROOMS),$(wildcard $(room)/*.c $(room)/*/*.c))
SOURCES := $(filter-out $(if $(filter 1,$(CUDA)),kernels/cuda/none.c,$(filter-out %/none.c,$(wildcard kernels/cuda/*.c))),$(SOURCES))
ifeq ($(VARIANT),double) # of the upper rooms what test_rl_learn needs
SOURCES := $(filter kernels/% rollout/% $(patsubst %,rl/%.c,backward batch learn loss loss_marks),$(SOURCES))
endif
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o)
LIBS    := $(foreach room,$(ROOMS),$(BUILD)/lib$(room).a)
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))

.PHONY: all help deps nvcc demo test test-all tests-built fuzz bench bench-peers clean
all: whet

help:
	@echo 'make              build ./whet'
	@echo 'make demo         train SmolLM2-135M on sums and products, into demo-run/ (SEED=1, STEPS=40)'
	@echo 'make test         the tests, plain and with sanitizers, in minutes and without a network'
	@echo 'make test-all     these and the long ones: real models, the demo, comparisons with transformers'
	@echo 'make fuzz         fuzz what reads models, templates and answers, FUZZ_SECONDS=300 each (needs clang)'
	@echo 'make bench        how fast this machine samples and trains'
	@echo 'make bench-peers  the same beside llama.cpp, PyTorch and TRL (fetched into build/venv)'
	@echo 'make deps         install what is missing (apt, as root or with sudo); demo and test do it first'
	@echo 'make clean        remove what was built; the fetched model and the Python of test-all stay'

whet: build/plain/whet
	@cp -f $< $@
$(BUILD)/whet: $(BUILD)/rl/main.o $(LIBS)
	$(call say,LD $@)$(CC) $(LDFLAGS) -o $@ $< $(LIBS) $(LDLIBS) $(CUDA_LIBS)

# Each room is a static library, linked in the order of the arrows: a wrong arrow does not link.
define room_rule
$(BUILD)/lib$(1).a: $$(filter-out %/main.o,$$(filter $(BUILD)/$(1)/%,$$(OBJECTS)))
	@rm -f $$@ && ar rcs $$@ $$(filter %.o,$$^)
endef
$(foreach room,$(ROOMS),$(eval $(call room_rule,$(room))))
$(BUILD)/libkernels.a: $(KERNELS) $(CUDA_IS)

# The CUDA kernels, for all variants of the build at once.
build/cuda/%.o: kernels/cuda/%.cu $(wildcard kernels/cuda/*.h) kernels/kernels.h kernels/base.h
	@mkdir -p $(@D)
	$(call say,NVCC $@)$(NVCC) $(NVCCFLAGS) $(GENCODE) -c -o $@ $<
$(BUILD)/kernels/cuda/%.o: CFLAGS += -isystem $(CUDA_HOME)/include

# The instruction sets of the CPU back: one file each, chosen at run time. Tiles are assembly.
AVX512        := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
FOR_avx2      := -mavx2 -mfma
FOR_plain_fma := $(if $(filter asan,$(VARIANT)),,-mavx2) -mfma # at -Og gcc would leave out VZEROUPPER
FOR_avx512    := $(AVX512)
FOR_amx       := $(AVX512) -mavx512bf16
FOR_dot       := $(AVX512) -mavx512bf16
$(foreach path,plain_fma avx2 avx512 amx dot,$(eval $(BUILD)/kernels/cpu/$(path).o: CFLAGS += $(FOR_$(path))))

ifeq ($(VARIANT),asan)
# Plain C: gcc takes half a minute for each at -O1 with the sanitizers; at -O0 the tests take twice as long. UBSan's checks
# of pointers cost a third: the same loops have them on the other paths, and AddressSanitizer looks here, too.
$(patsubst %,$(BUILD)/kernels/cpu/%.o,plain plain_fma amx_plain dot_plain): CFLAGS += -Og -fno-sanitize=null,alignment,object-size,pointer-overflow
# With -O1 alone gcc leaves out VZEROUPPER, and what runs after these without AVX is twenty times as slow.
$(patsubst %,$(BUILD)/kernels/cpu/%.o,avx2 avx512 amx dot): CFLAGS += -fexpensive-optimizations
endif

# The Python that runs inside the sandbox is a part of the program (.incbin).
$(BUILD)/reward/sandbox_python.o: $(wildcard reward/*.py)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC $@)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
# The store's schema, a documented SQL file, becomes a string in the program.
$(BUILD)/rl/schema.inc: rl/schema.sql
	@mkdir -p $(@D)
	@sed 's/[\\"]/\\&/g; s/.*/"&\\n"/' $< > $@
$(BUILD)/rl/store.o: $(BUILD)/rl/schema.inc
$(BUILD)/rl/store.o: CFLAGS += -I$(BUILD)
# tests/ptx: an interpreter of PTX, and stand-ins for cudart (in place of libcudart_static.a) and for cuBLASLt; parts
# of the tests alone. See tests/ptx/ptx.h and standin.h.
PTX_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out %/cudart.c %/streams.c %/cublaslt.c,$(wildcard tests/ptx/*.c)))
$(PTX_OBJECTS): CFLAGS += -O2 -fno-strict-aliasing -mavx2 -mfma -mf16c
$(BUILD)/libptx.a: $(PTX_OBJECTS)
	@rm -f $@ && ar rcs $@ $^
ifeq ($(CUDA),1)
STANDIN := $(BUILD)/libstandin.a $(BUILD)/libcublasLt.so.13 $(patsubst kernels/cuda/%.cu,build/ptx/%.ptx,$(wildcard kernels/cuda/*.cu))
# How a program is linked with the stand-ins: the library whole, and visible to the stand-in for cuBLASLt.
STANDIN_LINK := -Wl,--whole-archive $(BUILD)/libstandin.a -Wl,--no-whole-archive -rdynamic
$(BUILD)/tests/ptx/cudart.o $(BUILD)/tests/ptx/streams.o $(BUILD)/tests/ptx/cublaslt.o: CFLAGS += -O2 -fPIC -fno-strict-aliasing -isystem $(CUDA_HOME)/include \
    -DSTANDIN_PTX='"$(CURDIR)/build/ptx"' -DSTANDIN_CUBLASLT='"$(CURDIR)/$(BUILD)/libcublasLt.so.13"'
$(BUILD)/libstandin.a: $(PTX_OBJECTS) $(BUILD)/tests/ptx/cudart.o $(BUILD)/tests/ptx/streams.o
	@rm -f $@ && ar rcs $@ $^
$(BUILD)/libcublasLt.so.13: $(BUILD)/tests/ptx/cublaslt.o
	$(call say,LD $@)$(CC) $(LDFLAGS) -shared -Wl,-soname,$(@F) -o $@ $<
build/ptx/%.ptx: kernels/cuda/%.cu $(wildcard kernels/cuda/*.h) kernels/kernels.h kernels/base.h
	@mkdir -p $(@D)
	$(call say,PTX $@)$(NVCC) $(NVCCFLAGS) -arch=compute_80 -ptx -o $@ $<
ifeq ($(VARIANT),plain)
tests-built: $(BUILD)/whet-standin
endif
$(BUILD)/whet-standin: $(BUILD)/rl/main.o $(LIBS) $(STANDIN)
	$(call say,LD $@)$(CC) $(LDFLAGS) -o $@ $< $(STANDIN_LINK) $(LIBS) $(LDLIBS)
else
TESTS := $(filter-out $(BUILD)/tests/test_standin_% $(BUILD)/tests/test_cuda_%,$(TESTS))
endif

# tests/test_ROOM_*.c links ROOM and what lies below it, and nothing else.
USES_kernels  := kernels
USES_datasets := datasets kernels
USES_reward   := reward datasets kernels
USES_rollout  := rollout datasets kernels
USES_rl       := rl rollout reward datasets kernels
define test_rule
$(BUILD)/tests/test_$(1)_%: tests/test_$(1)_%.c $(USES_$(1):%=$(BUILD)/lib%.a)
	@mkdir -p $$(@D)
	$$(call say,CC $$@)$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $$@ $$< $(USES_$(1):%=$(BUILD)/lib%.a) -lcmocka $(LDLIBS) $(CUDA_LIBS)
endef
$(foreach room,$(ROOMS),$(eval $(call test_rule,$(room))))
# tests/test_ptx_*.c: the interpreter; tests/test_standin_*.c: the stand-ins; tests/test_cuda_*.c: the CUDA back on them.
$(BUILD)/tests/test_ptx_%: tests/test_ptx_%.c $(BUILD)/libptx.a $(BUILD)/libkernels.a
	@mkdir -p $(@D)
	$(call say,CC $@)$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(BUILD)/libptx.a $(BUILD)/libkernels.a -lcmocka $(LDLIBS) $(CUDA_LIBS)
$(BUILD)/tests/test_standin_% $(BUILD)/tests/test_cuda_%: CFLAGS += -isystem $(CUDA_HOME)/include
$(BUILD)/tests/test_standin_%: tests/test_standin_%.c $(STANDIN) $(LIBS)
	@mkdir -p $(@D)
	$(call say,CC $@)$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(STANDIN_LINK) $(LIBS) -lcmocka $(LDLIBS)
$(BUILD)/tests/test_cuda_%: tests/test_cuda_%.c $(STANDIN) $(LIBS)
	@mkdir -p $(@D)
	$(call say,CC $@)$(CC) $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(STANDIN_LINK) $(LIBS) -lcmocka $(LDLIBS)
# Programs that scripts in tests/ run: a store of a million samples; faults, preloaded into whet.
$(BUILD)/tests/store_million: tests/store_million.c $(LIBS)
	@mkdir -p $(@D)
	$(call say,CC $@)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIBS) $(LDLIBS) $(CUDA_LIBS)
build/plain/tests/faults.so: tests/faults.c
	@mkdir -p $(@D)
	$(call say,CC $@)$(CC) $(CFLAGS) -shared -fPIC -o $@ $< -ldl
# The program with files of kernels/cpu/ (FILES=plain_fma) from a changed copy of kernels/, in the folder CHANGED.
ifdef CHANGED
$(CHANGED)/%.o: $(CHANGED)/kernels/cpu/%.c
	@$(CC) -I$(CHANGED) $(CFLAGS) $(FOR_$*) -O1 -c -o $@ $<
$(CHANGED)/whet: $(BUILD)/whet $(FILES:%=$(CHANGED)/%.o)
	@$(CC) $(LDFLAGS) -o $@ $(BUILD)/rl/main.o $(filter %.o,$^) $(LIBS) $(LDLIBS) $(CUDA_LIBS)
endif
tests-built: $(TESTS)
print-%: # a variable's value, for scripts of the tests
	@echo '$($*)'
-include $(OBJECTS:.o=.d) $(TESTS:=.d) $(wildcard $(BUILD)/tests/ptx/*.d)

deps:
	@tests/deps.sh
nvcc: # the tests always have the CUDA back, unless CUDA=0
	@CUDA=$(CUDA_ASKED) tests/nvcc.sh

# The demo's model, kept over `make clean`: demo and tests need the network once.
build/model/%.gguf:
	@rl/recipes/fetch_model.sh $@

demo: deps
	+@$(MAKE) --no-print-directory whet $(MODEL)
	@rl/recipes/demo.sh $(MODEL) demo-run $(SEED) $(STEPS)

# The double build is there for the gradients: its tests of ops and of learning compare to 1e-6.
DOUBLE_TESTS := $(filter build/double/tests/test_kernels_% build/double/tests/test_rl_learn,\
                  $(patsubst tests/%.c,build/double/tests/%,$(wildcard tests/test_*.c)))
define build_for_tests
	+@$(MAKE) --no-print-directory whet tests-built
	+@$(MAKE) --no-print-directory VARIANT=double $(DOUBLE_TESTS)
	+@$(MAKE) --no-print-directory VARIANT=asan build/asan/whet tests-built
endef
test: deps nvcc
	$(build_for_tests)
	@MODEL=$(MODEL) tests/run.sh
test-all: deps nvcc
	+@$(MAKE) --no-print-directory $(MODEL) $(filter build/venv/%,$(PYTHON))
	$(build_for_tests)
	@MODEL=$(MODEL) PYTHON=$(PYTHON) tests/run.sh --all

FUZZ_SECONDS ?= 300
fuzz: deps
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz.sh
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz_files.sh

# torch and transformers, which test-all compares with; they are never a part of whet.
build/venv/bin/python: build/venv/ready ;
build/venv/ready: tests/requirements.txt
	@rm -rf build/venv && python3 -m venv build/venv
	@build/venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -qr $< && touch $@

bench: deps
	+@$(MAKE) --no-print-directory whet $(MODEL)
	@echo SmolLM2-135M; ./whet bench --model $(MODEL)
	@echo 'the shape of Qwen2.5-0.5B'; ./whet bench --random tests/bench/qwen2.5-0.5b.json

# llama.cpp, PyTorch and TRL on the same weights, side by side; llama-cpp-python compiles for ten minutes, once.
bench-peers: deps
	+@$(MAKE) --no-print-directory whet $(MODEL) $(filter build/venv/%,$(PYTHON)) $(if $(filter build/venv/%,$(PYTHON)),build/venv/peers)
	@$(PYTHON) tests/bench/peers.py ./whet $(MODEL)
	@$(PYTHON) tests/bench/peers.py ./whet $(MODEL) --random tests/bench/qwen2.5-0.5b.json --rounds 1
build/venv/peers: tests/bench/requirements.txt | build/venv/bin/python
	@build/venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -qr $< && touch $@

clean:
	@mkdir -p build && find build -mindepth 1 -maxdepth 1 ! -name model ! -name venv -exec rm -rf {} +
	rm -f whet
