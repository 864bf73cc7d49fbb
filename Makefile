# ds4 - everything is built below build/; no configure step.
#
#   make            the program build/ds4 and the library build/libds4.a
#   make check      all tests that need no extra toolchain
#   make help       the other targets

CC       ?= cc
B        ?= build
OPT      ?= -O3
# -Wsign-conversion is left out of -Wconversion: sizes and indices mix freely with checked ranges.
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes
CFLAGS   ?= $(OPT) -g
# No fast-math and no contraction by the compiler: a sum is what the source says, on every machine.
CPPFLAGS += -Iinclude -Isrc -I. -D_GNU_SOURCE
ALLFLAGS  = -std=c11 $(WARN) $(WERROR) -ffp-contract=off -fno-math-errno -fvisibility=hidden -pthread $(CFLAGS) $(SAN)
LDLIBS    = -lm -pthread

LIB_SRC  := $(wildcard src/*/*.c src/*/*/*.c)
APP_SRC  := $(wildcard app/*.c app/*/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o)
APP_OBJ  := $(APP_SRC:%.c=$(B)/%.o)

.PHONY: all clean
all: $(B)/libds4.a

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) $(CPPFLAGS) $(FILE_FLAGS) -MMD -MP -c $< -o $@

$(B)/libds4.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $(LIB_OBJ)

# One program for each test file; tests/<folder>/test_x.c -> build/tests/<folder>/test_x
SUPPORT_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))
$(B)/tests/%: tests/%.c $(SUPPORT_OBJ) $(B)/libds4.a
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) $(CPPFLAGS) -MMD -MP $< $(SUPPORT_OBJ) $(B)/libds4.a $(LDLIBS) -lcmocka -o $@

clean:
	rm -rf $(B)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
