//! The kinds of jobs, and one run of each.

use std::time::Duration;

use everpoint_app::backup::BackupMode;
use everpoint_app::bundle::{self, BundleRequest};
use everpoint_app::package::NOTHING_NEW;
use everpoint_app::{AppError, Event, Events, backup, expire, health, twin};
use everpoint_core::FailureClass;
use everpoint_engine::{CheckLine, CheckState, StopFlag};
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::commands::restore_below::{self, RestoreBelow};
use crate::commands::{
    backup as backup_command, check as check_command, expire as expire_command, offsite as offsite_command,
};
use crate::session::{Opened, Session};

/// A backup was not begun for want of room.
pub(crate) const NO_ROOM: &str = "backup.no_room";

/// What the daemon does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A base backup.
    Backup,
    /// Hours of log are joined.
    Bundle,
    /// What the policy does not keep goes.
    Expire,
    /// A look at everything that must be right.
    Check,
    /// The package of all clusters is sent: of a provider instead of a cluster.
    Package,
    /// A cluster as it was, in a directory: only when somebody asks for it.
    Restore,
}

impl Kind {
    /// All that are done for each cluster by themselves.
    pub(crate) const OF_CLUSTER: [Self; 4] = [Self::Backup, Self::Bundle, Self::Expire, Self::Check];

    /// Whether it reads or writes much: one such runs at a time.
    pub(crate) const fn is_hard(self) -> bool {
        !matches!(self, Self::Check)
    }

    /// As it is stored and shown.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Bundle => "bundle",
            Self::Expire => "expire",
            Self::Check => "check",
            Self::Package => "package",
            Self::Restore => "restore",
        }
    }
}

/// What a run is given.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) kind: Kind,
    /// Of what: a cluster, or a provider for a package.
    pub(crate) cluster: String,
    /// For a backup.
    pub(crate) mode: BackupMode,
    /// Labels of the operator, for a backup.
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// Which try it is.
    pub(crate) tried: u32,
    /// For an expiry: there is no room, so what may go goes without a time of grace.
    pub(crate) at_once: bool,
    /// For a restore: what is wanted.
    pub(crate) restore: Option<RestoreBelow>,
}

impl Order {
    /// A run as the schedule wants it.
    pub(crate) fn new(kind: Kind, cluster: &str) -> Self {
        let labels = std::collections::BTreeMap::new();
        let cluster = cluster.to_owned();
        Self { kind, cluster, mode: BackupMode::Auto, labels, tried: 0, at_once: false, restore: None }
    }
}

/// Does it; returns the report of the command of the same name.
///
/// # Errors
/// As the use-case.
pub(crate) fn run(
    session: &Session,
    order: &Order,
    zone: &TimeZone,
    stop: &StopFlag,
    events: &dyn Events,
) -> Result<Value, AppError> {
    let open = || session.cluster(&order.cluster);
    match order.kind {
        Kind::Backup => take_backup(session, &open()?, order, stop, events),
        Kind::Package => {
            let config = session.offsite(Some(&order.cluster))?;
            match offsite_command::push_to(session, config, "serve", stop.clone(), events) {
                // An idle server is no failure: the schedule goes on.
                Err(error) if error.code == NOTHING_NEW => Ok(offsite_command::nothing_sent(&error)),
                pushed => Ok(json(&pushed?)),
            }
        }
        Kind::Restore => {
            let nothing = || {
                AppError::new(
                    "internal",
                    FailureClass::Failed,
                    "restore",
                    &order.cluster,
                    "nothing is wanted",
                )
            };
            let wanted = order.restore.as_ref().ok_or_else(nothing)?;
            Ok(json(&restore_below::run(session, &open()?, wanted, stop, events)?))
        }
        Kind::Bundle => {
            let request = BundleRequest { close: false, zone: zone.clone(), list: false, stop: stop.clone() };
            Ok(json(&bundle::run(&open()?.context, &request, events)?))
        }
        Kind::Expire => {
            let opened = open()?;
            let mut request = expire_command::request(session, &opened, stop.clone())?;
            if order.at_once {
                request.grace = Duration::ZERO;
            }
            Ok(json(&expire::run(&opened.context, &request, events)?))
        }
        Kind::Check => {
            let report = check_command::report(&open()?);
            health::told(&report.lines).into_iter().for_each(|told| events.emit(Event::Warning(told)));
            if report.ok {
                return Ok(json(&report));
            }
            let wrong = report.lines.iter().find(|line| line.state == CheckState::Error);
            let (text, hint) = wrong.map_or_else(Default::default, |line| {
                (format!("{}: {}", line.name, line.message), line.hint.clone())
            });
            let mut error =
                AppError::new("check.failed", FailureClass::Failed, "check", &order.cluster, text);
            error.hint = hint;
            Err(error)
        }
    }
}

fn take_backup(
    session: &Session,
    opened: &Opened,
    order: &Order,
    stop: &StopFlag,
    events: &dyn Events,
) -> Result<Value, AppError> {
    twin::refuse(&opened.context, &opened.others())?;
    make_room(session, opened, stop, events)?;
    health::run(&opened.context)?.into_iter().for_each(|told| events.emit(Event::Warning(told)));
    let mut request = backup_command::request(session, opened, order.mode, stop.clone());
    request.labels.clone_from(&order.labels);
    let report = backup::run(&opened.context, &request, events)?;
    if report.status == "ok" {
        return Ok(json(&report));
    }
    let message = format!("{} pages on the server are damaged", report.damaged.len());
    Err(AppError::new(
        "backup.damaged_pages",
        FailureClass::Damaged,
        "take a whole backup of",
        &order.cluster,
        message,
    )
    .hint(format!(
        "the backup {} is kept and marked; look into the files that `everpoint list` names",
        report.label
    )))
}

/// Where there is too little room, what the policy does not keep goes first; what it keeps never does.
fn make_room(
    session: &Session,
    opened: &Opened,
    stop: &StopFlag,
    events: &dyn Events,
) -> Result<(), AppError> {
    let Some(wrong) = too_little_room(opened) else { return Ok(()) };
    events.emit(Event::Warning(format!("{}; removing what the policy does not keep", wrong.message)));
    let mut request = expire_command::request(session, opened, stop.clone())?;
    request.grace = Duration::ZERO;
    expire::run(&opened.context, &request, events)?;
    match too_little_room(opened) {
        None => Ok(()),
        Some(wrong) => {
            let object = &opened.context.name;
            let error = AppError::new(NO_ROOM, FailureClass::Failed, "back up", object, wrong.message);
            Err(error.hint(wrong.hint.unwrap_or_default()))
        }
    }
}

fn too_little_room(opened: &Opened) -> Option<CheckLine> {
    let lines = check_command::report(opened).lines;
    lines.into_iter().find(|line| line.name == "space" && line.state == CheckState::Error)
}

fn json(report: &impl serde::Serialize) -> Value {
    serde_json::to_value(report).unwrap_or_default()
}
