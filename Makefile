# ds4 - everything is built below build/; there is no configure step.
#
#   make                 the program build/ds4 and the library build/libds4.a
#   make test            everything that fits into minutes: all tests, sanitizers, fuzz corpus
#   make check           the tests of the plain build alone, under a minute
#   make check-long      what takes longer: fuzzing for FUZZ_SECONDS each, all models under sanitizers
#   make check-layers    includes point one way (docs/architecture.md)
#   make install         PREFIX=/usr/local DESTDIR=   (packaging/install.mk)
#   make clean
#
#   B=DIR                another build directory
#   CC=clang  OPT=-O3  SAN=-fsanitize=address  WERROR=-Werror

B        ?= build
CC       ?= cc
OPT      ?= -O3
CFLAGS   ?= $(OPT) -g
AR       ?= ar
# -Wsign-conversion is left out of -Wconversion: sizes and indices mix freely with checked ranges.
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
            -Wmissing-prototypes
CPPFLAGS += -Iinclude -Isrc -I. -D_GNU_SOURCE
# No fast-math and no contraction by the compiler: a sum is what the source says, on every machine.
ALLFLAGS  = -std=c11 $(WARN) $(WERROR) -ffp-contract=off -fno-math-errno -fvisibility=hidden \
            -ffunction-sections -fdata-sections -pthread $(CFLAGS) $(SAN)
LDLIBS    = -lm -pthread
TARGET   := $(shell $(CC) -dumpmachine)
ifneq ($(findstring darwin,$(TARGET)),)
LDFLAGS  += -Wl,-dead_strip
else
LDFLAGS  += -Wl,--gc-sections
endif

# Line editing in `ds4 chat`; without the library it reads plain lines.
HAVE_EDIT := $(shell pkg-config --exists libedit 2>/dev/null && echo 1)
ifeq ($(HAVE_EDIT),1)
APP_FLAGS += -DDS4_HAVE_EDIT $(shell pkg-config --cflags libedit)
APP_LIBS  += $(shell pkg-config --libs libedit)
endif

LIB_SRC  := $(sort $(wildcard src/*/*.c src/*/*/*.c))
APP_SRC  := $(sort $(wildcard app/*.c app/*/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o)
APP_OBJ  := $(APP_SRC:%.c=$(B)/%.o)

.PHONY: all clean test check check-programs check-long check-layers check-clang fuzz-programs
all: $(B)/ds4 $(B)/libds4.a

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) $(CPPFLAGS) $(FILE_FLAGS) -MMD -MP -c $< -o $@

$(B)/app/%.o: FILE_FLAGS = $(APP_FLAGS)

# Each instruction set has its own file and flags; kernels.c chooses by what the processor has.
ifneq ($(findstring x86_64,$(TARGET)),)
$(B)/src/backend/cpu/kernels_avx2.o: FILE_FLAGS = -mavx2 -mfma -mf16c
$(B)/src/backend/cpu/kernels_avx512.o: FILE_FLAGS = -mavx512f -mavx512bw -mavx512vl -mavx512vnni \
                                                    -mavx2 -mfma -mf16c
endif
ifneq ($(findstring aarch64-linux,$(TARGET)),)
$(B)/src/backend/cpu/kernels_neon.o: FILE_FLAGS = -march=armv8.2-a+dotprod
endif

$(B)/libds4.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $(LIB_OBJ)

$(B)/ds4: $(APP_OBJ) $(B)/libds4.a
	$(CC) $(ALLFLAGS) $(LDFLAGS) $(APP_OBJ) $(B)/libds4.a $(APP_LIBS) $(LDLIBS) -o $@

# ---- tests: one program for each file tests/<folder>/test_x.c ------------------------------------

TEST_SRC     := $(sort $(wildcard tests/unit/test_*.c tests/kernels/test_*.c tests/ops/test_*.c \
                                  tests/model/test_*.c))
TEST_BIN      = $(TEST_SRC:%.c=$(B)/%)
FUZZ_SRC     := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BIN      = $(FUZZ_SRC:%.c=$(B)/%)
SUPPORT_OBJ   = $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))

$(B)/tests/fuzz/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/replay_main.o $(SUPPORT_OBJ) $(B)/libds4.a
	$(CC) $(ALLFLAGS) $(LDFLAGS) $(filter %.o,$^) $(B)/libds4.a $(LDLIBS) -o $@

# Tests of failing allocations count and refuse through the linker.
$(B)/tests/model/test_alloc $(B)/tests/unit/test_reply: LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
$(B)/tests/model/test_alloc: LDFLAGS += $(foreach f,free strdup strndup mmap munmap pthread_create,-Wl,--wrap=$(f))

$(B)/tests/%: $(B)/tests/%.o $(SUPPORT_OBJ) $(B)/libds4.a
	$(CC) $(ALLFLAGS) $(LDFLAGS) $< $(SUPPORT_OBJ) $(B)/libds4.a $(LDLIBS) -lcmocka -o $@

.SECONDARY:

check-programs: $(TEST_BIN)
fuzz-programs: $(FUZZ_BIN)

check: all check-programs
	tests/run.py --build $(B) $(TEST_BIN)

include packaging/install.mk
include tests/check.mk

clean:
	rm -rf $(B)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
