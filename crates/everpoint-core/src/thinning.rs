//! Which packages a provider that keeps the newest few may let go of, so that what stays can be restored.

use std::collections::{BTreeMap, BTreeSet};

/// So many packages in a row have nothing of a cluster, and it counts as gone: one that could not be read for some days
/// keeps its image.
const FORGOTTEN_AFTER: usize = 7;

/// A package that was sent and that the provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPackage {
    /// Its name.
    pub name: String,
    /// Whether it is known to have arrived whole. What is not is relied upon for nothing.
    pub whole: bool,
    /// The clusters in it, and whether the image of each is.
    pub images: BTreeMap<String, bool>,
}

/// The repository of a package that a call sent, by the package's name `everpoint-<repository>-<time>-<call>.tar.age`;
/// `None`: no such name, and so somebody else's file.
#[must_use]
pub fn repository_of(name: &str) -> Option<&str> {
    let mut parts = name.strip_prefix("everpoint-")?.strip_suffix(".tar.age")?.split('-');
    let (repository, time, call) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (day, second) = time.strip_suffix('Z')?.split_once('T')?;
    let good = repository.len() == 8
        && repository.bytes().all(hex)
        && (day.len(), second.len()) == (8, 6)
        && [day, second, call].into_iter().all(digits)
        && parts.next().is_none();
    good.then_some(repository)
}

/// The packages that may go. `packages` by the order of their calls, the oldest first.
///
/// The newest `keep` that are whole stay (one at least). A package of log alone is of use only after one with an image:
/// so of each cluster the newest image stays, too, and all that came after it.
#[must_use]
pub fn surplus(packages: &[KeptPackage], keep: usize) -> Vec<&str> {
    let whole: Vec<usize> =
        packages.iter().enumerate().filter(|(_, package)| package.whole).map(|(at, _)| at).collect();
    let Some(&counted) = whole.iter().rev().nth(keep.max(1) - 1) else {
        return Vec::new();
    };
    let recent = whole.iter().rev().take(keep.max(FORGOTTEN_AFTER)).filter_map(|&at| packages.get(at));
    let clusters: BTreeSet<&String> = recent.flat_map(|package| package.images.keys()).collect();
    let images = clusters.into_iter().filter_map(|cluster| newest_image(packages, cluster));
    let first = images.fold(counted, usize::min);
    packages.iter().take(first).map(|package| package.name.as_str()).collect()
}

fn newest_image(packages: &[KeptPackage], cluster: &str) -> Option<usize> {
    packages.iter().rposition(|package| package.whole && package.images.get(cluster) == Some(&true))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `a+` is a package with an image of cluster a, `a` one of its log alone.
    fn packages(all: &[&str]) -> Vec<KeptPackage> {
        let package = |(number, text): (usize, &&str)| KeptPackage {
            name: (number + 1).to_string(),
            whole: !text.contains('!'),
            images: (text.split([' ', '!']).filter(|word| !word.is_empty()))
                .map(|word| (word.trim_end_matches('+').to_owned(), word.ends_with('+')))
                .collect(),
        };
        all.iter().enumerate().map(package).collect()
    }

    fn gone(all: &[&str], keep: usize) -> String {
        surplus(&packages(all), keep).join(" ")
    }

    #[test]
    fn a_package_is_told_from_other_files_by_its_name() {
        assert_eq!(repository_of("everpoint-4f2a91c0-20260129T030000Z-12.tar.age"), Some("4f2a91c0"));
        for other in [
            "everpoint-order-db.key",
            "everpoint-4f2a91c0-20260129T030000Z.tar.age",
            "everpoint-4f2a91c0-20260129T030000Z-12.tar.age.bak",
            "everpoint-4f2a91c0-20260129T030000Z-12-1.tar.age",
            "everpoint-4F2A91C0-20260129T030000Z-12.tar.age",
            "everpoint-4f2a91c-20260129T030000Z-12.tar.age",
            "everpoint-4f2a91c0-20260129-12.tar.age",
            "everpoint-4f2a91c0-20260129T030000Z-.tar.age",
            "",
        ] {
            assert_eq!(repository_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_newest_stay() {
        assert_eq!(gone(&["a+", "a+", "a+"], 2), "1");
        assert_eq!(gone(&["a+", "a+", "a+"], 1), "1 2");
        assert_eq!(gone(&["a+", "a+"], 2), "");
        assert_eq!(gone(&[], 1), "");
    }

    #[test]
    fn the_newest_image_stays_with_all_that_came_after_it() {
        assert_eq!(gone(&["a+", "a"], 1), "");
        assert_eq!(gone(&["a+", "a+", "a", "a"], 1), "1");
        assert_eq!(gone(&["a+", "a+", "a", "a", "a+"], 1), "1 2 3 4");
    }

    #[test]
    fn each_cluster_keeps_an_image_until_it_is_gone_for_long() {
        assert_eq!(gone(&["a+ b+", "a+ b", "a+ b"], 1), "");
        assert_eq!(gone(&["a+ b+", "a+", "a+"], 1), "", "b could not be read");
        let mut all = vec!["a+ b+"];
        all.resize(8, "a+");
        assert_eq!(gone(&all, 1), "1 2 3 4 5 6 7");
    }

    proptest! {
        #[test]
        fn what_stays_restores_every_cluster_and_thinning_again_takes_nothing(
            all in prop::collection::vec(
                (any::<bool>(), prop::collection::btree_map("[abc]", any::<bool>(), 0..4)),
                0..20,
            ),
            keep in 1_usize..5,
        ) {
            let numbered = (0..).zip(all);
            let packages: Vec<KeptPackage> = numbered
                .map(|(number, (whole, images)): (u32, _)| KeptPackage { name: number.to_string(), whole, images })
                .collect();
            let gone = surplus(&packages, keep);
            let (old, stay) = packages.split_at(gone.len());
            prop_assert!(old.iter().map(|package| package.name.as_str()).eq(gone.iter().copied()), "the oldest");
            let whole = |packages: &[KeptPackage]| packages.iter().filter(|package| package.whole).count();
            prop_assert!(whole(stay) >= keep.min(whole(&packages)));
            let has = |packages: &[KeptPackage], cluster: &str| {
                packages.iter().any(|package| package.whole && package.images.get(cluster) == Some(&true))
            };
            let newest: Vec<&KeptPackage> = stay.iter().rev().filter(|package| package.whole).take(keep).collect();
            for cluster in newest.iter().flat_map(|package| package.images.keys()) {
                prop_assert!(has(stay, cluster) || !has(&packages, cluster), "an image of {cluster}");
            }
            prop_assert_eq!(surplus(stay, keep), Vec::<&str>::new());
        }
    }

    #[test]
    fn what_did_not_arrive_whole_is_not_relied_upon() {
        assert_eq!(gone(&["a+", "a+!"], 1), "");
        assert_eq!(gone(&["a+", "a!", "a+", "a!"], 1), "1 2");
    }
}
