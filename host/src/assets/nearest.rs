//! Names that a user may have meant.

/// Edit distance between two strings (Levenshtein), counted in characters and blind to ASCII case.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

/// Up to three of `candidates` that resemble `name`, the closest first: a few typing errors away, or one containing the other.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // Names come from a user: a very long one resembles nothing and need not be compared.
    if name.is_empty() || name.len() > 200 {
        return Vec::new();
    }
    let lower = name.to_ascii_lowercase();
    let mut scored: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let d = distance(name, candidate);
            let other = candidate.to_ascii_lowercase();
            let contained = lower.len() >= 3 && (other.contains(&lower) || lower.contains(&other));
            (d <= 1 + candidate.len() / 4 || contained).then_some((d, candidate))
        })
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// `"; did you mean a or b?"`, or nothing where no name resembles.
pub(crate) fn did_you_mean(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}
