// The Brier score in C: gives exactly the numbers of the built-in `brier_score`.

#include "answers.h"

void exports_llmcb_metric_scoring_describe(exports_llmcb_metric_scoring_description_t *out) {
    describe(out, "brier_score_c", "");
}

bool exports_llmcb_metric_scoring_score(exports_llmcb_metric_scoring_list_column_t *columns,
                                        exports_llmcb_metric_scoring_scores_t *out, metric_string_t *error) {
    (void)error;
    answers_t all = answers(columns);
    double *per_item = malloc(all.items * sizeof *per_item);
    double sum = 0;
    for (size_t item = 0; item < all.items; item++) {
        double distance = 0;
        for (uint32_t at = all.offsets[item]; at < all.offsets[item + 1]; at++) {
            double d = all.probabilities[at] - (at - all.offsets[item] == all.targets[item] ? 1 : 0);
            distance += d * d;
        }
        per_item[item] = distance;
        sum += distance;
    }
    out->value = sum / (double)all.items;
    out->per_item.is_some = true;
    out->per_item.val.ptr = per_item;
    out->per_item.val.len = all.items;
    exports_llmcb_metric_scoring_list_column_free(columns);
    return true;
}
