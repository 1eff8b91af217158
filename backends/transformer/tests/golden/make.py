"""Writes reference logits of tiny models into families.json: `python make.py` beside it, with torch and transformers installed.

Weights follow from the formula that the file itself states, logits are the upstream implementation's in double precision. Cases that are
already in the file and that transformers can build are computed again, and must come out as they are.
"""

import json
import pathlib

import numpy
import torch
import transformers

FILE = pathlib.Path(__file__).with_name("families.json")
COMMON = dict(
    vocab_size=96, hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
NEW = {
    # A window as long as the context hides nothing.
    "mistral": transformers.MistralConfig(**COMMON, sliding_window=64),
    "phi3": transformers.Phi3Config(**COMMON, sliding_window=None),
    "phi3-partial": transformers.Phi3Config(
        **COMMON, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    ),
}
CLASSES = {
    "llama": transformers.LlamaForCausalLM, "qwen2": transformers.Qwen2ForCausalLM, "opt": transformers.OPTForCausalLM,
    "mistral": transformers.MistralForCausalLM, "phi3": transformers.Phi3ForCausalLM,
}


def numbers(name, count):
    """The formula, in 64-bit arithmetic."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with numpy.errstate(over="ignore"):
        x = numpy.uint64(state) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    x ^= x >> numpy.uint64(31)
    u = (x >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**24) - numpy.float32(0.5)
    if "norm" in name and name.endswith("weight"):
        return numpy.float32(1) + u / numpy.float32(2)
    return u / numpy.float32(4 if name.endswith("bias") else 2)


def case(config, ids):
    model = CLASSES[config.model_type](config).to(torch.float64).eval()
    parameters = []
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(torch.from_numpy(numbers(name, tensor.numel())).reshape(tensor.shape).to(torch.float64))
            parameters.append([name, list(tensor.shape)])
        # What is tied is listed once.
        logits = model(torch.tensor([ids])).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="mean")
    keep = json.loads(config.to_json_string(use_diff=False))
    for key in ("transformers_version", "_name_or_path", "id2label", "label2id", "architectures", "problem_type"):
        keep.pop(key, None)
    keep = {key: value for key, value in keep.items() if value is not None}
    rows = [[round(value, 6) for value in row] for row in logits.tolist()]
    return dict(config=keep, parameters=parameters, nll_mean=losses.item(), logits=rows)


def main():
    golden = json.loads(FILE.read_text())
    ids = golden["input_ids"]
    for name, known in golden["cases"].items():
        kind = known["config"]["model_type"]
        if name in NEW or kind not in CLASSES:
            continue
        again = case(CLASSES[kind].config_class(**known["config"]), ids)
        worst = numpy.abs(numpy.array(again["logits"]) - numpy.array(known["logits"])).max()
        assert worst < 2e-6, f"{name}: {worst}"
        print(f"{name}: as it was")
    for name, config in NEW.items():
        golden["cases"][name] = case(config, ids)
        print(f"{name}: written")
    FILE.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
