"""Scores the items of a result file with transformers (float32, CPU), as lm-evaluation-harness does.

usage: score_transformers.py CHECKPOINT ITEMS.jsonl THREADS BATCH_SIZE...

Every batch size is timed over all items; requests are sorted by length, so that padding costs least. Prints one JSON
object: seconds per batch size, seconds of opening model and tokenizer and of tokenising, and the log-likelihoods of
the choices in the order of the items.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def requests_of(items_file, tokenizer):
    requests = []
    with open(items_file, encoding="utf-8") as lines:
        for line in lines:
            item = json.loads(line)
            context = None
            for asked in item["asked"]:
                context = asked.get("context", context)
                prefix = tokenizer.encode(context)
                whole = tokenizer.encode(context + asked["continuation"])
                requests.append((whole, len(prefix)))
    return requests


@torch.inference_mode()
def score(model, requests, batch_size):
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i][0]))
    scores = [0.0] * len(requests)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        inputs = [requests[i][0][:-1] for i in batch]
        longest = max(map(len, inputs))
        ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in inputs])
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in inputs])
        log_probs = torch.log_softmax(model(input_ids=ids, attention_mask=mask).logits, dim=-1)
        for row, i in enumerate(batch):
            whole, prefix = requests[i]
            targets = torch.tensor(whole[prefix:])
            at = torch.arange(prefix - 1, len(whole) - 1)
            scores[i] = log_probs[row, at, targets].double().sum().item()
    return scores


def main():
    checkpoint, items_file, threads, *batch_sizes = sys.argv[1:]
    torch.set_num_threads(int(threads))
    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    model.eval()
    requests = requests_of(items_file, tokenizer)
    preparation = time.perf_counter() - start
    score(model, requests[:8], 4)  # warm-up
    seconds = {}
    for batch_size in map(int, batch_sizes):
        start = time.perf_counter()
        scores = score(model, requests, batch_size)
        seconds[batch_size] = time.perf_counter() - start
        print(f"transformers, batch {batch_size}: {seconds[batch_size]:.1f} s", file=sys.stderr)
    answer = {"seconds": seconds, "preparation": preparation, "log_likelihoods": scores, "torch": torch.__version__}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
