// The metric `@NAME@`: the probability that the model gives the right answers.
//
// `describe` names the fields of items that are read (`llmcb-host metrics info` lists all), `score` gets a column for each, in that order. metric.wit is
// the whole contract. Nothing but the log can be imported: no files, network, clocks or random numbers.

export const scoring = {
  describe() {
    return {
      name: '@NAME@',
      summary: 'mean probability of the right choice',
      unit: 'fraction',
      higherIsBetter: true,
      fields: ['probabilities', 'target'],
    };
  },

  score([probabilities, target]) {
    // Choices of item i: values[offsets[i]] up to values[offsets[i + 1]].
    const { offsets, values } = probabilities.val;
    const perItem = Float64Array.from(target.val, (right, item) => values[offsets[item] + right]);
    const value = perItem.reduce((sum, p) => sum + p, 0) / perItem.length;
    // Leave perItem out where the metric is not the mean of anything. `throw 'why'` where there is no value.
    return { value, perItem };
  },
};
