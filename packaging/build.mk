# SPDX-License-Identifier: Apache-2.0
# make install [DESTDIR=] [PREFIX=/usr/local]
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
UNITDIR ?= $(PREFIX)/lib/systemd/system
INCLUDEDIR ?= $(PREFIX)/include

.PHONY: install uninstall
install: $(O)/ferry $(O)/ferryctl $(O)/ferry-plugin
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(DATADIR)/man/man1 \
		$(DESTDIR)$(DATADIR)/bash-completion/completions \
		$(DESTDIR)$(DATADIR)/zsh/site-functions $(DESTDIR)$(UNITDIR) $(DESTDIR)$(INCLUDEDIR)
	install -m 0755 $(O)/ferry $(O)/ferryctl $(O)/ferry-plugin $(DESTDIR)$(BINDIR)
	install -m 0644 vfio/plugin/vfio_lm_plugin.h $(DESTDIR)$(INCLUDEDIR)
	install -m 0644 packaging/man/ferry.1 packaging/man/ferryctl.1 $(DESTDIR)$(DATADIR)/man/man1
	install -m 0644 packaging/completion/bash/ferry packaging/completion/bash/ferryctl \
		$(DESTDIR)$(DATADIR)/bash-completion/completions
	install -m 0644 packaging/completion/zsh/_ferry packaging/completion/zsh/_ferryctl \
		$(DESTDIR)$(DATADIR)/zsh/site-functions
	sed 's|@BINDIR@|$(BINDIR)|g' packaging/systemd/ferry@.service.in \
		>$(DESTDIR)$(UNITDIR)/ferry@.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/ferry@.service

uninstall:
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,ferry ferryctl ferry-plugin) \
		$(DESTDIR)$(INCLUDEDIR)/vfio_lm_plugin.h \
		$(addprefix $(DESTDIR)$(DATADIR)/man/man1/,ferry.1 ferryctl.1) \
		$(addprefix $(DESTDIR)$(DATADIR)/bash-completion/completions/,ferry ferryctl) \
		$(addprefix $(DESTDIR)$(DATADIR)/zsh/site-functions/,_ferry _ferryctl) \
		$(DESTDIR)$(UNITDIR)/ferry@.service
