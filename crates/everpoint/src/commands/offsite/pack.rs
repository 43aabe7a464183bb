//! `offsite pack` and `offsite unpack`: packages without a provider.

use std::path::Path;

use everpoint_app::package::{self, BuildReport, BuildRequest, Contents, Opening};
use everpoint_app::{AppError, text};
use everpoint_core::FailureClass;
use serde_json::json;

use crate::cli::{OffsitePack, OffsiteUnpack};
use crate::render::Done;
use crate::render::number::size;
use crate::render::time::local;
use crate::session::Session;
use crate::signal::stop_flag;

pub(super) fn pack(session: &Session, arguments: &OffsitePack) -> Result<Done, AppError> {
    let mut opened = Vec::new();
    for name in session.cluster_names(None)? {
        opened.push(session.cluster(&name)?);
    }
    let Some(first) = opened.first() else {
        let message = "no cluster is configured";
        return Err(AppError::new("package.no_cluster", FailureClass::Usage, "make", "a package", message));
    };
    let repository = first.context.repository.id();
    let key = session.key_of(&first.repository)?;
    let recipients = package::recipients(&arguments.recipient, key.as_ref())?;
    // Only what is encrypted to the key itself can be opened here.
    let own = key.as_ref().filter(|_| arguments.recipient.is_empty());
    let identity = own.map(package::identity_of_key).transpose()?;
    let (ours, others): (Vec<_>, Vec<_>) =
        opened.into_iter().partition(|one| one.context.repository.id() == repository);
    for other in others {
        session.warn(&format!("{} is left out: it is in another repository", other.context.name));
    }
    let clusters: Vec<_> = ours.into_iter().map(|one| one.context).collect();
    let request = BuildRequest {
        name: package::name(repository, text::now(), None),
        directory: arguments.directory.clone().unwrap_or_else(|| session.package_scratch()),
        recipients,
        limit: arguments.limit,
        arrived: Contents::default(),
        identity,
        shortfalls: Vec::new(),
        stop: stop_flag(),
    };
    let report = package::build(&clusters, &request, &session.progress())?;
    for shortfall in &report.shortfalls {
        session.warn(shortfall);
    }
    Ok(Done::new(&report, pack_text(&report)))
}

fn pack_text(report: &BuildReport) -> String {
    let mut out = format!("{}: {}\n", report.file.display(), size(report.size));
    for cluster in &report.clusters {
        let base =
            cluster.base.as_ref().map_or_else(|| "no image".to_owned(), |label| format!("image {label}"));
        let to =
            cluster.to_time.as_ref().map_or_else(String::new, |at| format!(", restores to {}", local(at)));
        out.push_str(&format!("  {}: {base}, {} segments of log{to}\n", cluster.name, cluster.segments));
    }
    out.push_str(if report.read_back {
        "read back and compared with its sums\n"
    } else {
        "read back; only a recipient can open it and compare its sums\n"
    });
    out
}

pub(super) fn unpack(session: &Session, arguments: &OffsiteUnpack) -> Result<Done, AppError> {
    let identities = session.package_identities(arguments.identity.as_deref())?;
    let opening = Opening { file: &arguments.file, identities: &identities, stop: &stop_flag() };
    let manifest = opening.unpack(&arguments.directory)?;
    let text = format!(
        "{} is in {}; how to go on stands in {}\n",
        manifest.name,
        arguments.directory.display(),
        Path::new(&arguments.directory).join(everpoint_format::package::INSTRUCTIONS).display()
    );
    let names: Vec<&str> = manifest.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    Ok(Done::new(&json!({"name": manifest.name, "clusters": names, "members": manifest.members.len()}), text))
}
