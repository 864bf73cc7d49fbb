# install.mk - where the parts of ds4 go; included by the Makefile.
#
#   make install                  below /usr/local
#   make install PREFIX=/usr DESTDIR=/tmp/package
#   make uninstall                removes these files again, with the same PREFIX and DESTDIR
#
#   bin/ds4  lib/libds4.a  include/ds4.h  lib/pkgconfig/ds4.pc  share/man/man1/ds4.1
#   share/ds4/ds4-nano.gguf

PREFIX  ?= /usr/local
DESTDIR ?=
INSTALL ?= install

INSTALL_ROOT  = $(DESTDIR)$(PREFIX)
INSTALL_FILES = bin/ds4 lib/libds4.a include/ds4.h lib/pkgconfig/ds4.pc share/man/man1/ds4.1 \
                share/ds4/ds4-nano.gguf

.PHONY: install uninstall

# The version has one source, the program.
install: $(B)/ds4 $(B)/libds4.a
	$(INSTALL) -d $(sort $(dir $(INSTALL_FILES:%=$(INSTALL_ROOT)/%)))
	$(INSTALL) -m 755 $(B)/ds4 $(INSTALL_ROOT)/bin/ds4
	$(INSTALL) -m 644 $(B)/libds4.a $(INSTALL_ROOT)/lib/libds4.a
	$(INSTALL) -m 644 include/ds4.h $(INSTALL_ROOT)/include/ds4.h
	$(INSTALL) -m 644 docs/ds4.1 $(INSTALL_ROOT)/share/man/man1/ds4.1
	$(INSTALL) -m 644 models/nano/ds4-nano.gguf $(INSTALL_ROOT)/share/ds4/ds4-nano.gguf
	version=$$($(B)/ds4 version | sed -n '1s/^ds4 \([0-9][0-9.]*\).*/\1/p') && \
	sed -e 's|@PREFIX@|$(PREFIX)|' -e "s|@VERSION@|$$version|" packaging/ds4.pc.in \
	    >$(B)/ds4.pc
	$(INSTALL) -m 644 $(B)/ds4.pc $(INSTALL_ROOT)/lib/pkgconfig/ds4.pc

uninstall:
	rm -f $(INSTALL_FILES:%=$(INSTALL_ROOT)/%)
	-rmdir $(INSTALL_ROOT)/share/ds4 2>/dev/null
