#!/usr/bin/env python3
"""Scores the same items with LLMCBench's own scripts and with llmcb-host (`...@llmcbench`), and compares them. See README.md.

usage: llmcbench.py --scripts FOLDER --model CHECKPOINT --data FOLDER [--limit 24] [--tasks truthfulqa,truthfulqa:preset=null]
"""

import argparse
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUBJECT = "college_computer_science"
PRESETS = ["qa", "help", "comp", "null", "chat", "long", "harm"]
TRUTHFUL_QA = ["truthfulqa" if preset == "qa" else f"truthfulqa:preset={preset}" for preset in PRESETS]
TASKS = ["qnli", "mnli", "mmlu", *TRUTHFUL_QA, "advglue", "advglue_original"]


def theirs(scripts, checkpoint, data, limit, tasks):
    """Per task, per item: whether it is right, and probabilities of the letters (of TruthfulQA: MC1 and MC2)."""
    import pandas as pd
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The scripts say .to("cuda").
    move = torch.Tensor.to
    torch.Tensor.to = lambda self, *a, **k: self if a and a[0] == "cuda" else move(self, *a, **k)
    sys.path.insert(0, str(scripts))
    import evaluate_advglue, evaluate_mmlu, evaluate_mnli, evaluate_qnli, evaluate_tQA

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    settings = types.SimpleNamespace(ntrain=0, seqlen=2048)
    pairs = lambda result: list(zip(map(bool, result[0]), ([float(p) for p in row] for row in result[2])))
    found = {}
    with torch.no_grad():
        if "qnli" in tasks:
            rows = pd.read_csv(data / "qnli/dev.tsv", sep="\t", on_bad_lines="skip")[:limit]
            found["qnli"] = pairs(evaluate_qnli.eval(settings, model, tokenizer, rows[:0], rows))
        if "mnli" in tasks:
            lines = (data / "mnli/mnli_dev_matched.jsonl").read_text(encoding="utf-8").split("\n")[:limit]
            cells = [[r["label"], "", "", "", "", r["premise"], r["hypothesis"]] for r in map(json.loads, lines)]
            rows = pd.DataFrame(cells)
            found["mnli"] = pairs(evaluate_mnli.eval(settings, model, tokenizer, rows[:0], rows))
        if "mmlu" in tasks:
            rows = pd.read_csv(data / f"mmlu/test/{SUBJECT}_test.csv", header=None)[:limit]
            found["mmlu"] = pairs(evaluate_mmlu.eval(settings, SUBJECT, model, tokenizer, rows[:0], rows))
        for task in (task for task in TRUTHFUL_QA if task in tasks):
            rows = pd.read_csv(data / "truthfulqa/TruthfulQA.csv")[:limit]
            preset = task.partition("preset=")[2] or "qa"
            rows = evaluate_tQA.run_probs(rows, tag="t", preset=preset, model=model, tokenizer=tokenizer, device=None)
            found[task] = [(bool(rows.loc[i, "t MC1"]), [float(rows.loc[i, "t MC2"])]) for i in rows.index]
        adversarial = json.loads((data / "advglue/dev_ann.json").read_text(encoding="utf-8"))
        some = {part: rows[:limit] for part, rows in adversarial.items()}
        for task, original in (("advglue", False), ("advglue_original", True)):
            if task not in tasks:
                continue
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                evaluate_advglue.eval(model, tokenizer, some, types.SimpleNamespace(ntrain=0, test_origin=original))
            words = [line.split() for line in out.getvalue().split("\n") if " - Task " in line]
            found[task] = {line[-1]: float(line[1]) for line in words}
    return found


def ours(checkpoint, data, limit, tasks):
    lines = {}
    for task in tasks:
        name, _, option = task.partition(":")
        lines[f"{name}@llmcbench:limit={limit}" + (f",{option}" if option else "")] = task
    found = {}
    with tempfile.TemporaryDirectory() as out:
        command = [ROOT / "target/release/llmcb-host", "run", "--model", checkpoint, "--data", data, "--tasks", ",".join(lines)]
        command = [str(part) for part in [*command, "--out", Path(out) / "results", "--quiet"]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for stage in Path(out).glob("results/stages/evaluate-*"):
            task = lines[json.loads((stage / "result.json").read_text(encoding="utf-8"))["task"]]
            items = (stage / "items.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
            found[task] = [json.loads(item) for item in items]
    return found


def softmax(scores):
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / sum(powers) for power in powers]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scripts", type=Path, required=True, help="a checkout of LLMCBench")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=24, help="items of each task (of MMLU: of each subject)")
    parser.add_argument("--tasks", default=",".join(TASKS), help="which, separated by commas (default: %(default)s)")
    arguments = parser.parse_args()
    tasks = arguments.tasks.split(",")
    if unknown := [task for task in tasks if task not in TASKS]:
        parser.error(f"no task is called {unknown[0]}; there are {', '.join(TASKS)}")
    reference = theirs(arguments.scripts, arguments.model, arguments.data, arguments.limit, tasks)
    mine = ours(arguments.model, arguments.data, arguments.limit, tasks)
    failed = False
    for task, expected in reference.items():
        items = mine[task] if task != "mmlu" else [item for item in mine[task] if item["subset"] == SUBJECT]
        if isinstance(expected, dict):
            parts = {part: [item["answered"]["acc"] for item in items if item["subset"] == part] for part in expected}
            # The script prints four digits.
            worst = max(abs(sum(parts[part]) / len(parts[part]) - value) for part, value in expected.items())
            failed |= worst > 1e-4
            print(json.dumps({"task": task, "items": len(items), "accuracy": worst}))
            continue
        worst, decisions = 0.0, 0
        for (right, values), item in zip(expected, items, strict=True):
            answered = item["answered"]
            found = [answered["mass"]] if task in TRUTHFUL_QA else softmax(answered["log_likelihoods"])
            worst = max([worst, *(abs(a - b) for a, b in zip(values, found))])
            decisions += right != bool(answered["acc"])
        failed |= worst > 1e-3 or decisions > 0
        print(json.dumps({"task": task, "items": len(items), "probability": worst, "decisions": decisions}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
