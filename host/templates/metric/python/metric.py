"""The metric `@NAME@`: the probability that the model gives the right answers.

`describe` names the fields of items that are read (`llmcb-host metrics info` lists all), `score` gets a column for each, in that order. metric.wit is
the whole contract. Nothing but the log can be imported: no files, network, clocks or random numbers.
"""

from wit_world import exports
from wit_world.exports.scoring import Column, Description, Scores


class Scoring(exports.Scoring):
    def describe(self) -> Description:
        return Description(
            name="@NAME@",
            summary="mean probability of the right choice",
            unit="fraction",
            higher_is_better=True,
            fields=["probabilities", "target"],
        )

    def score(self, columns: list[Column]) -> Scores:
        probabilities, target = (column.value for column in columns)
        # Choices of item i: values[offsets[i]] up to values[offsets[i + 1]].
        offsets, values = probabilities.offsets, probabilities.values
        per_item = [values[offsets[item] + right] for item, right in enumerate(target)]
        # Leave per_item out (None) where the metric is not the mean of anything. `raise componentize_py_types.Err("why")` where there is no value.
        return Scores(value=sum(per_item) / len(per_item), per_item=per_item)
