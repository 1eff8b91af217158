"""SQuAD's exact match in Python: gives exactly the numbers of the built-in `exact_match`."""

import string

from wit_world import exports
from wit_world.exports.scoring import Column, Description, Scores
from wit_world.imports import host

PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(answer: str) -> list[str]:
    return [word for word in answer.lower().translate(PUNCTUATION).split() if word not in ("a", "an", "the")]


class Scoring(exports.Scoring):
    def describe(self) -> Description:
        return Description("exact_match_py", "share of answers with the right words", "fraction", True, ["prediction", "reference"])

    def score(self, columns: list[Column]) -> Scores:
        predictions, references = (column.value for column in columns)
        per_item = [float(words(a) == words(b)) for a, b in zip(predictions, references)]
        host.log(f"{len(per_item)} answers were compared")
        return Scores(sum(per_item) / len(per_item), per_item)
