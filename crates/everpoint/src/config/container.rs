//! Variables of the container world that say where things go and whether anything is made. What the file says comes first,
//! but for `BACKUP_ENABLED`, which is a switch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Variables;
use super::mistake::Mistake;
use super::offsite::OffsiteConfig;
use super::repository::{KeySource, RepositoryConfig};
use super::retention::Retention;

const ENABLED: &str = "BACKUP_ENABLED";
const DIRECTORY: &str = "BACKUP_DIR";
const USE_FILESYSTEM: &str = "BACKUP_USE_FILESYSTEM";
/// Packages that stay in a directory: as many days as daily backups do by default.
const PACKAGES: usize = 14;

fn set(variables: Variables<'_>, name: &str) -> Option<String> {
    variables(name).filter(|text| !text.trim().is_empty())
}

fn flag(variables: Variables<'_>, name: &str) -> Result<Option<bool>, Mistake> {
    let Some(text) = set(variables, name) else { return Ok(None) };
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(Some(true)),
        "false" | "0" | "no" | "off" => Ok(Some(false)),
        _ => Err(Mistake::new(0..0, format!("the variable {name} is neither true nor false"))
            .hint("set it to true or false")),
    }
}

/// Whether backups, bundles and packages are made by themselves.
pub(super) fn enabled(variables: Variables<'_>) -> Result<bool, Mistake> {
    Ok(flag(variables, ENABLED)?.unwrap_or(true))
}

/// The directory of backups, where containers name one.
pub(crate) fn directory(variables: Variables<'_>) -> Option<PathBuf> {
    set(variables, DIRECTORY).map(PathBuf::from)
}

/// The repository below `BACKUP_DIR`.
pub(crate) fn repository_below(directory: &Path) -> String {
    directory.join("repository").display().to_string()
}

/// A file without any repository has one, and one without any provider sends packages into a directory, if the variables
/// say so.
pub(super) fn complete(
    variables: Variables<'_>,
    repositories: &mut BTreeMap<String, RepositoryConfig>,
    offsite: &mut BTreeMap<String, OffsiteConfig>,
) -> Result<(), Mistake> {
    let directory = directory(variables);
    if let Some(directory) = directory.as_deref().filter(|_| repositories.is_empty()) {
        let url = repository_below(directory);
        let name = "local".to_owned();
        let repository = RepositoryConfig {
            name: name.clone(),
            url,
            key: KeySource::Environment,
            retention: Retention::default(),
        };
        repositories.insert(name, repository);
    }
    if flag(variables, USE_FILESYSTEM)? != Some(true) || !offsite.is_empty() {
        return Ok(());
    }
    let Some(directory) = directory else {
        let mistake = Mistake::new(0..0, format!("{USE_FILESYSTEM} is true, but {DIRECTORY} is not set"));
        return Err(mistake.hint(format!("set {DIRECTORY} to the directory below which packages go")));
    };
    let provider = OffsiteConfig::filesystem("filesystem", directory.join("packages"), directory, PACKAGES);
    offsite.insert(provider.name.clone(), provider);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(set: &'static [(&str, &str)]) -> Result<(Vec<String>, Vec<String>), Mistake> {
        let (mut repositories, mut offsite) = (BTreeMap::new(), BTreeMap::new());
        let variables =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        complete(&variables, &mut repositories, &mut offsite)?;
        Ok((repositories.values().map(|one| one.url.clone()).collect(), offsite.into_keys().collect()))
    }

    #[test]
    fn a_directory_of_containers_is_that_of_repository_and_packages() {
        let none = (Vec::<String>::new(), Vec::<String>::new());
        assert_eq!(completed(&[]).unwrap(), none);
        let (repositories, offsite) = completed(&[("BACKUP_DIR", "/backup")]).unwrap();
        assert_eq!((repositories, offsite), (vec!["/backup/repository".to_owned()], Vec::new()));
        let both = completed(&[("BACKUP_DIR", "/backup"), ("BACKUP_USE_FILESYSTEM", "true")]).unwrap();
        assert_eq!(both.1, ["filesystem"]);
        assert!(completed(&[("BACKUP_USE_FILESYSTEM", "true")]).is_err());
        assert!(completed(&[("BACKUP_USE_FILESYSTEM", "perhaps")]).is_err());
        assert_eq!(completed(&[("BACKUP_USE_FILESYSTEM", "false")]).unwrap(), none);
    }

    #[test]
    fn backups_are_made_unless_they_are_switched_off() {
        let enabled = |value: Option<&'static str>| enabled(&move |_| value.map(str::to_owned));
        assert!(enabled(None).unwrap() && enabled(Some("")).unwrap() && enabled(Some("TRUE")).unwrap());
        assert!(!enabled(Some("false")).unwrap() && !enabled(Some("0")).unwrap());
        assert!(enabled(Some("never")).is_err());
    }
}
