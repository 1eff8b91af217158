// The expected calibration error in C: gives exactly the number of the built-in `expected_calibration_error`.

#include <math.h>

#include "answers.h"

enum { BINS = 15 };

void exports_llmcb_metric_scoring_describe(exports_llmcb_metric_scoring_description_t *out) {
    describe(out, "expected_calibration_error_c", "fraction");
}

bool exports_llmcb_metric_scoring_score(exports_llmcb_metric_scoring_list_column_t *columns,
                                        exports_llmcb_metric_scoring_scores_t *out, metric_string_t *error) {
    (void)error;
    answers_t all = answers(columns);
    double confidence[BINS] = {0}, right[BINS] = {0};
    for (size_t item = 0; item < all.items; item++) {
        uint32_t first = all.offsets[item], end = all.offsets[item + 1], chosen = UINT32_MAX;
        double largest = 0;
        for (uint32_t at = first; at < end; at++) {
            if (all.probabilities[at] > largest) {
                largest = all.probabilities[at];
                chosen = at - first;
            }
        }
        int bin = (int)ceil(largest * BINS);
        bin = bin < 1 ? 0 : bin > BINS ? BINS - 1 : bin - 1;
        confidence[bin] += largest;
        right[bin] += chosen == all.targets[item] ? 1 : 0;
    }
    double sum = 0;
    for (int bin = 0; bin < BINS; bin++) sum += fabs(right[bin] - confidence[bin]);
    out->value = sum / (double)all.items;
    // Not the mean of anything per item.
    out->per_item.is_some = false;
    exports_llmcb_metric_scoring_list_column_free(columns);
    return true;
}
