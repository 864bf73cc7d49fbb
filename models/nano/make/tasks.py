#!/usr/bin/env python3
"""What the nano model is asked to do, and when an answer is right: tasks(seed) for evaluate.py and for
tests that put the same questions to a program. Standard library only."""
import json, random, re
import gen


def final(s):
    return s.split('</think>')[-1] if '</think>' in s else s


def parse_calls(s):
    """Strict DSML reader -> list of (name, args) or None."""
    m = re.search(r'\n\n<｜DSML｜tool_calls>\n(.*)</｜DSML｜tool_calls>$', s, re.S)
    if not m:
        return None
    calls, body = [], m.group(1)
    pos = 0
    inv = re.compile(r'<｜DSML｜invoke name="([^"]*)">\n((?:<｜DSML｜parameter name="[^"]*" string="(?:true|false)">.*?</｜DSML｜parameter>\n)*)</｜DSML｜invoke>\n', re.S)
    par = re.compile(r'<｜DSML｜parameter name="([^"]*)" string="(true|false)">(.*?)</｜DSML｜parameter>\n', re.S)
    while pos < len(body):
        k = inv.match(body, pos)
        if not k:
            return None
        args = {}
        for n, st, v in par.findall(k.group(2)):
            try:
                args[n] = v if st == 'true' else json.loads(v)
            except ValueError:
                return None
        calls.append((k.group(1), args))
        pos = k.end()
    return calls


def prompt_of(doc):
    """Cut a one-turn document after the mode token."""
    i = doc.index(gen.ASSIST) + len(gen.ASSIST)
    for t in (gen.TH, gen.TE):
        if doc.startswith(t, i):
            return doc[:i + len(t)]


def tasks(seed, n_tokens):
    """{task: [(prompt, expected, is_right(text), most tokens)]}. n_tokens(text) -> its length."""
    r = random.Random(seed)
    T = {}

    def add(name, user, expect, think=False, sysmsg='', tools=None, check=None, variant='A', maxn=60, history=()):
        turns = list(history) + [(user, '', '')]
        d = gen.render(sysmsg, turns, think=think, tools=tools, variant=variant)
        d = d[:d.rindex(gen.ASSIST) + len(gen.ASSIST)] + (gen.TH if think else gen.TE)
        T.setdefault(name, []).append((d, expect, check, maxn))
    has = lambda v: (lambda s: v.lower() in final(s).lower())
    for n in gen.NAMES:
        for key in ('species', 'colour', 'home', 'job', 'food', 'friend', 'age', 'instrument'):
            if r.random() < 0.45:
                st, q, a = gen.CHF[n][key]
                add('facts, chat', r.choice(q), a, check=has(a), sysmsg=gen.system(r), maxn=40)
                if r.random() < 0.3:
                    add('facts, thinking', r.choice(q), a, think=True, check=has(a), maxn=70)
    for p in gen.PLF:
        for key in gen.PLF[p]:
            st, q, a = gen.PLF[p][key]
            add('facts, chat', r.choice(q), a, check=has(st[0] if key == 'side' else a), maxn=40)
    def num(v):
        return lambda s: (re.findall(r'-?\d+', final(s)) or ['x'])[-1] == str(v)
    for _ in range(80):
        for nm, lo, hi, op, th in (('sum of 2 digits, thinking', 10, 99, '+', True), ('difference of 2 digits, thinking', 10, 99, '-', True),
                                   ('sum of 3 digits, thinking', 100, 999, '+', True), ('difference of 3 digits, thinking', 100, 999, '-', True),
                                   ('2 digits times 1 digit, thinking', 11, 99, '*', True), ('sum up to 50, chat', 0, 50, '+', False),
                                   ('difference up to 50, chat', 0, 50, '-', False), ('product up to 10, chat', 0, 10, '*', False)):
            a, b = r.randint(lo, hi), r.randint(lo, hi)
            if op == '*' and th:
                b = r.randint(2, 9)
            if op == '-':
                a, b = max(a, b), min(a, b)
            v = a + b if op == '+' else a - b if op == '-' else a * b
            add(nm, f"What is {a} {op} {b}?", v, think=th, check=num(v), maxn=130 if th else 24)
    for _ in range(60):
        q, w, a = gen.word_problem(r)
        add('word problems, thinking', q, a, think=True, check=lambda s, a=a: final(s).strip() == a, maxn=130)
    for _ in range(220):
        q, w, a = gen.list_task(r)
        k = 'lists: ' + ('sort' if q.startswith(('Sort', 'Put')) else 'reverse' if q.startswith(('Reverse', 'Write this list b')) else 'copy' if q.startswith(('Copy', 'Repeat', 'Say')) else 'count up' if q.startswith(('Count from', 'Write the numbers')) else 'spell' if q.startswith('Spell') else 'other')
        add(k, q, a, check=lambda s, a=a: final(s).strip() == a, maxn=60)
    for i in range(160):
        ts, seen = [], set()
        for _ in range(r.randint(1, 4)):
            t = r.choice(gen.TOOLS)(r)
            if t['name'] not in seen:
                seen.add(t['name'])
                ts.append(t)
        t = r.choice(ts)
        sch = '\n'.join(gen.schema(x, r, i % 4) for x in ts)
        th = i % 3 == 0
        want = [(t['name'], t['args'])]
        add('tool call' + (' (made-up tool)' if '_' in t['name'] and t['name'].split('_')[0] in gen.VERB else ''), r.choice(t['ask']), want, think=th, tools=sch,
            check=lambda s, want=want: parse_calls(final(s)) == want, variant='AB'[i % 4 == 3], sysmsg=r.choice(gen.SYS), maxn=120)
        if i % 2 == 0:
            add('answer from a tool result', f"<tool_result>{t['res']}</tool_result>", t['ans'], tools=sch, history=[(t['ask'][0], '', gen.dsml([(t['name'], t['args'])]))],
                check=lambda s, a=t['ans']: final(s).strip() == a, maxn=60)
    for size, nm, cnt in ((500, 1300, 40), (1000, 3300, 40), (2000, 7600, 40), (3000, 12000, 40), (3800, 15200, 40)):
        for _ in range(cnt):
            while True:
                tx, qs = gen.recall_doc(r, nm, 10, 1, early=True)
                s, q, a, v = qs[0]
                u = 'Read this text.\n' + tx + '\n' + q
                if size * 0.8 < n_tokens(u) < min(size * 1.25, 4040):
                    break
            add('recall from about %d tokens' % size, u, v, check=has(v), maxn=24)
    for _ in range(60):
        d = gen.g_json(r)
        if gen.TH in d:
            continue
        pr = prompt_of(d)
        want = json.loads(d[len(pr):].replace(gen.EOS, ''))

        def jok(s, want=want):
            try:
                return json.loads(final(s)) == want
            except ValueError:
                return False
        T.setdefault('json', []).append((pr, want, jok, 110))
    for nm, f in (('italian', gen.g_it), ('chinese', gen.g_zh), ('system prompt', gen.g_sys), ('reading, short', gen.g_read), ('story reading', gen.g_story_read)):
        for _ in range(60):
            d = f(r)
            i = d.rindex(gen.ASSIST) + len(gen.ASSIST)
            m = gen.TH if d.startswith(gen.TH, i) else gen.TE
            pr, rest = d[:i + len(m)], d[i + len(m):].replace(gen.EOS, '')
            a = final(rest)
            T.setdefault(nm, []).append((pr, a, lambda s, a=a: final(s).strip() == a.strip(), 110))
    return T
