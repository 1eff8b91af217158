// A bridge to llama.cpp whose functions take plain numbers and pointers.
//
// llama.cpp passes structs by value, and their fields change from release to release. This file is compiled against the header of
// the very sources it is linked with, so that what calls it need not know them. It holds no logic: a model is opened, tokens are run,
// logits are read.

#include "llama.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

// Raised whenever a function below changes.
#define INTERFACE 2

typedef struct {
    struct llama_model * model;
    struct llama_context * context;
    struct llama_batch batch;
    int32_t batch_tokens;
    // Whether anything may run elsewhere than on the processor.
    bool accelerated;
} bridge;

EXPORT int32_t llmcb_llama_interface(void) {
    return INTERFACE;
}

// Version of llama.cpp.
EXPORT const char * llmcb_llama_version(void) {
    return llama_version();
}

// What it was built for: instruction sets, libraries.
EXPORT const char * llmcb_llama_features(void) {
    return llama_print_system_info();
}

// Whether layers can be put on an accelerator.
EXPORT int32_t llmcb_llama_offloads(void) {
    return llama_supports_gpu_offload() ? 1 : 0;
}

static void drop_context(bridge * b) {
    if (b->batch_tokens > 0) {
        llama_batch_free(b->batch);
        b->batch_tokens = 0;
    }
    if (b->context != NULL) {
        llama_free(b->context);
        b->context = NULL;
    }
}

EXPORT void llmcb_llama_close(bridge * b) {
    if (b == NULL) {
        return;
    }
    drop_context(b);
    if (b->model != NULL) {
        llama_model_free(b->model);
    }
    free(b);
}

// Opens a GGUF file, with so many layers on an accelerator; `repack` lets weights be laid out anew for the processor. NULL if it cannot be
// opened; llama.cpp has then said why on standard error.
EXPORT bridge * llmcb_llama_open(const char * path, int32_t gpu_layers, int32_t repack) {
    llama_backend_init();
    bridge * b = calloc(1, sizeof(bridge));
    if (b == NULL) {
        return NULL;
    }
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = gpu_layers;
    ggml_backend_dev_t none[1] = {NULL};
    if (gpu_layers == 0) {
        params.devices = none;
    }
    b->accelerated = gpu_layers != 0;
    params.use_extra_bufts = repack != 0;
    b->model = llama_model_load_from_file(path, params);
    if (b->model == NULL) {
        llmcb_llama_close(b);
        return NULL;
    }
    return b;
}

// Makes room for so many tokens, shared out evenly among the sequences; at most `batch_tokens` are run in one call. Whatever was held before
// is gone. 0 if there is room.
EXPORT int32_t llmcb_llama_hold(
    bridge * b, int32_t threads, int32_t tokens, int32_t sequences, int32_t batch_tokens, int32_t single_precision) {
    drop_context(b);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t) tokens;
    params.n_batch = (uint32_t) batch_tokens;
    if (params.n_ubatch > params.n_batch) {
        params.n_ubatch = params.n_batch;
    }
    params.n_seq_max = (uint32_t) sequences;
    params.n_threads = threads;
    params.n_threads_batch = threads;
    params.no_perf = true;
    params.op_offload = b->accelerated;
    params.offload_kqv = b->accelerated;
    if (single_precision != 0) {
        params.type_k = GGML_TYPE_F32;
        params.type_v = GGML_TYPE_F32;
        // Its kernels round to half precision inside.
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    b->context = llama_init_from_model(b->model, params);
    if (b->context == NULL) {
        return 1;
    }
    b->batch = llama_batch_init(batch_tokens, 0, 1);
    b->batch_tokens = batch_tokens;
    return 0;
}

EXPORT int32_t llmcb_llama_vocabulary(const bridge * b) {
    return llama_vocab_n_tokens(llama_model_get_vocab(b->model));
}

// Longest sequence that the model was trained for.
EXPORT int32_t llmcb_llama_trained_length(const bridge * b) {
    return llama_model_n_ctx_train(b->model);
}

// What the model is, for people: its architecture, size and storage.
EXPORT void llmcb_llama_describe(const bridge * b, char * text, size_t length) {
    llama_model_desc(b->model, text, length);
}

// Runs tokens, each at its position of its sequence, after what the sequences hold; logits are kept where `wanted` is not zero. 0 if it went
// well; else what llama_decode says: 1 no room among the tokens held, 2 aborted, negative a failure.
EXPORT int32_t llmcb_llama_run(
    bridge * b, int32_t count, const int32_t * tokens, const int32_t * positions, const int32_t * sequences, const int8_t * wanted) {
    if (count < 1 || count > b->batch_tokens) {
        return -1;
    }
    b->batch.n_tokens = count;
    for (int32_t i = 0; i < count; i++) {
        b->batch.token[i] = tokens[i];
        b->batch.pos[i] = positions[i];
        b->batch.n_seq_id[i] = 1;
        b->batch.seq_id[i][0] = sequences[i];
        b->batch.logits[i] = wanted[i];
    }
    int32_t result = llama_decode(b->context, b->batch);
    llama_synchronize(b->context);
    return result;
}

// Logits after the token at place `i` of the last run, as many as the vocabulary has; NULL where they were not wanted.
EXPORT const float * llmcb_llama_logits(bridge * b, int32_t i) {
    return llama_get_logits_ith(b->context, i);
}

// Forgets a sequence from a position on; all sequences for a negative one. 0 if it could.
EXPORT int32_t llmcb_llama_forget(bridge * b, int32_t sequence, int32_t from) {
    return llama_memory_seq_rm(llama_get_memory(b->context), sequence, from, -1) ? 0 : 1;
}
