// The metric `@NAME@`: the probability that the model gives the right answers.
//
// `describe` names the fields of items that are read (`llmcb-host metrics info` lists all), `score` gets a column for each, in that order. metric.wit is
// the whole contract. Nothing but the log can be imported: no files, network, clocks or random numbers.

#include <stdlib.h>

#include "bindings/metric.h"

void exports_llmcb_metric_scoring_describe(exports_llmcb_metric_scoring_description_t *out) {
    metric_string_dup(&out->name, "@NAME@");
    metric_string_dup(&out->summary, "mean probability of the right choice");
    metric_string_dup(&out->unit, "fraction");
    out->higher_is_better = true;
    out->fields.len = 2;
    out->fields.ptr = malloc(2 * sizeof *out->fields.ptr);
    metric_string_dup(&out->fields.ptr[0], "probabilities");
    metric_string_dup(&out->fields.ptr[1], "target");
}

// Returns true with a value, or false with the reason in `error`.
bool exports_llmcb_metric_scoring_score(exports_llmcb_metric_scoring_list_column_t *columns,
                                        exports_llmcb_metric_scoring_scores_t *out, metric_string_t *error) {
    (void)error;
    // Choices of item i: values[offsets[i]] up to values[offsets[i + 1]].
    const exports_llmcb_metric_scoring_ragged_t *probabilities = &columns->ptr[0].val.ragged;
    const metric_list_u32_t *target = &columns->ptr[1].val.indices;
    double *per_item = malloc(target->len * sizeof *per_item);
    double sum = 0;
    for (size_t item = 0; item < target->len; item++) {
        per_item[item] = probabilities->values.ptr[probabilities->offsets.ptr[item] + target->ptr[item]];
        sum += per_item[item];
    }
    out->value = sum / (double)target->len;
    // Leave `is_some` false where the metric is not the mean of anything.
    out->per_item.is_some = true;
    out->per_item.val.ptr = per_item;
    out->per_item.val.len = target->len;
    exports_llmcb_metric_scoring_list_column_free(columns);
    return true;
}
