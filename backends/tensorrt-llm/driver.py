"""Asks TensorRT-LLM's Python interface what is asked here: a line of JSON on standard input for each request, a line for each answer.

Requests are objects with what is to be done, `do`; the first is `open`. An answer is `{"answer": ...}` or `{"error": "in one line"}`, with
`"unsupported": true` where there is nothing to run a model on. The program ends when its input does.
"""

import asyncio
import json
import os
import sys
import time
import traceback


class Unsupported(Exception):
    """There is nothing to run a model on."""


def open_model(arguments, gpus):
    """Loads a model with arguments of `LLM` on so many GPUs; gives it, with what it runs on."""
    # Imported here, so that what is wrong with them is an answer too.
    import torch

    if not torch.cuda.is_available():
        raise Unsupported("PyTorch finds no NVIDIA GPU, and it runs on nothing else")
    import tensorrt_llm
    from tensorrt_llm.llmapi import KvCacheConfig

    cache = KvCacheConfig(**arguments.pop("kv_cache_config"))
    llm = tensorrt_llm.LLM(kv_cache_config=cache, **arguments)
    used = range(min(gpus, torch.cuda.device_count()))
    free, total = map(sum, zip(*(torch.cuda.mem_get_info(i) for i in used)))
    return llm, {
        "version": tensorrt_llm.__version__,
        "gpus": [torch.cuda.get_device_name(i) for i in used],
        "memory": total - free,
    }


def sampling(**more):
    """Greedy; no token ends an answer unless it is named, and no text is made."""
    from tensorrt_llm import SamplingParams

    return SamplingParams(top_k=1, end_id=-1, pad_id=-1, detokenize=False, **more)


def score(llm, prompts, first):
    """For each prompt, `[ln p, rank]` of each of its tokens from place `first` on; nothing for those that the library left out.

    Entry i of `prompt_logprobs` is the distribution after token i, so what is said of token i + 1.
    """
    outputs = llm.generate(prompts, sampling(max_tokens=1, prompt_logprobs=1), use_tqdm=False)

    def of_token(entries, place, token):
        entry = entries[place - 1].get(token) if place - 1 < len(entries) else None
        return None if entry is None else [entry.logprob, entry.rank]

    def of_prompt(output, tokens, begin):
        entries = output.outputs[0].prompt_logprobs or []
        return [of_token(entries, place, tokens[place]) for place in range(begin, len(tokens))]

    return [of_prompt(*each) for each in zip(outputs, prompts, first)]


def generate(llm, prompt, most, stop):
    """Token ids that go on from a prompt, up to a token of `stop`."""
    # `ignore_eos` would take these for nothing.
    output = llm.generate(prompt, sampling(max_tokens=most, stop_token_ids=stop or None), use_tqdm=False)
    return list(output.outputs[0].token_ids)


def arrivals(llm, prompts, new_tokens):
    """Seconds, from when all prompts are handed over, at which each new token of each is there."""
    params = sampling(max_tokens=new_tokens, ignore_eos=True)

    async def follow(prompt, begin):
        times = []
        async for output in llm.generate_async(prompt, params, streaming=True):
            now = time.perf_counter() - begin
            times += [now] * (len(output.outputs[0].token_ids) - len(times))
        return times

    async def follow_all():
        begin = time.perf_counter()
        return await asyncio.gather(*(follow(prompt, begin) for prompt in prompts))

    return asyncio.run(follow_all())


def line_of(answer):
    """An answer as JSON, which has no place for what is no number."""
    try:
        return json.dumps({"answer": answer}, allow_nan=False)
    except ValueError:
        raise ValueError("it gave a likelihood that is no number") from None


def root_of(error):
    """What an error of a worker's process was, not that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def main():
    # The library writes to standard output, too: that goes where its errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    llm = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        try:
            if do == "open":
                llm, answer = open_model(**request)
            else:
                answer = {"score": score, "generate": generate, "arrivals": arrivals}[do](llm, **request)
            answer = line_of(answer)
        except Exception as error:
            traceback.print_exc()
            root = root_of(error)
            text = " ".join(f"{type(root).__name__}: {root}".split())
            is_unsupported = isinstance(root, Unsupported)
            answer = json.dumps({"error": str(root) if is_unsupported else text[:400], "unsupported": is_unsupported})
        print(answer, file=answers, flush=True)
    if llm is not None:
        llm.shutdown()


# Workers of several GPUs import this file.
if __name__ == "__main__":
    main()
