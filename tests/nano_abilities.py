#!/usr/bin/env python3
"""Put the nano model's exam to `ds4 run` and compare with the marks of its README.

    DS4=build/ds4 tests/nano_abilities.py [--seed N] [--numerics model|plain] [--task REGEX]

The questions come from the corpus generator with a seed of their own (models/nano/make/tasks.py); the
marks to reach are those of models/nano/eval.json: a task fails if its share of right answers is more than
5 points below, and by more than two samples of these sizes differ by chance (two standard errors; with the
seed of the marks themselves, 31337, the shares are the same). Recall is shown but not judged: it is weak by
nature. The last line is `N passed, N failed, N skipped`, one count for each task. Minutes long: part of
`make check-long`.
"""
import argparse, json, math, os, re, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAKE = os.path.join(ROOT, 'models', 'nano', 'make')
sys.path.insert(0, MAKE)
import tasks, tok  # noqa: E402

DS4 = os.environ.get('DS4', os.path.join(ROOT, 'build', 'ds4'))
MARKS = json.load(open(os.path.join(ROOT, 'models', 'nano', 'eval.json')))['tasks']


def n_questions(task):
    return 80 if task == 'facts, chat' else 24 if 'recall' in task else 40


def answer(prompt, n_most, numerics):
    command = [DS4, 'run', '--raw', '--json', '--temp', '0', '-q', '-t', '1', '-n', str(n_most),
               '--numerics', numerics]
    done = subprocess.run(command, input=prompt.encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def is_right(question, numerics):
    prompt, _, check, n_most = question
    got = answer(prompt, n_most, numerics)
    return got['finish_reason'] == 'eos' and bool(check(got['text']))


def main():
    options = argparse.ArgumentParser()
    options.add_argument('--seed', type=int, default=20261125)
    options.add_argument('--numerics', default='model')
    options.add_argument('--task', default='')
    options = options.parse_args()
    words = tok.Tok(json.load(open(os.path.join(MAKE, 'merges.json'))))
    exam = tasks.tasks(options.seed, lambda text: len(words.encode(text)))
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for task, questions in exam.items():
            if not re.search(options.task, task):
                continue
            questions = questions[:n_questions(task)]
            n_right = sum(pool.map(lambda q: is_right(q, options.numerics), questions))
            reached, asked = MARKS[task]
            missing = reached / asked - n_right / len(questions)
            share = (reached + n_right) / (asked + len(questions))
            chance = 2 * math.sqrt(share * (1 - share) * (1 / asked + 1 / len(questions)))
            is_judged = 'recall' not in task
            is_bad = missing > max(0.05, chance)
            verdict = 'skipped' if not is_judged else 'failed' if is_bad else 'passed'
            counts[verdict] += 1
            print('%-36s %3d of %3d, README %3d of %3d  %s' % (
                task, n_right, len(questions), reached, asked,
                verdict if is_judged else 'skipped: not judged'), flush=True)
    print('%(passed)d passed, %(failed)d failed, %(skipped)d skipped' % counts)
    return 1 if counts['failed'] else 0


if __name__ == '__main__':
    sys.exit(main())
