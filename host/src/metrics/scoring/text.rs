//! Answers as SQuAD's evaluation compares them.

/// An answer's words: in small letters, without ASCII punctuation, without the articles `a`, `an` and `the`, cut at white space (Rajpurkar et al.
/// 2016).
pub(super) fn words(answer: &str) -> Vec<String> {
    let plain: String = answer.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the")).map(str::to_owned).collect()
}

/// Whether two answers have the same words in the same order.
pub(super) fn exact(prediction: &str, reference: &str) -> f64 {
    f64::from(u8::from(words(prediction) == words(reference)))
}

/// The harmonic mean of precision and recall of the words that two answers share. Of answers without words: 1 where both are, else 0.
pub(super) fn f1(prediction: &str, reference: &str) -> f64 {
    let (prediction, mut left) = (words(prediction), words(reference));
    let of = left.len();
    if prediction.is_empty() || of == 0 {
        return f64::from(u8::from(prediction.len() == of));
    }
    let mut shared = 0;
    for word in &prediction {
        if let Some(at) = left.iter().position(|other| other == word) {
            left.swap_remove(at);
            shared += 1;
        }
    }
    if shared == 0 {
        return 0.0;
    }
    let (precision, recall) = (f64::from(shared) / prediction.len() as f64, f64::from(shared) / of as f64);
    2.0 * precision * recall / (precision + recall)
}
