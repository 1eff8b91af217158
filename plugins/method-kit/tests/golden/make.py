"""Makes the golden results beside this file: `python make.py`, with torch installed.

The algorithms are those of `tests/published/solvers.py`; the inputs those of `tests/seeded/mod.rs`, which do the same
arithmetic in the same order.
"""

import json
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "tests" / "published"))
import omniquant  # noqa: E402
import solvers  # noqa: E402

MASK64 = (1 << 64) - 1


class Uniform:
    """SplitMix64, as uniform numbers with 24 bits."""

    def __init__(self, seed):
        self.state = seed

    def unit(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK64
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
        z ^= z >> 31
        return (z >> 40) / 16777216.0

    def signed(self):
        return 2.0 * self.unit() - 1.0


def weights(seed, rows, cols, odd):
    rng = Uniform(seed)
    w = [(rng.signed() + rng.signed() + rng.signed()) * 0.25 for _ in range(rows * cols)]
    if odd:
        w[:cols] = [0.0] * cols
        w[cols : 2 * cols] = [abs(x) for x in w[cols : 2 * cols]]
        w[2 * cols : 3 * cols] = [-abs(x) for x in w[2 * cols : 3 * cols]]
        w[3 * cols + 3] *= 8.0
    return torch.tensor(w, dtype=torch.float64).float().reshape(rows, cols)


def inputs(seed, tokens, cols, dead):
    rng = Uniform(seed)
    gains = []
    for _ in range(cols):
        u = rng.unit()
        gains.append(0.2 + 3.0 * u * u)
    x = []
    for _ in range(tokens):
        feature = 0.0
        for j, gain in enumerate(gains):
            feature = rng.signed() + 0.6 * feature
            x.append(0.0 if j in dead else gain * feature)
    return torch.tensor(x, dtype=torch.float64).float().reshape(tokens, cols)


def accumulated(kind, x, sequences):
    total = kind(x.shape[1])
    for part in torch.chunk(x, sequences):
        total.add(part)
    return total.value


def floats(tensor):
    """Nine digits: enough to be read back as the same float32."""
    return [float(f"{x:.9g}") for x in tensor.flatten().tolist()]


def digits(mask):
    return ["".join("1" if x else "0" for x in row) for row in mask.tolist()]


def hexadecimal(codes):
    return ["".join(f"{int(c):02x}" for c in row) for row in codes.tolist()]


def grid_results(rounded, codes):
    return {
        "codes": hexadecimal(codes),
        "scales": floats(rounded.scales),
        "zeros": [int(z) for z in rounded.zeros.flatten().tolist()],
    }


def rtn_case(seed, bits, group_size, symmetric, mse, rows=6, cols=48):
    w = weights(seed, rows, cols, True)
    options = solvers.GridOptions(bits, symmetric, mse)
    rounded = solvers.round_to_nearest(w, options, group_size or -1)
    return {
        "weight_seed": seed,
        "rows": rows,
        "cols": cols,
        "bits": bits,
        "group_size": group_size,
        "symmetric": symmetric,
        "mse": mse,
        **grid_results(rounded, rounded.codes),
    }


def rtn_cases():
    settings = []
    for bits in (2, 3, 4, 5, 8):
        for symmetric in (False, True):
            for group_size, mse in ((None, False), (None, True), (16, False), (16, True), (20, False)):
                if bits <= 4 or not mse:
                    settings.append((bits, group_size, symmetric, mse))
    return [rtn_case(13 + i, *setting) for i, setting in enumerate(settings)]


def gptq_case(
    seed, rows, cols, tokens, bits, group_size, symmetric, act_order=False, static_groups=False, mse=False,
    block_size=32, percdamp=0.01, dead=(), sequences=4,
):  # fmt: skip
    w = weights(seed, rows, cols, True)
    hessian = accumulated(solvers.HessianSum, inputs(seed + 100, tokens, cols, dead), sequences)
    rounded = solvers.gptq(
        w,
        hessian,
        solvers.GridOptions(bits, symmetric, mse),
        group_size or -1,
        act_order,
        static_groups,
        block_size,
        percdamp,
    )
    return {
        "weight_seed": seed,
        "input_seed": seed + 100,
        "rows": rows,
        "cols": cols,
        "tokens": tokens,
        "sequences": sequences,
        "bits": bits,
        "group_size": group_size,
        "symmetric": symmetric,
        "act_order": act_order,
        "static_groups": static_groups,
        "mse": mse,
        "block_size": block_size,
        "percdamp": percdamp,
        "dead": list(dead),
        **grid_results(rounded, solvers.codes_of(rounded)),
        "g_idx": rounded.groups.tolist(),
        "loss": rounded.loss,
    }


def gptq_cases():
    return [
        gptq_case(1, 16, 96, 256, 4, None, True),
        gptq_case(2, 16, 96, 256, 4, 32, True),
        gptq_case(3, 16, 96, 256, 3, 16, False),
        gptq_case(4, 16, 96, 256, 2, 24, False, act_order=True, percdamp=0.05),
        gptq_case(5, 16, 96, 256, 4, 32, True, act_order=True, static_groups=True),
        gptq_case(6, 16, 96, 256, 8, None, False, act_order=True),
        gptq_case(7, 12, 150, 300, 4, 64, True, block_size=128, dead=(0, 7, 100)),
        gptq_case(8, 12, 150, 300, 4, 64, True, act_order=True, block_size=128, dead=(0, 7, 100)),
        gptq_case(9, 12, 96, 256, 3, 32, False, mse=True),
        gptq_case(10, 8, 320, 512, 4, 128, True, act_order=True, block_size=128),
        gptq_case(11, 8, 320, 512, 3, 128, False, static_groups=True, block_size=128, percdamp=0.1, dead=(5,)),
        gptq_case(12, 5, 7, 64, 4, 3, False, block_size=128),
        # Range search with the other options that decide where groups come from.
        gptq_case(71, 12, 96, 256, 4, 32, True, mse=True),
        gptq_case(72, 12, 96, 256, 3, None, False, mse=True, dead=(2,)),
        gptq_case(73, 12, 96, 256, 2, 32, False, static_groups=True, mse=True),
        gptq_case(74, 12, 96, 256, 3, 32, True, act_order=True, static_groups=True, mse=True, dead=(40,)),
        gptq_case(75, 12, 150, 300, 3, 64, False, act_order=True, static_groups=True, block_size=128),
        # Groups smaller than a block begin inside it; larger ones reach over several.
        gptq_case(76, 12, 96, 256, 4, 8, False, block_size=64),
        gptq_case(77, 12, 96, 256, 4, 48, False, block_size=16),
        gptq_case(78, 12, 96, 256, 4, 32, False, block_size=1),
    ]


def mask_case(seed, method, ratio=0, prune=0, of=0, cols=75, rows=7, tokens=64, dead=(3,)):
    w = weights(seed, rows, cols, False)
    x = inputs(seed + 100, tokens, cols, dead)
    if method == "magnitude":
        scores = torch.abs(w)
    else:
        scores = solvers.wanda_scores(w, accumulated(solvers.SquareSum, x, 1))
    if method == "wanda-variant":
        mask = solvers.mask_same_share(scores, ratio)
    else:
        mask = solvers.mask_lowest(scores, ratio, prune, of)
    return {
        "method": method,
        "weight_seed": seed,
        "input_seed": seed + 100,
        "tokens": tokens,
        "rows": rows,
        "cols": cols,
        "dead": list(dead),
        "ratio": ratio,
        "prune": prune,
        "of": of,
        "mask": digits(mask),
    }


def mask_cases():
    cases = []
    seed = 55
    for method in ("magnitude", "wanda"):
        for ratio in (0.5, 0.3, 0.77):
            cases.append(mask_case(seed, method, ratio))
            seed += 1
        for prune, of in ((2, 4), (4, 8), (1, 4)):
            cases.append(mask_case(seed, method, prune=prune, of=of, cols=72))
            seed += 1
    for seed, ratio in ((81, 0.5), (82, 0.3), (83, 0.7), (84, 0.05), (85, 0.99)):
        cases.append(mask_case(seed, "wanda-variant", ratio, rows=24))
    return cases


def sparsegpt_case(seed, rows, cols, tokens, ratio=0, prune=0, of=0, block_size=128, percdamp=0.01, dead=()):
    w = weights(seed, rows, cols, False)
    hessian = accumulated(solvers.HessianSum, inputs(seed + 100, tokens, cols, dead), 4)
    new, mask, loss = solvers.sparsegpt(w, hessian, ratio, prune, of, block_size, percdamp)
    return {
        "weight_seed": seed,
        "input_seed": seed + 100,
        "tokens": tokens,
        "sequences": 4,
        "rows": rows,
        "cols": cols,
        "dead": list(dead),
        "ratio": ratio,
        "prune": prune,
        "of": of,
        "block_size": block_size,
        "percdamp": percdamp,
        "mask": digits(mask),
        "weights": floats(new),
        "loss": loss,
    }


def sparsegpt_cases():
    return [
        sparsegpt_case(67, 12, 96, 256, ratio=0.5, block_size=32),
        sparsegpt_case(68, 12, 150, 300, ratio=0.7, dead=(4, 9)),
        sparsegpt_case(69, 12, 96, 256, prune=2, of=4, block_size=32),
        sparsegpt_case(70, 12, 96, 256, prune=4, of=8),
        # Other shares, other damping, blocks of one pattern, blocks that do not divide the columns, dead inputs
        # (one a pattern: which of several zeros `topk` takes is chance).
        sparsegpt_case(91, 8, 96, 256, ratio=0.25, block_size=64, percdamp=0.1),
        sparsegpt_case(92, 8, 90, 256, ratio=0.9, block_size=16),
        sparsegpt_case(93, 8, 64, 256, prune=1, of=4, block_size=4, dead=(8, 21, 42)),
        sparsegpt_case(94, 8, 72, 256, prune=6, of=8, block_size=24),
    ]


def clipping_case(seed, rows, cols, bits, group_size):
    """The gradients are those of the sum of the rounded weights, each times a number of its own."""
    groups = cols // (group_size or cols)
    weight = weights(seed, rows, cols, True).requires_grad_()
    upper = (8 * weights(seed + 1, rows, groups, False) + 2).requires_grad_()
    lower = (8 * weights(seed + 2, rows, groups, False) + 2).requires_grad_()
    rounded = omniquant.clip_and_round(weight, upper, lower, bits, group_size)
    (rounded * weights(seed + 3, rows, cols, False)).sum().backward()
    return {
        "seed": seed,
        "rows": rows,
        "cols": cols,
        "bits": bits,
        "group_size": group_size,
        "rounded": floats(rounded.detach()),
        "weight_gradient": floats(weight.grad),
        "upper_gradient": floats(upper.grad),
        "lower_gradient": floats(lower.grad),
    }


def clipping_cases():
    return [
        clipping_case(201, 6, 24, 3, 8),
        clipping_case(211, 6, 24, 4, None),
        clipping_case(221, 5, 32, 2, 16),
        clipping_case(231, 5, 10, 8, 5),
    ]


def write(name, cases):
    text = json.dumps({"cases": cases}, separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text)
    print(f"{name}.json: {len(cases)} cases")


def main():
    torch.set_num_threads(1)
    write("rtn", rtn_cases())
    write("gptq", gptq_cases())
    write("mask", mask_cases())
    write("sparsegpt", sparsegpt_cases())
    write("clipping", clipping_cases())


if __name__ == "__main__":
    main()
