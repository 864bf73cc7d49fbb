#!/usr/bin/env python3
"""Includes point one way (docs/architecture.md): a file includes only its own folder and folders that
stand before it in this list.

    include/ds4.h   src/base  quant  format  text  backend  model  runtime   app   tests

Besides, what lies in a folder below one of these is private to it: a device (backend/cpu) to itself
and to backend/registry.c, a command (app/chat) to itself. Tests are free. Names are written
from src/ or from the project's root.

    tests/check_layers.py        from the project's root; prints every include that breaks the rule
"""
import os
import re
import sys

LAYERS = ['include', 'src/base', 'src/quant', 'src/format', 'src/text', 'src/backend', 'src/model',
          'src/runtime', 'app', 'tests']
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)
# The list of devices is the one file that knows them all.
REGISTRY = 'src/backend/registry.c'


def layer_of(path):
    """Index into LAYERS, or None."""
    for i, layer in enumerate(LAYERS):
        if path.startswith(layer + '/'):
            return i
    return None


def private_folder(path):
    """'src/backend/cpu' of src/backend/cpu/moe.c; None for a file that lies in a layer itself."""
    folder = os.path.dirname(path)
    return None if folder in LAYERS else folder


def target_of(quote, name):
    """The project's file that an include names; None for a header of the system."""
    for folder in ('src', '.', 'include'):
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.exists(path) and layer_of(path) is not None:
            return path
    return None if quote == '<' else ''


def problem(path, quote, name):
    """What is wrong with this include; None if nothing is."""
    target = target_of(quote, name)
    if target is None:
        return None
    if target == '':
        return 'is not written from src/ or the root, or does not exist'
    if '..' in name.split('/'):
        return 'is not written from src/ or the root'
    if layer_of(target) > layer_of(path):
        return 'is of a later layer'
    private = private_folder(target)
    is_own = private is None or (os.path.dirname(path) + '/').startswith(private + '/')
    is_device = target.startswith('src/backend/')
    if not is_own and not (is_device and path == REGISTRY):
        return 'is private to ' + private
    return None


def problems():
    for root in ('include', 'src', 'app'):
        for folder, _, names in sorted(os.walk(root)):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if not name.endswith(('.c', '.h')):
                    continue
                if layer_of(path) is None:
                    yield '%s: its folder is not in the list of layers' % path
                    continue
                with open(path, encoding='utf-8') as file:
                    text = file.read()
                for quote, included in INCLUDE.findall(text):
                    what = problem(path, quote, included)
                    if what:
                        yield '%s: "%s" %s' % (path, included, what)


def main():
    found = list(problems())
    for line in found:
        print(line)
    print('%d passed, %d failed, 0 skipped' % (not found, bool(found)))
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
