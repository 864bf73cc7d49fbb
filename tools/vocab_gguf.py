#!/usr/bin/env python3
"""Writes a GGUF file that has a tokenizer and nothing else, from the tokenizer.json of a model.

Usage: vocab_gguf.py OUT.gguf [tokenizer.json | tokenizer.json.xz]

The default input is $DS4_TOKENIZER_JSON, else ../shared/data/tokenizer/tokenizer.json.xz. Exit status:
0 written, 1 the input is not what it should be, 2 there is no input.
"""
import json
import lzma
import os
import struct
import sys

NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5       # tokenizer.ggml.token_type
U32, I32, STRING, ARRAY = 4, 5, 8, 9             # value types of GGUF
ALIGNMENT = 32
DEFAULT = '../shared/data/tokenizer/tokenizer.json.xz'


def gguf_string(text):
    data = text.encode('utf-8')
    return struct.pack('<Q', len(data)) + data


def gguf_value(key, kind, data):
    return gguf_string(key) + struct.pack('<I', kind) + data


def gguf_array(key, kind, items):
    """items: the encoded bytes of each."""
    return gguf_value(key, ARRAY, struct.pack('<IQ', kind, len(items)) + b''.join(items))


def read_json(path):
    opened = lzma.open(path, 'rb') if path.endswith('.xz') else open(path, 'rb')
    with opened as source:
        return json.loads(source.read().decode('utf-8'))


def tokens_of(data):
    """(texts, types) of all ids; an id that the file leaves out becomes an unused token."""
    texts, types = {}, {}
    for text, token in data['model']['vocab'].items():
        texts[token], types[token] = text, NORMAL
    for added in data['added_tokens']:
        texts[added['id']] = added['content']
        types[added['id']] = CONTROL if added['special'] else USER
    n = max(texts) + 1
    return ([texts.get(i, '[UNUSED%d]' % i) for i in range(n)],
            [types.get(i, UNUSED) for i in range(n)])


def merge_text(merge):
    """Newer files have pairs, older ones "left right"."""
    return merge if isinstance(merge, str) else ' '.join(merge)


def marker_id(data, words):
    """The id of the marker whose text has these words, whatever joins them."""
    for added in data['added_tokens']:
        if all(word in added['content'] for word in words):
            return added['id']
    sys.exit('no marker with the words: ' + ' '.join(words))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    path = sys.argv[2] if len(sys.argv) == 3 else os.environ.get('DS4_TOKENIZER_JSON', DEFAULT)
    if not os.path.exists(path):
        print('no such file: ' + path, file=sys.stderr)
        sys.exit(2)
    data = read_json(path)
    if data['model']['type'] != 'BPE':
        sys.exit('%s: not a BPE tokenizer' % path)
    texts, types = tokens_of(data)
    keys = [
        gguf_value('general.architecture', STRING, gguf_string('deepseek4')),
        gguf_value('tokenizer.ggml.model', STRING, gguf_string('gpt2')),
        gguf_value('tokenizer.ggml.pre', STRING, gguf_string('joyai-llm')),
        gguf_array('tokenizer.ggml.tokens', STRING, [gguf_string(t) for t in texts]),
        gguf_array('tokenizer.ggml.token_type', I32, [struct.pack('<i', t) for t in types]),
        gguf_array('tokenizer.ggml.merges', STRING,
                   [gguf_string(merge_text(m)) for m in data['model']['merges']]),
        gguf_value('tokenizer.ggml.bos_token_id', U32,
                   struct.pack('<I', marker_id(data, ['begin', 'of', 'sentence']))),
        gguf_value('tokenizer.ggml.eos_token_id', U32,
                   struct.pack('<I', marker_id(data, ['end', 'of', 'sentence']))),
    ]
    head = b'GGUF' + struct.pack('<IQQ', 3, 0, len(keys)) + b''.join(keys)
    # Under another name first: programs that run at the same time never see half a file.
    tmp = '%s.%d.tmp' % (sys.argv[1], os.getpid())
    with open(tmp, 'wb') as out:
        out.write(head + b'\0' * (-len(head) % ALIGNMENT))
    os.replace(tmp, sys.argv[1])


if __name__ == '__main__':
    main()
