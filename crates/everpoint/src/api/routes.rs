//! Every endpoint, once: what it is called, who may call it, what it takes and gives.

use crate::config::api::Scope;

use super::Api;
use super::answer::{Answer, Refusal};
use super::call::Call;
use super::handlers::{backups, clusters, health, jobs, keeping, offsite, restores};

/// Method of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
}

impl Verb {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// Who may call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Everybody: it tells nothing.
    Open,
    Scope(Scope),
}

/// A field of the query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// Its schema in the document.
    pub(crate) schema: &'static str,
    pub(crate) about: &'static str,
}

/// One endpoint.
pub(crate) struct Route {
    pub(crate) verb: Verb,
    pub(crate) path: &'static str,
    pub(crate) guard: Guard,
    /// Its name in the document.
    pub(crate) id: &'static str,
    pub(crate) about: &'static str,
    pub(crate) query: &'static [Parameter],
    /// Schema of its body in the document.
    pub(crate) body: Option<&'static str>,
    /// Status and schema of what it gives when all is well.
    pub(crate) gives: (u16, &'static str),
    /// What else it may answer of itself.
    pub(crate) refuses: &'static [u16],
    pub(crate) run: fn(&Api, Call) -> Result<Answer, Refusal>,
}

const READ: Guard = Guard::Scope(Scope::Read);
const OPERATE: Guard = Guard::Scope(Scope::Operate);

const TRIGGER: &str = "Send the package of all clusters now: spends a call of the provider";

const CLUSTER: Parameter =
    Parameter { name: "cluster", schema: "Name", about: "Only this cluster; all if it is not given" };

/// A GET without anything that may go wrong by itself.
const fn look(
    path: &'static str,
    id: &'static str,
    about: &'static str,
    gives: &'static str,
    run: fn(&Api, Call) -> Result<Answer, Refusal>,
) -> Route {
    Route {
        verb: Verb::Get,
        path,
        guard: READ,
        id,
        about,
        query: &[],
        body: None,
        gives: (200, gives),
        refuses: &[],
        run,
    }
}

/// All endpoints.
pub(crate) static ROUTES: &[Route] = &[
    Route { guard: Guard::Open, ..look("/healthz", "health", "The process answers", "Alive", health::alive) },
    Route {
        guard: Guard::Open,
        refuses: &[503],
        ..look("/readyz", "ready", "Everything that is configured is being protected", "Alive", health::ready)
    },
    Route {
        guard: Guard::Open,
        ..look("/openapi.json", "document", "This document", "Document", health::document)
    },
    look("/metrics", "metrics", "Measures, in the text format of Prometheus", "text", health::metrics),
    Route {
        query: &[CLUSTER],
        refuses: &[404],
        ..look("/backup/status", "backupStatus", "Health now, of all clusters", "Status", clusters::status)
    },
    Route {
        query: &[CLUSTER],
        refuses: &[404],
        ..look(
            "/backup/snapshots",
            "backupSnapshots",
            "Backups, recovery windows and gaps",
            "Listing",
            clusters::list,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        body: Some("BackupRequest"),
        gives: (202, "Jobs"),
        refuses: &[404, 409],
        ..look(
            "/backup/snapshot",
            "backupSnapshot",
            "Take a backup of one cluster, or of all",
            "",
            backups::snapshot,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        body: Some("TriggerRequest"),
        gives: (202, "Jobs"),
        refuses: &[404, 409, 429],
        ..look("/backup/trigger", "backupTrigger", TRIGGER, "", offsite::trigger)
    },
    look(
        "/backup/strategy",
        "backupStrategy",
        "What is configured and promised",
        "Strategy",
        backups::strategy,
    ),
    Route {
        query: &[CLUSTER],
        refuses: &[404],
        ..look("/api/v1/status", "status", "Health now, of all clusters", "Status", clusters::status)
    },
    Route {
        query: &[CLUSTER],
        refuses: &[404],
        ..look("/api/v1/list", "list", "Backups, recovery windows and gaps", "Listing", clusters::list)
    },
    Route {
        query: &[CLUSTER],
        refuses: &[404],
        ..look(
            "/api/v1/check",
            "check",
            "Everything that must be right, and what to do where it is not",
            "Checks",
            clusters::check,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        body: Some("BackupRequest"),
        gives: (202, "Jobs"),
        refuses: &[404, 409],
        ..look("/api/v1/backup", "backup", "Take a backup of one cluster, or of all", "", backups::snapshot)
    },
    Route {
        query: &[
            Parameter { name: "to", schema: "Target", about: "Where to; latest if it is not given" },
            Parameter { name: "exclusive", schema: "Flag", about: "Stop just before the target" },
            Parameter {
                name: "timeline",
                schema: "Timeline",
                about: "Follow this timeline; the newest if it is not given",
            },
        ],
        refuses: &[404],
        ..look(
            "/api/v1/clusters/{cluster}/restore-plan",
            "restorePlan",
            "What a restore would do, and what it would lack; nothing is written",
            "RestorePlan",
            restores::plan,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        body: Some("RestoreRequest"),
        gives: (202, "Jobs"),
        refuses: &[404, 409],
        ..look(
            "/api/v1/clusters/{cluster}/restore",
            "restore",
            "Restore a cluster into a new directory below restore_dir of [api]; no server is started",
            "",
            restores::restore,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        body: Some("RestorePointRequest"),
        gives: (201, "RestorePoint"),
        refuses: &[404],
        ..look(
            "/api/v1/clusters/{cluster}/restore-points",
            "restorePoint",
            "Give this moment a name",
            "",
            clusters::restore_point,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        gives: (202, "Jobs"),
        refuses: &[404, 409],
        ..look(
            "/api/v1/clusters/{cluster}/bundle",
            "bundle",
            "Join the hours of log that are complete",
            "",
            backups::bundle,
        )
    },
    Route {
        refuses: &[404],
        ..look(
            "/api/v1/clusters/{cluster}/expire-plan",
            "expirePlan",
            "What the policy would remove, and what stays and why; nothing is removed",
            "Expiry",
            keeping::plan,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        gives: (202, "Jobs"),
        refuses: &[404, 409],
        ..look(
            "/api/v1/clusters/{cluster}/expire",
            "expire",
            "Remove what the policy does not keep",
            "",
            backups::expire,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        body: Some("HoldRequest"),
        refuses: &[404, 409],
        ..look(
            "/api/v1/clusters/{cluster}/backups/{label}/hold",
            "hold",
            "Keep a backup whatever the policy says",
            "Hold",
            keeping::hold,
        )
    },
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        refuses: &[404],
        ..look(
            "/api/v1/clusters/{cluster}/backups/{label}/release",
            "release",
            "End the hold of a backup",
            "Hold",
            keeping::release,
        )
    },
    look(
        "/api/v1/offsite",
        "offsiteStatus",
        "Budget, calls and packages of each provider, which is not asked",
        "OffsiteProviders",
        offsite::status,
    ),
    Route {
        verb: Verb::Post,
        guard: OPERATE,
        body: Some("TriggerRequest"),
        gives: (202, "Jobs"),
        refuses: &[404, 409, 429],
        ..look("/api/v1/offsite/push", "offsitePush", TRIGGER, "", offsite::trigger)
    },
    look("/api/v1/alerts", "alerts", "What is wrong now", "Alerts", jobs::alerts),
    Route {
        query: &[
            CLUSTER,
            Parameter { name: "kind", schema: "Word", about: "Only jobs of this kind, e.g. backup" },
            Parameter { name: "state", schema: "Word", about: "Only jobs in this state, e.g. failed" },
            Parameter { name: "limit", schema: "Limit", about: "At most so many; 50 if it is not given" },
        ],
        ..look("/api/v1/jobs", "jobs", "Jobs, the newest first", "Jobs", jobs::list)
    },
    Route { refuses: &[404], ..look("/api/v1/jobs/{id}", "job", "One job", "Job", jobs::one) },
];
