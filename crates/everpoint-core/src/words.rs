//! How numbers and names are put into words: one way for every message.

/// `512 B`, `1.5 KiB`, `20.0 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// So many names are listed.
const LISTED: usize = 20;

/// What to say of a name that is not known: the one that was meant, if one is near, and those that there are. `what`: their
/// plural, as in "clusters".
#[must_use]
pub fn known<'a>(name: &str, what: &str, there: impl IntoIterator<Item = &'a str>) -> String {
    let mut there: Vec<&str> = there.into_iter().collect();
    // The newest of labels come last, and are most often meant.
    let mut seen = std::collections::BTreeSet::new();
    there.retain(|name| seen.insert(*name));
    if there.is_empty() {
        return format!("there are no {what}");
    }
    let more = there.len().saturating_sub(LISTED);
    let listed = there.get(more..).unwrap_or_default().join(", ");
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let meant =
        nearest(name, there.iter().copied()).map_or(String::new(), |it| format!("did you mean {it}? "));
    format!("{meant}the {what} are: {listed}{more}")
}

/// The candidate that is near enough to `word` to have been meant.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(word.len()) / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Number of insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let (mut before, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=right.len()).collect());
    let mut last = None;
    for (above, from) in left.chars().enumerate() {
        let mut next = vec![above + 1];
        let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
        for (at, to) in right.iter().enumerate() {
            let replaced = cell(&row, at) + usize::from(from != *to);
            let mut least = replaced.min(cell(&row, at + 1) + 1).min(cell(&next, at) + 1);
            let swapped = |previous: usize| right.get(previous) == Some(&from) && last == Some(*to);
            if let Some(previous) = at.checked_sub(1).filter(|previous| swapped(*previous)) {
                least = least.min(cell(&before, previous) + 1);
            }
            next.push(least);
        }
        last = Some(from);
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (20 << 30, "20.0 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), wanted);
        }
    }

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!((distance("kepe", "keep"), distance("ab", "ba"), distance("abc", "ca")), (1, 1, 3));
        assert_eq!(nearest("kepe", ["type", "keep"]), Some("keep"));
        assert_eq!(nearest("kepe", ["type", "path"]), None);
        assert_eq!(nearest("uri", ["url", "key_file"]), Some("url"));
        assert_eq!(nearest("keyfile", ["url", "key_file"]), Some("key_file"));
        assert_eq!(nearest("frobnicate", ["url", "key_file"]), None);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let there = ["order-db", "inventory-db"];
        assert_eq!(
            known("orderdb", "clusters", there),
            "did you mean order-db? the clusters are: order-db, inventory-db"
        );
        assert_eq!(known("x", "clusters", there), "the clusters are: order-db, inventory-db");
        assert_eq!(known("x", "clusters", []), "there are no clusters");
        let many: Vec<String> = (0..50).map(|n| format!("p{n}")).collect();
        let said = known("zzzz", "points", many.iter().map(String::as_str));
        assert!(said.ends_with("p48, p49, and 30 more"), "{said}");
    }
}
