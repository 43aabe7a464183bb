//! The object that says what repository this is: id, format, encrypted or not.

use everpoint_core::FailureClass;
use everpoint_format::records::RepositoryConfig;
use everpoint_store::{Store, StoreErrorKind};

use crate::error::code;
use crate::object::format_error;
use crate::repository::place;
use crate::{RepoError, names};

/// Reads it.
///
/// # Errors
/// `repo.not_found` if there is no repository, `repo.damaged` if all but this is there.
pub(crate) fn read_config(store: &dyn Store) -> Result<RepositoryConfig, RepoError> {
    let bytes = match store.get(names::CONFIG) {
        Ok(bytes) => bytes,
        Err(error) if error.kind == StoreErrorKind::NotFound => {
            let clusters = store.list_children(names::CLUSTERS)?;
            if !clusters.is_empty() {
                return Err(headless(store, &clusters));
            }
            let message = "there is none at this place";
            return Err(RepoError::new(code::NOT_FOUND, "open", place(store), message)
                .hint(
                    "if one was there before, mount its disk, or mend the url, and run this again; one that never was is made \
                     with: everpoint init",
                ));
        }
        Err(error) => return Err(error.into()),
    };
    RepositoryConfig::decode(&bytes).map_err(|error| format_error("read", names::CONFIG, error))
}

/// A new `config` would have another id, with which none of the objects that are there could be read.
fn headless(store: &dyn Store, clusters: &[String]) -> RepoError {
    let message = format!(
        "its object {} is gone, although those of clusters are there: {}",
        names::CONFIG,
        clusters.join(", ")
    );
    RepoError::new(code::DAMAGED, "open", place(store), message).class(FailureClass::Damaged).hint(
        "bring that object back from a copy of the repository; a new repository goes to another place, or here once this one is \
         moved aside",
    )
}
