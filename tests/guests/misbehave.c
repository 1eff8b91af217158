// A metric that does one wrong thing, chosen with -DMODE=...

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bindings/metric.h"

enum mode {
    OK,
    TRAP,
    TRAP_DESCRIBE,
    ENDLESS,
    ENDLESS_DESCRIBE,
    MEMORY,
    RECURSION,
    NOT_A_NUMBER,
    NOT_A_NUMBER_PER_ITEM,
    TOO_FEW,
    NOT_THE_MEAN,
    REFUSES,
    UNKNOWN_FIELD,
    BAD_NAME,
    TAKEN_NAME,
    TWO_LINES,
    ORDER,
    CLOCK,
    CHATTER,
    FORGETS,
    NEEDS_TWO,
    NEEDS_NUMBERS,
    QUADRATIC,
};

#define TEXT_OF(mode) #mode
#define TEXT(mode) TEXT_OF(mode)

static unsigned calls;

static unsigned deeper(volatile unsigned *depth) {
    volatile unsigned here[64];
    here[0] = ++*depth;
    return deeper(depth) + here[0];
}

static void say(const char *text) {
    metric_string_t line;
    metric_string_set(&line, text);
    llmcb_metric_host_log(&line);
}

void exports_llmcb_metric_scoring_describe(exports_llmcb_metric_scoring_description_t *out) {
    if (MODE == TRAP_DESCRIBE) __builtin_trap();
    if (MODE == ENDLESS_DESCRIBE) for (volatile unsigned n = 0;; n++) {}
    char name[64] = "does_" TEXT(MODE);
    for (char *c = name; *c; c++) *c |= *c >= 'A' && *c <= 'Z' ? 0x20 : 0;
    metric_string_dup(&out->name, MODE == BAD_NAME ? "Not a name" : MODE == TAKEN_NAME ? "acc" : name);
    metric_string_dup(&out->summary, MODE == TWO_LINES ? "one\ntwo" : "does one wrong thing");
    metric_string_dup(&out->unit, "");
    out->higher_is_better = true;
    out->fields.len = 2;
    out->fields.ptr = malloc(2 * sizeof *out->fields.ptr);
    metric_string_dup(&out->fields.ptr[0], MODE == UNKNOWN_FIELD ? "corect" : "correct");
    metric_string_dup(&out->fields.ptr[1], "log_likelihoods");
}

bool exports_llmcb_metric_scoring_score(exports_llmcb_metric_scoring_list_column_t *columns,
                                        exports_llmcb_metric_scoring_scores_t *out, metric_string_t *error) {
    const metric_list_f64_t *correct = &columns->ptr[0].val.numbers;
    double sum = 0;
    switch (MODE) {
    case TRAP:
        say("about to trap");
        __builtin_trap();
    case ENDLESS:
        for (volatile unsigned n = 0;; n++) {}
    case MEMORY:
        for (;;) {
            volatile char *more = malloc(1 << 20);
            if (!more) abort();
            more[0] = 1;
        }
    case RECURSION: {
        volatile unsigned depth = 0;
        sum = deeper(&depth);
        break;
    }
    case REFUSES:
        metric_string_dup(error, "the items are not to its taste");
        return false;
    case CLOCK:
        sum = (double)time(NULL);
        break;
    case NEEDS_TWO:
        if (correct->len < 2) __builtin_trap();
        break;
    case NEEDS_NUMBERS: {
        const metric_list_f64_t *numbers = &columns->ptr[1].val.ragged.values;
        for (size_t at = 0; at < numbers->len; at++)
            if (numbers->ptr[at] != numbers->ptr[at]) __builtin_trap();
        break;
    }
    case QUADRATIC:
        for (volatile unsigned long n = 0; n < 400ul * correct->len * correct->len; n++) {}
        break;
    case CHATTER:
        for (unsigned n = 0; n < 100000; n++) say("and another thing\nover two lines");
        break;
    default:
        break;
    }
    size_t items = correct->len;
    double *per_item = malloc((items + 1) * sizeof *per_item);
    for (size_t item = 0; item < items; item++) {
        per_item[item] = correct->ptr[item] * (MODE == ORDER ? (double)(item + 1) : 1);
        sum += per_item[item];
    }
    // An instance is used once: what is counted here is always the first call.
    calls += 1;
    out->value = sum / (double)items + (MODE == FORGETS ? calls - 1 : 0);
    if (MODE == NOT_A_NUMBER) out->value = 0.0 / (sum - sum);
    if (MODE == NOT_A_NUMBER_PER_ITEM) per_item[items / 2] = 0.0 / (sum - sum);
    if (MODE == NOT_THE_MEAN) out->value += 1;
    out->per_item.is_some = true;
    out->per_item.val.ptr = per_item;
    out->per_item.val.len = MODE == TOO_FEW ? items - 1 : items;
    return true;
}
