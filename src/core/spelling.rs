//! What somebody may have meant.

/// The candidate that is fewest letters away, and how many.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<(&'a str, usize)> {
    candidates.map(|candidate| (candidate, distance(word, candidate))).min_by_key(|(_, distance)| *distance)
}

/// Levenshtein's: letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_away() {
        for (a, b, letters) in [("", "", 0), ("abc", "abc", 0), ("dely", "delay", 1), ("kitten", "sitting", 3), ("", "abc", 3)] {
            assert_eq!(distance(a, b), letters, "{a} {b}");
        }
        assert_eq!(nearest("dely", ["drain", "delay"].into_iter()), Some(("delay", 1)));
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}
