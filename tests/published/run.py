"""Compresses a LLaMA-shaped model with a published algorithm, block by block, and scores it.

usage: run.py --model CHECKPOINT --method SPEC --calibration TEXT [--windows 16] [--length 2048]
              [--evaluate TEXT] [--evaluate-windows 10] [--threads N] [--save FOLDER]

CHECKPOINT is a folder in the Hugging Face layout; all arithmetic is in float32 on the CPU. SPEC is spelled as for
llmcb-host, and its options mean the same:

    dense
    rtn:bits=4,group_size=128,symmetric=true,mse=false
    gptq:bits=4,group_size=128,symmetric=true,act_order=false,static_groups=false,mse=false,damping=0.01,block_size=128
    magnitude:ratio=0.5           or pattern=2:4
    wanda:ratio=0.5,variant=false or pattern=2:4
    sparsegpt:ratio=0.5,damping=0.01,block_size=128 or pattern=2:4

TEXT is a file, read as it is, or `wikitext2:FILE`: the file's lines, each with its newline and blank ones empty, joined
by two newlines. It is tokenised as one stream and cut into windows from its beginning. As in the published pipelines,
the statistics of all linears of a block come from one pass with the block's own weights, on what the compressed blocks
before it give; then its linears are compressed; then its outputs are computed anew. Embedding and head stay.

Prints one JSON object: seconds of the forward passes (with the accumulation of statistics), of the solver, and of the
whole with loading the model and tokenising (without saving); the perplexity (exp of the mean over windows of the mean over the predicted tokens), the fraction of zeros.
"""

import argparse
import json
import math
import sys
import time

import solvers
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DEFAULTS = {
    "dense": {},
    "rtn": {"bits": 4, "group_size": 128, "symmetric": False, "mse": False},
    "gptq": {
        "bits": 4,
        "group_size": 128,
        "symmetric": False,
        "act_order": False,
        "static_groups": False,
        "mse": False,
        "damping": 0.01,
        "block_size": 128,
    },
    "magnitude": {"ratio": 0.5, "pattern": ""},
    "wanda": {"ratio": 0.5, "pattern": "", "variant": False},
    "sparsegpt": {"ratio": 0.5, "pattern": "", "damping": 0.01, "block_size": 128},
}


def parse(spec):
    name, _, rest = spec.partition(":")
    if name not in DEFAULTS:
        sys.exit(f"no method is called {name}; there are {', '.join(DEFAULTS)}")
    options = dict(DEFAULTS[name])
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        if key not in options:
            sys.exit(f"{name} has no option {key}; it has {', '.join(options) or 'none'}")
        kind = type(options[key])
        options[key] = value == "true" if kind is bool else kind(value)
    return name, options


def pattern(options):
    """How many of how many neighbours go; 0 of 0 without a pattern."""
    if not options["pattern"]:
        return 0, 0
    keep, of = map(int, options["pattern"].split(":"))
    return of - keep, of


class Method:
    """A method on one linear: statistics of its inputs, and its new weight."""

    def __init__(self, spec):
        self.name, self.options = parse(spec)

    def statistics(self, cols):
        kinds = {"gptq": solvers.HessianSum, "sparsegpt": solvers.HessianSum, "wanda": solvers.SquareSum}
        return kinds[self.name](cols) if self.name in kinds else None

    def compress(self, weight, statistics):
        o = self.options
        if self.name in ("rtn", "gptq"):
            grid = solvers.GridOptions(o["bits"], o["symmetric"], o["mse"])
            if self.name == "rtn":
                return solvers.round_to_nearest(weight, grid, o["group_size"]).weight
            return solvers.gptq(
                weight,
                statistics.value,
                grid,
                o["group_size"],
                o["act_order"],
                o["static_groups"],
                o["block_size"],
                o["damping"],
            ).weight
        prune, of = pattern(o)
        if self.name == "sparsegpt":
            return solvers.sparsegpt(
                weight, statistics.value, o["ratio"], prune, of, o["block_size"], o["damping"]
            )[0]
        if self.name == "magnitude":
            scores = torch.abs(weight)
        else:
            scores = solvers.wanda_scores(weight, statistics.value)
        if o.get("variant"):
            mask = solvers.mask_same_share(scores, o["ratio"])
        else:
            mask = solvers.mask_lowest(scores, o["ratio"], prune, of)
        return weight.masked_fill(mask, 0)


def text_of(source):
    kind, _, path = source.rpartition("wikitext2:")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if not kind and not source.startswith("wikitext2:"):
        return text
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return "\n\n".join(line + "\n" if line.strip() else "" for line in lines)


def windows(tokenizer, source, count, length):
    ids = torch.tensor(tokenizer(text_of(source))["input_ids"])
    if len(ids) < count * length:
        sys.exit(f"{source} has {len(ids)} tokens, {count} windows of {length} are asked for")
    return list(ids[: count * length].reshape(count, 1, length))


def linears_of(block):
    return {name: module for name, module in block.named_modules() if type(module) is torch.nn.Linear}


def compress(model, method, calibration):
    """Walks the blocks; gives the seconds of forward passes and of the solver."""
    base = model.model
    hidden = [base.embed_tokens(window) for window in calibration]
    positions = torch.arange(hidden[0].shape[1]).unsqueeze(0)
    rotary = base.rotary_emb(hidden[0], positions)

    def forward(block, x):
        # Without a mask, attention is causal.
        out = block(x, attention_mask=None, position_ids=positions, position_embeddings=rotary)
        return out[0] if isinstance(out, tuple) else out

    seconds = {"forward": 0.0, "solve": 0.0}
    for index, block in enumerate(base.layers):
        start = time.perf_counter()
        linears = linears_of(block)
        statistics = {name: method.statistics(linear.in_features) for name, linear in linears.items()}
        hooks = []
        for name, linear in linears.items():
            if statistics[name] is not None:

                def observe(_, inputs, __, name=name):
                    statistics[name].add(inputs[0][0])

                hooks.append(linear.register_forward_hook(observe))
        if hooks:
            for x in hidden:
                forward(block, x)
        for hook in hooks:
            hook.remove()
        solving = time.perf_counter()
        for name, linear in linears.items():
            linear.weight.data = method.compress(linear.weight.data, statistics[name])
        solved = time.perf_counter()
        hidden = [forward(block, x) for x in hidden]
        seconds["solve"] += solved - solving
        seconds["forward"] += solving - start + time.perf_counter() - solved
        print(f"block {index + 1} of {len(base.layers)}", file=sys.stderr)
    return seconds


def perplexity(model, evaluation):
    total = 0.0
    for window in evaluation:
        logits = model(window).logits[0, :-1].float()
        total += torch.nn.functional.cross_entropy(logits, window[0, 1:]).item()
    return math.exp(total / len(evaluation))


def zeros(model):
    weights = [linear.weight for block in model.model.layers for linear in linears_of(block).values()]
    return sum((w == 0).sum().item() for w in weights) / sum(w.numel() for w in weights)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--calibration")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--evaluate")
    parser.add_argument("--evaluate-windows", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--save")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    method = Method(arguments.method)
    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model.eval()
    result = {"method": arguments.method, "torch": torch.__version__, "threads": torch.get_num_threads()}
    if method.name != "dense":
        if not arguments.calibration:
            sys.exit("--calibration names no text")
        calibration = windows(tokenizer, arguments.calibration, arguments.windows, arguments.length)
        result["seconds"] = compress(model, method, calibration)
        result["zero_fraction"] = zeros(model)
        result["seconds"]["whole"] = time.perf_counter() - start
    if arguments.save:
        model.save_pretrained(arguments.save)
    if arguments.evaluate:
        evaluation = windows(tokenizer, arguments.evaluate, arguments.evaluate_windows, arguments.length)
        result["perplexity"] = perplexity(model, evaluation)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
