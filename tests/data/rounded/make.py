#!/usr/bin/env python3
"""Write logits of the nano model with its cached rows on the FP8 and FP4 grids.

    tests/data/rounded/make.py          (from the project root; needs torch and numpy)

rounded_logits.bin: float32 rows, as long and in the order of the list `logits` of
models/nano/golden.json, which has the same positions without grids. Weights are the dequantised ones,
activations float32: only what goes into the caches, and the indexer's queries, is rounded. The model is
models/nano/make/nano_model.py; it leaves the rotary part alone, which here becomes BF16, as cached rows
are kept.
"""
import json, os, sys
import numpy as np
import torch

NANO = 'models/nano'
sys.path.insert(0, os.path.join(NANO, 'make'))
import gguf_io, nano_model

round_codes = nano_model.fp8_round


def round_row(x, n_rot):
    y = round_codes(x, n_rot)
    n = x.shape[-1] - n_rot
    return torch.cat([y[..., :n], y[..., n:].bfloat16().float()], -1)


def main():
    nano_model.fp8_round = round_row
    shape = nano_model.Cfg()
    tensors = gguf_io.read(os.path.join(NANO, 'ds4-nano.gguf'))[1]
    params = {name: torch.from_numpy(np.array(values)) for name, (values, _) in tensors.items()}
    golden = json.load(open(os.path.join(NANO, 'golden.json'), encoding='utf-8'))
    plain = open(os.path.join(NANO, 'golden_logits.bin'), 'rb').read()
    prompts = {p['name']: p for p in golden['prompts']}
    out = bytearray()
    for entry in golden['logits']:
        prompt, first, n = prompts[entry['name']], entry['first_position'], entry['rows']
        ids = (prompt['prompt_ids'] + prompt['continuation_ids'])[:first + n]
        with torch.no_grad():
            logits = nano_model.forward(params, torch.tensor([ids]), shape, rounding=True)['logits'][0]
        rows = logits[first:first + n].float().numpy().astype('<f4')
        before = np.frombuffer(plain, '<f4', rows.size, entry['offset']).reshape(rows.shape)
        print('%-12s %4d tokens, differs from the plain rows by %.3g' %
              (entry['name'], len(ids), abs(rows - before).max()))
        out += rows.tobytes()
    open('tests/data/rounded/rounded_logits.bin', 'wb').write(bytes(out))


main()
