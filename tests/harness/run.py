#!/usr/bin/env python3
"""Scores the same items with lm-evaluation-harness and with llmcb-host, and compares every log-likelihood and decision. See README.md."""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["torch==2.13.0", "transformers", "lm-eval[hf]==0.4.13"]
TASKS = ["arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "mmlu_abstract_algebra", "mmlu_world_religions"]
TASKS += ["qnli", "mnli", "truthfulqa_mc1", "truthfulqa_mc2"]
LIMIT = 1e-3
# The harness adds log-likelihoods in float32: long texts lose more than the limit in it, though not in float64.
RELATIVE = 4e-6


def json_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def arc(folder, name):
    return json_lines(folder / name.lower().replace("-", "_") / f"{name}-test.jsonl")


def piqa(folder):
    rows = json_lines(folder / "piqa/valid.jsonl")
    labels = (folder / "piqa/valid-labels.lst").read_text().split()
    return [{**row, "label": int(label)} for row, label in zip(rows, labels)]


def mmlu(folder, subject):
    with open(folder / f"mmlu/test/{subject}_test.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [dict(question=r[0], choices=r[1:5], answer="ABCD".index(r[5].strip()), subject=subject) for r in rows]


def qnli(folder):
    lines = (folder / "qnli/dev.tsv").read_text(encoding="utf-8").split("\n")
    cells = [line.split("\t") for line in lines[1:] if line]
    return [dict(question=c[1], sentence=c[2], label=["entailment", "not_entailment"].index(c[3])) for c in cells]


def mnli(folder):
    names = ["entailment", "neutral", "contradiction"]
    return [{**row, "label": names.index(row["label"])} for row in json_lines(folder / "mnli/mnli_dev_matched.jsonl")]


def truthful(folder):
    with open(folder / "truthfulqa/TruthfulQA.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    split = lambda text: [answer.strip() for answer in text.split(";") if answer.strip()]
    targets = lambda right, wrong: {"choices": right + wrong, "labels": [1] * len(right) + [0] * len(wrong)}
    out = []
    for row in rows:
        right, wrong = split(row["Correct Answers"]), split(row["Incorrect Answers"])
        mc1, mc2 = targets([row["Best Answer"].strip()], wrong), targets(right, wrong)
        out.append({"question": row["Question"], "mc1_targets": mc1, "mc2_targets": mc2})
    return out


def rows_of(folder, path, name):
    """Rows of a data set of the hub, from the files in which its authors publish it."""
    known = {
        "allenai/ai2_arc": lambda: arc(folder, name),
        "Rowan/hellaswag": lambda: json_lines(folder / "hellaswag/hellaswag_val.jsonl"),
        "baber/piqa": lambda: piqa(folder),
        "allenai/winogrande": lambda: json_lines(folder / "winogrande/dev.jsonl"),
        "cais/mmlu": lambda: mmlu(folder, name),
        "truthfulqa/truthful_qa": lambda: truthful(folder),
        "nyu-mll/glue": lambda: {"qnli": qnli, "mnli": mnli}[name](folder),
    }
    return known[path]()


def theirs(arguments):
    """Per task, per item: log-likelihoods of its choices."""
    import datasets

    def load_dataset(path=None, name=None, **_):
        rows = datasets.Dataset.from_list(rows_of(arguments.data, path, name))
        # Which part a task evaluates on is its own affair; all are the same here.
        parts = ["train", "validation", "validation_matched", "validation_mismatched", "test", "dev"]
        return datasets.DatasetDict({part: rows for part in parts})

    datasets.load_dataset = load_dataset
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(arguments.model), dtype="float32", device="cpu", batch_size=arguments.batch)
    results = lm_eval.simple_evaluate(
        model=model, tasks=arguments.tasks, limit=arguments.limit, num_fewshot=0, log_samples=True, bootstrap_iters=0
    )
    found = {}
    for task, samples in results["samples"].items():
        samples.sort(key=lambda sample: sample["doc_id"])
        metric = lambda sample: {key: float(sample[key]) for key in ("acc", "acc_norm") if key in sample}
        found[task] = [
            {"scores": [float(response[0]) for response in sample["filtered_resps"]], **metric(sample)} for sample in samples
        ]
    return found


def ours(arguments, out):
    command = [ROOT / "target/release/llmcb-host", "run", "--model", arguments.model, "--data", arguments.data]
    command += ["--tasks", ",".join(arguments.tasks), "--limit", str(arguments.limit), "--out", out, "--quiet"]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    found = {}
    for file in Path(out).glob("stages/evaluate-*/items.jsonl"):
        for item in map(json.loads, file.read_text(encoding="utf-8").split("\n")[:-1]):
            found.setdefault(item["task"], []).append(item["answered"])
    return found


def compare(task, expected, answers):
    """The largest difference of log-likelihoods, how many are beyond the limit, and how many decisions differ."""
    if len(expected) != len(answers):
        sys.exit(f"{task}: {len(expected)} items of the harness, {len(answers)} of llmcb-host")
    worst, beyond, decisions = 0.0, 0, 0
    for reference, answered in zip(expected, answers):
        pairs = list(zip(reference["scores"], answered["log_likelihoods"]))
        worst = max([worst, *(abs(a - b) for a, b in pairs)])
        beyond += sum(abs(a - b) > max(LIMIT, RELATIVE * abs(a)) for a, b in pairs)
        if task == "truthfulqa_mc2":
            # A share, not a decision.
            decisions += abs(reference["acc"] - answered["mass"]) > LIMIT
            continue
        decisions += any(reference[key] != answered[key] for key in ("acc", "acc_norm") if answered.get(key) is not None)
    return worst, beyond, decisions


def environment():
    folder = ROOT / "target/harness/venv"
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint in the Hugging Face layout")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets, as for llmcb-host --data")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=TASKS)
    parser.add_argument("--python", help="interpreter of an environment that has the packages")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        python = arguments.python or environment()
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        sys.exit(subprocess.run([python, __file__, "--inside", *sys.argv[1:]], env=quiet).returncode)
    with tempfile.TemporaryDirectory() as out:
        mine = ours(arguments, Path(out) / "results")
    reference = theirs(arguments)
    failed = False
    for task in arguments.tasks:
        worst, beyond, decisions = compare(task, reference[task], mine[task])
        failed |= beyond > 0 or decisions > 0
        items = len(mine[task])
        print(json.dumps({"task": task, "items": items, "log_likelihood": worst, "decisions": decisions}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
