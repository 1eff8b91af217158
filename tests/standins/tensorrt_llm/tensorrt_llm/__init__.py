"""Stands in for TensorRT-LLM's Python interface: it reads the checkpoint that it is given as the real one's PyTorch backend does, refuses what that
refuses, and answers as that documents, with likelihoods that depend on all tokens before. `LLMCB_STAND_IN` makes it do one wrong thing.
"""

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Optional

import torch

from .checkpoint import Checkpoint
from .llmapi import KvCacheConfig

__version__ = version("tensorrt_llm")

# As many of the arguments of `TorchLlmArgs` as are of use here.
ARGUMENTS = {
    "max_seq_len", "max_batch_size", "max_num_tokens", "pipeline_parallel_size", "kv_cache_config", "cuda_graph_config",
    "attn_backend", "enable_chunked_prefill",
}
MASK = (1 << 64) - 1


def does(what):
    return os.environ.get("LLMCB_STAND_IN") == what


@dataclass(kw_only=True)
class SamplingParams:
    end_id: Optional[int] = None
    pad_id: Optional[int] = None
    max_tokens: int = 32
    stop_token_ids: Optional[list] = None
    top_k: Optional[int] = None
    temperature: Optional[float] = None
    prompt_logprobs: Optional[int] = None
    ignore_eos: bool = False
    detokenize: bool = True


@dataclass
class Logprob:
    logprob: float
    rank: Optional[int] = None


@dataclass
class CompletionOutput:
    index: int
    token_ids: list = field(default_factory=list)
    prompt_logprobs: Optional[list] = field(default_factory=list)


def after(tokens):
    """A number for the tokens so far."""
    state = 1
    for token in tokens:
        state = ((state ^ token) * 0x9E3779B97F4A7C15) & MASK
        state = (state << 29 | state >> 35) & MASK
    return state


class RequestOutput:
    """The output of a request; while it is streamed, of as much as there is."""

    def __init__(self, prompt, params, vocabulary):
        self.prompt_token_ids = prompt
        self.params = params
        self.vocabulary = vocabulary
        self.outputs = [CompletionOutput(0)]
        self.finished = False

    def step(self):
        output = self.outputs[0]
        token = after(self.prompt_token_ids + output.token_ids) % self.vocabulary
        # With `ignore_eos`, tokens that stop are ignored, too.
        stop = [] if self.params.ignore_eos else [self.params.end_id, *(self.params.stop_token_ids or [])]
        if token in stop:
            self.finished = True
        else:
            output.token_ids.append(token)
            self.finished = len(output.token_ids) == self.params.max_tokens

    def complete(self):
        while not self.finished:
            self.step()
        if self.params.prompt_logprobs is not None:
            tokens = self.prompt_token_ids + self.outputs[0].token_ids[:1]
            self.outputs[0].prompt_logprobs = [self.after_token(tokens, i) for i in range(len(self.prompt_token_ids))]
            if does("gives partial output"):
                del self.outputs[0].prompt_logprobs[-2:]
        return self

    def after_token(self, tokens, place):
        """What is said of the token after one: the likeliest, and the one that is there."""
        own = tokens[place + 1]
        state = ((after(tokens[: place + 1]) ^ own) * 0xD6E8FEB86659FD93) & MASK
        logprob = -(state >> 48) / 8192
        if does("answers garbage"):
            logprob = float("nan")
        if logprob > -1:
            return {own: Logprob(logprob, 1)}
        return {(own + 1) % self.vocabulary: Logprob(-0.5, 1), own: Logprob(logprob, 2)}

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.finished:
            raise StopAsyncIteration
        await asyncio.sleep(0.002)
        self.step()
        if does("breaks a stream off") and len(self.outputs[0].token_ids) == 2:
            self.finished = True
        return self


class LLM:
    def __init__(self, model, tokenizer=None, skip_tokenizer_init=False, tensor_parallel_size=1, dtype="auto", **arguments):
        for name in arguments:
            if name not in ARGUMENTS:
                raise ValueError(f"1 validation error for TorchLlmArgs {name} Extra inputs are not permitted")
        assert isinstance(arguments["kv_cache_config"], KvCacheConfig)
        assert skip_tokenizer_init and os.environ["TLLM_WORKER_USE_SINGLE_PROCESS"] == "1"
        self.max_seq_len = arguments["max_seq_len"]
        if file := os.environ.get("LLMCB_STAND_IN_PID"):
            # What it starts is to end with it, also in a session of its own, where MPI puts what it starts.
            self.worker = subprocess.Popen(["sleep", "600"], start_new_session=True)
            with open(file, "w") as pids:
                pids.write(f"{os.getpid()} {self.worker.pid}")
        # The real one writes to standard output, from C++, too.
        os.write(1, b"[TensorRT-LLM] TensorRT-LLM version\n")
        print("Loading safetensors weights in parallel", flush=True)
        self.load()
        checkpoint = Checkpoint(model)
        checkpoint.check(dtype)
        self.vocabulary = checkpoint.config["vocab_size"]
        # What was opened, for the test.
        if file := os.environ.get("LLMCB_STAND_IN_OPENED"):
            with open(file, "a") as opened:
                opened.write(f"{checkpoint.summary()}\n")

    @staticmethod
    def load():
        if does("slow start"):
            for step in range(4):
                time.sleep(0.4)
                print(f"[TRT-LLM] [I] warming up {step}", flush=True)
        if does("never ready"):
            time.sleep(600)
        if does("crashes at load"):
            try:
                raise ValueError("The size of tensor a (64) must match the size of tensor b (32)")
            except ValueError as error:
                raise RuntimeError("Executor worker returned error") from error
        if does("is killed at load"):
            os.kill(os.getpid(), signal.SIGKILL)
        if does("out of memory"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if does("unknown architecture"):
            raise ValueError("Unknown architecture for AutoModelForCausalLM: LlamaForCausalLM")

    def request(self, prompt, params):
        if does("dies in a request"):
            print("RuntimeError: CUDA error: an illegal memory access was encountered", flush=True)
            os._exit(1)
        if does("hangs"):
            time.sleep(600)
        # Without a tokenizer nobody knows what ends an answer.
        assert params.end_id is not None and not params.detokenize and params.top_k == 1
        if len(prompt) + 1 > self.max_seq_len:
            raise ValueError(f"`default_max_tokens` ({self.max_seq_len - len(prompt)}) must be greater than 0")
        return RequestOutput(prompt, params, self.vocabulary)

    def generate(self, inputs, sampling_params, use_tqdm=True):
        if isinstance(inputs[0], int):
            return self.request(inputs, sampling_params).complete()
        return [self.request(prompt, sampling_params).complete() for prompt in inputs]

    def generate_async(self, inputs, sampling_params, streaming=False):
        assert streaming
        return self.request(inputs, sampling_params)

    def shutdown(self):
        if hasattr(self, "worker"):
            self.worker.terminate()
            self.worker.wait()
