// What the metrics in C share: the columns `probabilities` and `target`, and a description.

#include <stdlib.h>
#include <string.h>

#include "bindings/metric.h"

typedef struct {
    size_t items;
    const uint32_t *offsets, *targets;
    const double *probabilities;
} answers_t;

static inline void describe(exports_llmcb_metric_scoring_description_t *out, const char *name, const char *unit) {
    metric_string_dup(&out->name, name);
    metric_string_dup(&out->summary, "of the choices' probabilities");
    metric_string_dup(&out->unit, unit);
    out->higher_is_better = false;
    out->fields.len = 2;
    out->fields.ptr = malloc(2 * sizeof *out->fields.ptr);
    metric_string_dup(&out->fields.ptr[0], "probabilities");
    metric_string_dup(&out->fields.ptr[1], "target");
}

static inline answers_t answers(const exports_llmcb_metric_scoring_list_column_t *columns) {
    const exports_llmcb_metric_scoring_ragged_t *ragged = &columns->ptr[0].val.ragged;
    const metric_list_u32_t *targets = &columns->ptr[1].val.indices;
    return (answers_t){targets->len, ragged->offsets.ptr, targets->ptr, ragged->values.ptr};
}
