"""Times the published solvers of GPTQ and SparseGPT on matrices of the shapes of one block of SmolLM2 135M.

usage: solve_torch.py FOLDER THREADS

Writes the matrices into FOLDER for the other side, as plain little-endian float32: `INPUT.gram` [cols, cols] and
`INPUT.LINEAR.weight` [rows, cols], and what they are into `matrices.json`. Prints one JSON object: for each method
the seconds (the least of three runs) over all linears, and the sum of their losses.
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "published"))

import solvers
import torch

SEQUENCES = 8
TOKENS = 4096
INPUTS = {
    "attn_in": (576, {"q": 576, "k": 192, "v": 192}),
    "attn_out": (576, {"o": 576}),
    "mlp_in": (576, {"gate": 1536, "up": 1536}),
    "mlp_out": (1536, {"down": 576}),
}


def gram_of(cols):
    # Some features matter far more than others, as in real activations.
    scales = torch.exp(torch.randn(cols))
    mixing = torch.randn(cols, cols) / cols**0.5
    inputs = torch.randn(TOKENS, cols) @ mixing * scales
    return inputs.T.double().matmul(inputs.double()).float()


@torch.inference_mode()
def main():
    folder, threads = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    cases = []
    for name, (cols, linears) in INPUTS.items():
        gram = gram_of(cols)
        gram.numpy().tofile(os.path.join(folder, f"{name}.gram"))
        for linear, rows in linears.items():
            weight = torch.randn(rows, cols) * 0.05
            weight.numpy().tofile(os.path.join(folder, f"{name}.{linear}.weight"))
            cases.append((weight, gram))
    with open(os.path.join(folder, "matrices.json"), "w", encoding="utf-8") as file:
        inputs = [{"input": name, "cols": cols, "linears": linears} for name, (cols, linears) in INPUTS.items()]
        json.dump({"sequences": SEQUENCES, "inputs": inputs}, file)

    def gptq(weight, hessian):
        grid = solvers.GridOptions(bits=4, symmetric=True)
        return solvers.gptq(weight, hessian, grid, group_size=128, act_order=True).loss

    def sparsegpt(weight, hessian):
        return solvers.sparsegpt(weight, hessian, 0.5)[2]

    results = {}
    for name, solve in (("gptq", gptq), ("sparsegpt", sparsegpt)):
        least = float("inf")
        for _ in range(3):
            hessians = [2 / SEQUENCES * gram for _, gram in cases]
            start = time.perf_counter()
            loss = sum(solve(weight, hessian) for (weight, _), hessian in zip(cases, hessians))
            least = min(least, time.perf_counter() - start)
        results[name] = {"seconds": least, "loss": loss}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
