//! To whom a package is encrypted, and what opens it.

use everpoint_core::FailureClass;
use everpoint_format::keyslot::KeyText;

use crate::{AppError, key};

/// Those to whom a package is encrypted: the ones that are named, or else the age identity of the repository's key.
///
/// # Errors
/// `Usage` if one is none, or there are neither.
pub fn recipients(named: &[String], key: Option<&KeyText>) -> Result<Vec<age::x25519::Recipient>, AppError> {
    let own;
    let named = match (named, key) {
        ([], None) => {
            let message = "the repository has no key, and no recipients are named";
            return Err(error("package.no_recipient", "encrypt", "the package", message).hint(
                "name who may open it: recipients = [\"age1…\"] (age-keygen makes such a pair), or use an encrypted repository",
            ));
        }
        ([], Some(key)) => {
            own = [key::age_identity(key)?.1];
            &own[..]
        }
        (named, _) => named,
    };
    let parse = |text: &String| {
        text.trim().parse().map_err(|why: &str| {
            error("package.recipient", "encrypt the package to", text, why).hint("recipients look like age1…")
        })
    };
    named.iter().map(parse).collect()
}

/// What opens packages that were encrypted to the key of a repository.
///
/// # Errors
/// If no identity can be made of the key.
pub fn identity_of_key(key: &KeyText) -> Result<age::x25519::Identity, AppError> {
    let (identity, _) = key::age_identity(key)?;
    identity
        .reveal()
        .parse()
        .map_err(|why: &str| error("key.age", "make the age identity of", "the key", why))
}

/// The identities in a file as `age-keygen` writes it.
///
/// # Errors
/// `Usage` if it holds none. The message shows nothing of it.
pub fn identities_of_file(path: &std::path::Path) -> Result<Vec<age::x25519::Identity>, AppError> {
    let text = std::fs::read_to_string(path).map_err(|error| AppError::io("read", path, error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let found: Result<Vec<_>, _> = lines.map(str::parse).collect();
    let object = path.display().to_string();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(error("package.identity", "read", &object, "it holds no age identity")),
        Err(why) => Err(error("package.identity", "read", &object, why)),
    }
}

fn error(code: &str, operation: &str, object: &str, message: &str) -> AppError {
    AppError::new(code, FailureClass::Usage, operation, object, message)
}
