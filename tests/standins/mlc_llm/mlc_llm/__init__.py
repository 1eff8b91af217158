"""Stands in for MLC-LLM: the parts of its command line that the backend calls.

`compile` and `convert_weight` make a real model library and real weights with TVM where TVM is installed, for models of LLaMA's shape; without
it, files that only a stand-in reads. LLMCB_STAND_IN makes it do one wrong thing.
"""
