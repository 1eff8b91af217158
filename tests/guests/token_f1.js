// SQuAD's F1 in JavaScript: gives exactly the numbers of the built-in `token_f1`.

const PUNCTUATION = /[!"#$%&'()*+,\-./:;<=>?@[\\\]^_`{|}~]/g;
const ARTICLES = new Set(['a', 'an', 'the']);

function words(answer) {
  const plain = answer.toLowerCase().replace(PUNCTUATION, '');
  return plain.split(/\s+/u).filter((word) => word !== '' && !ARTICLES.has(word));
}

function f1(prediction, reference) {
  const [given, left] = [words(prediction), words(reference)];
  const of = left.length;
  if (given.length === 0 || of === 0) return given.length === of ? 1 : 0;
  let shared = 0;
  for (const word of given) {
    const at = left.indexOf(word);
    if (at >= 0) {
      left.splice(at, 1);
      shared += 1;
    }
  }
  if (shared === 0) return 0;
  const [precision, recall] = [shared / given.length, shared / of];
  return (2 * precision * recall) / (precision + recall);
}

export const scoring = {
  describe() {
    return {
      name: 'token_f1_js',
      summary: 'overlap of words as F1',
      unit: 'fraction',
      higherIsBetter: true,
      fields: ['prediction', 'reference'],
    };
  },

  score([predictions, references]) {
    const perItem = Float64Array.from(predictions.val, (one, item) => f1(one, references.val[item]));
    return { value: perItem.reduce((sum, one) => sum + one, 0) / perItem.length, perItem };
  },
};
