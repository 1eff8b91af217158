#!/usr/bin/env python3
"""Writes integer_layouts.json: weights packed by GPTQModel, compressed-tensors and Model Optimizer, for the tests of `packed`.

Run with an environment that has gptqmodel and compressed-tensors (tests/interop/run.py makes one), and nvidia-modelopt.
Matrices are made by the formula of `number`, which the test repeats.
"""

import json
from pathlib import Path

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
from modelopt.torch.export.quant_utils import pack_int4_in_uint8

ROWS, COLUMNS = 32, 64


def number(index, salt):
    return ((index + 1000 * salt) * 2654435761 % 2**32) >> 16


def tensor(count, salt, shape, scale):
    return torch.tensor([scale(number(i, salt)) for i in range(count)]).reshape(shape)


def matrix(bits, group, symmetric, act_order):
    groups = COLUMNS // group
    codes = tensor(ROWS * COLUMNS, 1, (ROWS, COLUMNS), lambda n: n % 2**bits)
    scales = tensor(ROWS * groups, 2, (ROWS, groups), lambda n: (n % 61 + 1) / 1024)
    zeros = tensor(ROWS * groups, 3, (ROWS, groups), lambda n: 2 ** (bits - 1) if symmetric else 1 + n % (2**bits - 1))
    index = torch.tensor([(c * 13 % COLUMNS if act_order else c) // group for c in range(COLUMNS)])
    weight = scales[:, index] * (codes - zeros[:, index])
    return codes, scales, zeros, index, weight


def integers(value):
    return {"shape": list(value.shape), "values": value.flatten().tolist()}


def quantised_by_gptqmodel(kind, bits, group, symmetric, act_order, v1=False):
    _, scales, zeros, index, weight = matrix(bits, group, symmetric, act_order)
    linear = torch.nn.Linear(COLUMNS, ROWS, bias=False)
    linear.weight.data = weight.float()
    packed = kind(
        bits=bits, group_size=group, sym=symmetric, desc_act=act_order, in_features=COLUMNS, out_features=ROWS,
        bias=False, pack_dtype=torch.int32, register_buffers=True,
    )
    if kind is TorchLinear:
        packed.pack_original(linear, scales.float(), zeros.float(), index.to(torch.int32))
        if v1:
            convert_gptq_v2_to_v1_format_module(packed, quantize_config=type("Q", (), {"bits": bits, "pack_dtype": torch.int32})())
    else:
        packed.pack(linear, scales.half(), zeros.float())
    return {"qweight": integers(packed.qweight), "qzeros": integers(packed.qzeros)}


def quantised_by_compressed_tensors(bits, group, symmetric):
    codes, _, zeros, _, _ = matrix(bits, group, symmetric, False)
    signed = lambda values: (values - 2 ** (bits - 1)).to(torch.int8)
    tensors = {"weight_packed": integers(pack_to_int32(signed(codes), bits))}
    if not symmetric:
        tensors["weight_zero_point"] = integers(pack_to_int32(signed(zeros), bits, packed_dim=0))
    return tensors


def quantised_by_modelopt(group):
    _, scales, _, _, weight = matrix(4, group, True, False)
    return {"weight": integers(pack_int4_in_uint8(weight, scales, group))}


def main():
    cases = []

    def add(layout, bits, group, symmetric, tensors, act_order=False, v1=False):
        cases.append(
            {"layout": layout, "bits": bits, "group_size": group, "symmetric": symmetric, "act_order": act_order,
             "v1": v1, "tensors": tensors}
        )

    for bits, group, symmetric, act_order, v1 in [
        (2, 16, False, False, False), (3, 32, False, False, False), (4, 16, False, True, False),
        (4, 32, True, False, True), (4, 16, False, False, True), (8, 64, True, False, True),
    ]:
        tensors = quantised_by_gptqmodel(TorchLinear, bits, group, symmetric, act_order, v1)
        add("gptq", bits, group, symmetric, tensors, act_order, v1)
    for group, symmetric in [(16, False), (32, True)]:
        add("awq", 4, group, symmetric, quantised_by_gptqmodel(AwqTorchLinear, 4, group, symmetric, False))
    for bits, group, symmetric in [(4, 32, True), (4, 16, False), (8, 64, False), (3, 16, False), (2, 32, True)]:
        add("pack-quantized", bits, group, symmetric, quantised_by_compressed_tensors(bits, group, symmetric))
    for group in (16, 64):
        add("modelopt", 4, group, True, quantised_by_modelopt(group))
    text = "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n"
    Path(__file__).with_suffix(".json").write_text(text)


if __name__ == "__main__":
    main()
