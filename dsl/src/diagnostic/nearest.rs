//! Spelling suggestions.

/// The known name that `name` most likely is a misspelling of, if one is near enough: at most one
/// edit for each three letters, two letters swapped counting as one. Equal distances: the first.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|k| *k != name)
        .map(|k| (distance(name, k), k))
        .filter(|(d, k)| *d <= allowed && *d < k.chars().count())
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

fn distance(a: &str, b: &str) -> usize {
    // Case alone is the nearest of all mistakes.
    if a.eq_ignore_ascii_case(b) { 0 } else { strsim::osa_distance(a, b) }
}
