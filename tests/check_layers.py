#!/usr/bin/env python3
"""Includes point one way: a file includes only its own folder and folders above it in this list."""
import os, re, sys

LAYERS = ['base', 'quant', 'format', 'text', 'backend', 'model', 'runtime']
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def layer_of(path):
    """Its place in the list; app and tests come last."""
    parts = path.split('/')
    if parts[0] == 'src':
        return LAYERS.index(parts[1]) if parts[1] in LAYERS else None
    return len(LAYERS) + (1 if parts[0] == 'tests' else 0)


def target_of(name):
    top = name.split('/')[0]
    return name if top in ('app', 'tests') else 'src/' + name


def problems():
    for root in ('src', 'app'):
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                if not name.endswith(('.c', '.h')):
                    continue
                path = os.path.join(folder, name)
                own = layer_of(path)
                if own is None:
                    yield '%s: folder is not in the list of layers' % path
                    continue
                for included in INCLUDE.findall(open(path, encoding='utf-8').read()):
                    target = target_of(included)
                    if not os.path.exists(target):
                        yield '%s: "%s" is not written from src/ or app/' % (path, included)
                    elif layer_of(target) is None or layer_of(target) > own:
                        yield '%s includes "%s", a later layer' % (path, included)
                    elif 'backend/cpu/' in included and '/backend/' not in path.replace('src', '', 1):
                        yield '%s includes "%s", private to the backend' % (path, included)


found = list(problems())
for line in found:
    print(line)
print('%d passed, %d failed, 0 skipped' % (0 if found else 1, 1 if found else 0))
sys.exit(1 if found else 0)
