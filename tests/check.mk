# check.mk - what `make test` and `make check-long` run beside the plain tests.

# The sanitizer builds take the tests of parsers, text and kernels, and the model tests that run tiny
# models; the nano model is for the optimised build alone.
ASAN      = -fsanitize=address,undefined -fno-sanitize-recover=all
ASAN_SRC := $(filter-out tests/model/test_nano.c tests/model/test_rounded.c \
                           tests/model/test_alloc.c,$(TEST_SRC))
TSAN_SRC := $(filter tests/unit/test_threads.c tests/unit/test_text.c tests/model/test_properties.c,\
                           $(TEST_SRC))
ASAN_BIN := $(ASAN_SRC:%.c=build/asan/%)
TSAN_BIN := $(TSAN_SRC:%.c=build/tsan/%)
ASAN_FUZZ := $(FUZZ_SRC:%.c=build/asan/%)

HAVE_ASAN := $(shell printf 'int main(void){return 0;}' | $(CC) -x c - -fsanitize=address,undefined \
                     -o /dev/null 2>/dev/null && echo 1)
HAVE_TSAN := $(shell printf 'int main(void){return 0;}' | $(CC) -x c - -fsanitize=thread \
                     -o /dev/null 2>/dev/null && echo 1)
HAVE_CLANG := $(shell command -v clang >/dev/null 2>&1 && echo 1)
QEMU_NEON := $(firstword $(shell command -v qemu-aarch64 qemu-aarch64-static 2>/dev/null))
HAVE_NEON := $(shell command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 && echo $(QEMU_NEON))

SANITIZED = $(if $(HAVE_ASAN),$(ASAN_BIN) $(ASAN_FUZZ)) $(if $(HAVE_TSAN),$(TSAN_BIN))

.PHONY: sanitized
sanitized:
	$(if $(HAVE_ASAN),+$(MAKE) B=build/asan OPT=-O1 SAN="$(ASAN)" $(ASAN_BIN) $(ASAN_FUZZ))
	$(if $(HAVE_TSAN),+$(MAKE) B=build/tsan OPT=-O1 SAN=-fsanitize=thread $(TSAN_BIN))

test: all check-programs fuzz-programs sanitized
	tests/run.py --build $(B) $(TEST_BIN) $(if $(HAVE_ASAN),,$(FUZZ_BIN)) $(SANITIZED) \
	    tests/app/test_cli.py tests/app/test_chat.py \
	    make:check-layers \
	    $(if $(HAVE_CLANG),make:check-clang,skip:check-clang:no_clang) \
	    $(if $(HAVE_NEON),make:check-neon,skip:check-neon:no_aarch64_compiler_or_qemu) \
	    $(if $(HAVE_ASAN),,skip:address_sanitizer:no_runtime) \
	    $(if $(HAVE_TSAN),,skip:thread_sanitizer:no_runtime)

# Both compilers, without a warning: the plain build is the first one.
check-clang:
	+$(MAKE) B=build/clang CC=clang WERROR=-Werror OPT=-O1 all check-programs fuzz-programs

# The kernel tables of AArch64 on another processor: cross-compiled, statically linked, emulated.
# The other tests do not depend on the instruction set.
NEON_CC  := aarch64-linux-gnu-gcc
NEON_OBJ := $(patsubst %.c,build/neon/%.o,tests/kernels/test_kernels.c \
              $(wildcard tests/support/kernel_*.c src/backend/cpu/kernels*.c src/quant/*.c))

.PHONY: check-neon
check-neon:
	+@CPPFLAGS=-DDS4_TEST_PLAIN $(MAKE) -s B=build/neon CC=$(NEON_CC) SAN= WERROR=-Werror $(NEON_OBJ)
	@$(NEON_CC) -static $(NEON_OBJ) -lm -o build/neon/test_kernels
	@$(QEMU_NEON) build/neon/test_kernels

# ---- fuzzing: make fuzz-gguf FUZZ_SECONDS=600 ----------------------------------------------------

FUZZ_SECONDS ?= 600
FUZZ_NAMES   := $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%)
FUZZ_SAN      = -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

.PHONY: $(FUZZ_NAMES:%=fuzz-%)
$(FUZZ_NAMES:%=fuzz-%): fuzz-%:
	+$(MAKE) B=build/fuzz CC=clang OPT=-O1 SAN="$(FUZZ_SAN)" build/fuzz/tests/fuzz/fuzz_$*.o \
	    build/fuzz/libds4.a $(patsubst %.c,build/fuzz/%.o,$(wildcard tests/support/*.c))
	clang -fsanitize=fuzzer,address,undefined build/fuzz/tests/fuzz/fuzz_$*.o \
	    $(patsubst %.c,build/fuzz/%.o,$(wildcard tests/support/*.c)) build/fuzz/libds4.a \
	    -lcmocka -lm -pthread -o build/fuzz/fuzz_$*
	@mkdir -p build/fuzz/corpus/$*
	build/fuzz/fuzz_$* -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 \
	    -artifact_prefix=build/fuzz/$*- build/fuzz/corpus/$* tests/fuzz/corpus/$*

# The nano model's abilities, as its README has them.
.PHONY: check-abilities
check-abilities: all
	DS4=$(B)/ds4 tests/nano_abilities.py

check-long: test check-abilities $(FUZZ_NAMES:%=fuzz-%)

check-layers:
	tests/check_layers.py
