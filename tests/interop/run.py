#!/usr/bin/env python3
"""Loads checkpoints of every format with other people's packages and compares with our runner. See README.md."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Later versions of compressed-tensors have no reader of sparse weights.
SPARSE_PACKAGES = ["compressed-tensors==0.12.2", "transformers==4.57.1"]
PACKAGES = ["torch", "transformers", "accelerate", "compressed-tensors", "gguf"]
# These build from source, and may fail where there is no compiler: their cases then say so.
OPTIONAL = [["gptqmodel", "--no-build-isolation"], ["llama-cpp-python"]]

# Name, method, format.
CASES = [
    ("dense-f32", "rtn:bits=8,group_size=-1,symmetric=true", "dense"),
    ("ct-w4a16-group-sym", "rtn:bits=4,group_size=32,symmetric=true", "compressed-tensors"),
    ("ct-w4a16-group-asym", "rtn:bits=4,group_size=64", "compressed-tensors"),
    ("ct-w4a16-channel-sym", "rtn:bits=4,group_size=-1,symmetric=true", "compressed-tensors"),
    ("ct-w3a16-group-asym", "rtn:bits=3,group_size=64", "compressed-tensors"),
    ("ct-w8a16-channel-sym", "rtn:bits=8,group_size=-1,symmetric=true", "compressed-tensors"),
    ("ct-w8a16-channel-asym", "rtn:bits=8,group_size=-1", "compressed-tensors"),
    ("ct-int8-channel", "rtn:bits=8,group_size=-1,symmetric=true", "compressed-tensors:int-quantized"),
    ("ct-w8a8", "smoothquant", "compressed-tensors:int-quantized"),
    ("ct-sparse-24", "magnitude:pattern=2:4", "compressed-tensors:sparse-24-bitmask"),
    ("ct-sparse", "magnitude:ratio=0.7", "compressed-tensors:sparse-bitmask"),
    ("gptq-4", "rtn:bits=4,group_size=64,symmetric=true", "gptq"),
    ("gptq-4-asym", "rtn:bits=4,group_size=64", "gptq"),
    ("gptq-4-act-order", "gptq:bits=4,group_size=64,act_order=true,symmetric=true", "gptq"),
    ("gptq-4-ragged", "rtn:bits=4,group_size=128,symmetric=true", "gptq"),
    ("gptq-2", "rtn:bits=2,group_size=32", "gptq"),
    ("gptq-3", "rtn:bits=3,group_size=32", "gptq"),
    ("gptq-8", "rtn:bits=8,group_size=-1,symmetric=true", "gptq"),
    ("awq-sym", "rtn:bits=4,group_size=64,symmetric=true", "awq"),
    ("awq-asym", "rtn:bits=4,group_size=64", "awq"),
    ("gguf-f16", "rtn:bits=8,group_size=-1,symmetric=true", "gguf:f16"),
    ("gguf-q8_0", "rtn:bits=8,group_size=32,symmetric=true", "gguf:q8_0"),
    ("gguf-q4_1", "rtn:bits=4,group_size=32", "gguf:q4_1"),
    ("gguf-q4_0", "rtn:bits=4,group_size=32,symmetric=true", "gguf:q4_0"),
]

TEXT = "The capital of France is Paris, and the capital of Italy is Rome. In 1969 people first walked on the"


def environment(venv, packages, optional):
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        for package in optional:
            subprocess.run([python, "-m", "pip", "install", "-q", *package])
    return python


def is_sparse(format):
    return ":sparse-" in format


def measure(*arguments):
    tool = ROOT / "target" / "release" / "examples" / "measure"
    subprocess.run([tool, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def numbers(path):
    import numpy

    return numpy.fromfile(path, dtype="<f4")


def linears(config):
    parts = ["self_attn." + p for p in ("q_proj", "k_proj", "v_proj", "o_proj")]
    parts += ["mlp." + p for p in ("gate_proj", "up_proj", "down_proj")]
    return [f"model.layers.{i}.{part}" for i in range(config["num_hidden_layers"]) for part in parts]


def our_logits(checkpoint, ids, work):
    out = work / "logits.bin"
    measure("logits", checkpoint, out, *ids)
    return numbers(out).reshape(len(ids), -1)


def our_weights(checkpoint, names, shapes, work):
    out = work / "weights.bin"
    measure("weights", checkpoint, out, *(name + ".weight" for name in names))
    flat, at, found = numbers(out), 0, {}
    for name in names:
        size = shapes[name][0] * shapes[name][1]
        found[name] = flat[at : at + size].reshape(shapes[name])
        at += size
    return found


def worst(ours, theirs):
    """Largest difference, over all pairs."""
    import numpy

    return max(float(numpy.abs(ours[name] - theirs[name]).max()) for name in ours)


def log_probabilities(logits):
    import numpy

    logits = logits.astype("f8")
    top = logits.max(-1, keepdims=True)
    return logits - top - numpy.log(numpy.exp(logits - top).sum(-1, keepdims=True))


def compare_logits(report, ours, theirs):
    import numpy

    report["logits"] = float(numpy.abs(ours - theirs).max())
    a, b = log_probabilities(ours), log_probabilities(theirs)
    report["log_probability"] = float(numpy.abs(a - b)[b > -20].max())
    report["same_argmax"] = float((ours.argmax(-1) == theirs.argmax(-1)).mean())


def hub_logits(model, ids):
    import torch

    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def shapes_of(model, names):
    return {name: tuple(model.get_submodule(name).weight.shape) for name in names}


def plain_model(checkpoint):
    """A float32 model of the checkpoint's shape, with everything that is not a quantised linear loaded."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tensors = load_file(checkpoint / "model.safetensors")
    known = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if name in known and tensor.is_floating_point():
            known[name].data.copy_(tensor)
    model.tie_weights()
    return model, tensors


def transformers_case(checkpoint, config, ids, work, report):
    import torch
    from transformers import AutoModelForCausalLM

    extra = {}
    if "quantization_config" in config:
        from transformers.utils.quantization_config import CompressedTensorsConfig

        # A dequantised model does not round its activations.
        if not config.get("llmcb_activations_removed"):
            extra["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, **extra).eval()
    # First the logits: weights may only become numbers when the model runs.
    reference = hub_logits(model, ids)
    names = linears(config)
    theirs = {name: model.get_submodule(name).weight.detach().float().numpy() for name in names}
    report["weights"] = worst(our_weights(checkpoint, names, shapes_of(model, names), work), theirs)
    compare_logits(report, our_logits(checkpoint, ids, work), reference)
    if config.get("llmcb_activations_removed"):
        # Rounding activations makes a model chaotic: this is how far its own logits move with its inputs in their last bits.
        embedded = model.get_input_embeddings()(torch.tensor([ids]))
        with torch.no_grad():
            moved = model(inputs_embeds=embedded * (1 + 1e-7 * torch.randn_like(embedded))).logits[0].float().numpy()
        report["logits_of_inputs_moved_by_1e-7"] = float(abs(moved - reference).max())


def as_others_read_it(checkpoint):
    """Without the key that only our runner knows, which rounds by SmoothQuant's own rule and not by compressed-tensors'."""
    file = checkpoint / "config.json"
    config = json.loads(file.read_text())
    if config.pop("llmcb_activations", None):
        config["llmcb_activations_removed"] = True
        file.write_text(json.dumps(config))


def sparse_case(checkpoint, config, ids, work, report):
    """compressed-tensors makes the weights whole; transformers' own loading fails on `sparse-bitmask` in these versions."""
    from compressed_tensors import ModelCompressor

    compressor = ModelCompressor.from_pretrained(str(checkpoint)).sparsity_compressor
    model, _ = plain_model(checkpoint)
    model.load_state_dict(dict(compressor.decompress(str(checkpoint))), strict=False)
    model.tie_weights()
    names = linears(config)
    theirs = {name: model.get_submodule(name).weight.detach().numpy() for name in names}
    report["weights"] = worst(our_weights(checkpoint, names, shapes_of(model, names), work), theirs)
    compare_logits(report, our_logits(checkpoint, ids, work), hub_logits(model, ids))


def gptqmodel_case(checkpoint, config, ids, work, report):
    """Every linear is built with GPTQModel's torch class from the tensors of the file, and dequantised by it."""
    import torch

    settings = config["quantization_config"]
    model, tensors = plain_model(checkpoint)
    names = linears(config)
    if settings["quant_method"] == "gptq":
        from gptqmodel.nn_modules.qlinear.torch import TorchLinear as Linear
        from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module
    else:
        from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear as Linear
    theirs = {}
    for name in names:
        place = model.get_submodule(name)
        linear = Linear(
            bits=settings["bits"],
            group_size=settings["group_size"],
            sym=settings.get("sym", False),
            desc_act=settings.get("desc_act", False),
            in_features=place.in_features,
            out_features=place.out_features,
            bias=False,
            pack_dtype=torch.int32,
            register_buffers=True,
        )
        own = {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}
        missing, unexpected = linear.load_state_dict(own, strict=False)
        if missing or unexpected:
            raise RuntimeError(f"{name}: missing {missing}, unexpected {unexpected}")
        if settings["quant_method"] == "gptq":
            if settings["checkpoint_format"] == "gptq":
                convert_gptq_v1_to_v2_format_module(linear, bits=settings["bits"], pack_dtype=torch.int32)
            linear.post_init()
            # Scales in single precision, so that the product is not rounded to half.
            linear.scales = linear.scales.float()
            weight = linear.dequantize_weight().T
        else:
            linear.post_init()
            linear.scales = linear.scales.float()
            weight = awq_weight(linear)
        weight = weight.detach().float().contiguous()
        place.weight.data.copy_(weight)
        theirs[name] = weight.numpy()
    report["weights"] = worst(our_weights(checkpoint, names, shapes_of(model, names), work), theirs)
    compare_logits(report, our_logits(checkpoint, ids, work), hub_logits(model, ids))


def awq_weight(linear):
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    return dequantize_gemm(
        linear.qweight, linear.qzeros, linear.scales, linear.bits, linear.group_size
    ).T


def gguf_case(checkpoint, config, ids, work, report):
    import gguf
    import numpy

    reader = gguf.GGUFReader(str(checkpoint / "model.gguf"))
    ours_of = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    ours_of |= {"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
    ours_of |= {"ffn_down": "mlp.down_proj"}
    heads = {"attn_q": reader.fields["llama.attention.head_count"].parts[-1][0]}
    heads["attn_k"] = reader.fields["llama.attention.head_count_kv"].parts[-1][0]
    theirs, shapes = {}, {}
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        if parts[0] != "blk" or parts[2] not in ours_of:
            continue
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("f4")
        weight = weight.reshape([int(n) for n in reversed(tensor.shape)])
        if parts[2] in heads:
            # Back from interleaved rotary pairs.
            n = int(heads[parts[2]])
            weight = weight.reshape(n, weight.shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)
        name = f"model.layers.{parts[1]}.{ours_of[parts[2]]}"
        theirs[name], shapes[name] = numpy.ascontiguousarray(weight), weight.shape
    report["weights"] = worst(our_weights(checkpoint, list(theirs), shapes, work), theirs)
    from llama_cpp import Llama

    model = Llama(str(checkpoint / "model.gguf"), n_ctx=256, logits_all=True, verbose=False, n_threads=2)
    tokens = model.tokenize(TEXT.encode(), add_bos=False, special=True)
    report["same_tokens"] = tokens == ids
    model.eval(ids)
    theirs = numpy.array(model.scores[: len(ids)])
    compare_logits(report, our_logits(checkpoint, ids, work), theirs)


def inside(work, only, sparse):
    """Runs in the environment that has the packages: those for sparse weights, or all others."""
    from tokenizers import Tokenizer

    failed = False
    for name, _, format in CASES:
        checkpoint = work / name
        if (only and name not in only) or not checkpoint.exists() or is_sparse(format) != sparse:
            continue
        report = {"case": name, "format": format}
        try:
            tokenizer = Tokenizer.from_file(str(work / CASES[0][0] / "tokenizer.json"))
            ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
            family = format.split(":")[0]
            config = {} if family == "gguf" else json.loads((checkpoint / "config.json").read_text())
            case = {"gptq": gptqmodel_case, "awq": gptqmodel_case, "gguf": gguf_case}.get(family, transformers_case)
            case = sparse_case if sparse else case
            case(checkpoint, config, ids, work, report)
        except Exception as error:
            report["error"] = f"{type(error).__name__}: {error}"[:300]
            failed = True
        print(json.dumps(report), flush=True)
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--python", help="interpreter of an environment that has the packages")
    parser.add_argument("--sparse-python", help="the same for the older packages that read sparse weights")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "interop")
    parser.add_argument("--only", action="append", help="name of a case; repeatable")
    parser.add_argument("--inside", choices=["sparse", "others"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = options.work.resolve()
    if options.inside:
        return inside(work, options.only, options.inside == "sparse")
    work.mkdir(parents=True, exist_ok=True)
    python = options.python or environment(work / "venv", PACKAGES, OPTIONAL)
    older = ["torch", "accelerate", *SPARSE_PACKAGES]
    sparse_python = options.sparse_python or environment(work / "venv-sparse", older, [])
    build = ["cargo", "build", "--release", "-q"]
    subprocess.run(build, cwd=ROOT, check=True)
    subprocess.run([*build, "-p", "llmcb-transformer", "--example", "measure"], cwd=ROOT, check=True)
    for name, method, format in CASES:
        # The first is always made: its tokenizer is used for all.
        if options.only and name not in options.only and name != CASES[0][0]:
            continue
        shutil.rmtree(work / name, ignore_errors=True)
        command = [ROOT / "target/release/llmcb-host", "compress", "--model", options.model, "--method", method]
        command += ["--format", format, "--out", work / name, "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if (work / name / "config.json").exists():
            as_others_read_it(work / name)
    only = [part for name in options.only or [] for part in ("--only", name)]
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    parts = [(python, "others"), (sparse_python, "sparse")]
    runs = [[python, __file__, "--inside", part, "--work", work, *only] for python, part in parts]
    return max(subprocess.run(run, env=quiet).returncode for run in runs)


if __name__ == "__main__":
    sys.exit(main())
