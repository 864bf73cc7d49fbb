#!/usr/bin/env python3
"""Run test programs side by side and add up what they say.

    tests/run.py --build DIR ITEM...

An ITEM is a cmocka program, a script or program that ends with the line `N passed, N failed, N
skipped`, a fuzz program (it replays tests/fuzz/corpus/<name>), `make:TARGET` (one test: exit status 0),
or `skip:WHAT:WHY`. The last line is the sum. Exit status 1 if anything failed.
"""
import os, re, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor

SUMMARY = re.compile(r'^(\d+) passed, (\d+) failed, (\d+) skipped$', re.M)
LIMIT_S = 600


def counts_of(text, status):
    """(passed, failed, skipped) of a program's output."""
    ours = SUMMARY.findall(text)
    if ours:
        passed, failed, skipped = map(int, ours[-1])
    else:
        passed = sum(map(int, re.findall(r'\[  PASSED  \] (\d+) test', text)))
        failed = len(re.findall(r'^\[  FAILED  \] (?!.*test\(s\))\S+$', text, re.M))
        skipped = sum(map(int, re.findall(r'\[  SKIPPED \] (\d+) test', text)))
    if status != 0 and failed == 0:
        failed = 1  # it crashed, or ended before it could count
    if status == 0 and passed + failed + skipped == 0:
        failed = 1  # a program that tests nothing
    return passed, failed, skipped


def run_item(item, build):
    start = time.time()
    if item.startswith('skip:'):
        _, what, why = item.split(':', 2)
        return item, (0, 0, 1), 'skipped: %s: %s' % (what, why.replace('_', ' ')), 0.0
    env = dict(os.environ, DS4=os.path.join(build, 'ds4'))
    is_target = item.startswith('make:')
    name = os.path.basename(item)
    if is_target:
        command = ['make', '--no-print-directory', item[5:]]
    elif name.startswith('fuzz_'):
        command = [item, 'tests/fuzz/corpus/' + name[5:]]
    elif item.endswith('.py'):
        command = [sys.executable, item]
    else:
        command = [item]
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=LIMIT_S)
        text, status = done.stdout.decode('utf-8', 'replace'), done.returncode
    except subprocess.TimeoutExpired as late:
        text, status = (late.stdout or b'').decode('utf-8', 'replace') + '\ntimed out', 1
    except OSError as why:
        text, status = str(why), 1
    if is_target and not SUMMARY.search(text):
        counts = (1, 0, 0) if status == 0 else (0, 1, 0)
    else:
        counts = counts_of(text, status)
    return item, counts, text, time.time() - start


def main(argv):
    build, items = 'build', argv
    if argv[:1] == ['--build']:
        build, items = argv[1], argv[2:]
    total = [0, 0, 0]
    failures = []
    with ThreadPoolExecutor(max_workers=max(1, len(os.sched_getaffinity(0)))
                            if hasattr(os, 'sched_getaffinity') else 2) as pool:
        for item, counts, text, seconds in pool.map(lambda i: run_item(i, build), items):
            total = [a + b for a, b in zip(total, counts)]
            print('%-50s %4d passed %3d failed %3d skipped %7.1f s' % ((item,) + counts + (seconds,)))
            if counts[2]:
                for line in text.splitlines():
                    if 'skip' in line.lower() and not SUMMARY.match(line) and not line.startswith('['):
                        print('    ' + line.strip())
            if counts[1]:
                failures.append(item)
                print('\n'.join('    | ' + line for line in text.splitlines()[-60:]))
            sys.stdout.flush()
    if failures:
        print('failed: ' + ' '.join(failures))
    print('%d passed, %d failed, %d skipped' % tuple(total))
    return 1 if total[1] else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
