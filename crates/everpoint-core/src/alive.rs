//! Whether a server runs on a directory that is to be written over. It does unless proven dead: a wrong "dead" writes
//! over a running server, a wrong "alive" costs a word of the operator.

/// Seconds by which the kernel's idea of its own start may move when a clock is set.
const BOOT_SLACK: i64 = 120;

/// A server that has lost its `postmaster.pid` ends itself within a minute; seconds after which it is surely gone.
const WITHOUT_FILE: u64 = 300;

/// What the control file says of the end of the last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    /// There is none: nothing can run without it.
    #[default]
    NoControl,
    /// In order.
    InOrder,
    /// Not, or not yet.
    NotInOrder,
    /// There was no run since the directory was restored.
    NotBegun,
    /// It can't be read.
    Unknown,
}

/// What is heard where the server noted that it listens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// Nothing, or somebody who is known to be another server.
    #[default]
    None,
    /// This directory's server, at this place.
    Ours(String),
    /// Somebody, at this place, who does not say for which directory.
    Unclear(String),
}

/// The file in which a server notes that it runs (`postmaster.pid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunNote {
    /// When the server started, seconds since 1970, if the file says so.
    pub started: Option<i64>,
    /// The server was starting or stopping: then the control file says either.
    pub between: bool,
}

/// Everything that tells of a server on a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeSigns {
    /// Processes of a server that work in the directory, in words.
    pub processes: Vec<String>,
    /// Shared memory of the noted server that is attached, in words.
    pub memory: Option<String>,
    /// Who answers.
    pub answer: Answer,
    /// What the control file says.
    pub ended: Ended,
    /// The server's note; `None`: there is none, or it is a copy of another directory's.
    pub note: Option<RunNote>,
    /// Seconds since the directory last lost or gained a file; `None`: not known.
    pub quiet_seconds: Option<u64>,
    /// When this kernel started, seconds since 1970.
    pub booted: Option<i64>,
    /// Only this machine writes to the file system.
    pub local: bool,
    /// Why not every process that might be the server is seen; `None`: all are.
    pub blind: Option<String>,
}

impl Default for LifeSigns {
    /// Signs of a directory without any server.
    fn default() -> Self {
        Self {
            processes: Vec::new(),
            memory: None,
            answer: Answer::None,
            ended: Ended::NoControl,
            note: None,
            quiet_seconds: None,
            booted: None,
            local: true,
            blind: None,
        }
    }
}

/// The verdict, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// A server runs there.
    Alive(String),
    /// None does.
    Dead(String),
    /// Neither is proven; what is known.
    Unknown(String),
}

/// Judges the signs.
#[must_use]
pub fn life(signs: &LifeSigns) -> Life {
    if let Some(reason) = seen_alive(signs) {
        return Life::Alive(reason);
    }
    if let Some(reason) = proven_dead(signs) {
        return Life::Dead(reason);
    }
    if let Answer::Unclear(place) = &signs.answer {
        let reason =
            format!("a server answers at {place}, as noted there, and does not say for which directory");
        return Life::Alive(reason);
    }
    Life::Unknown(known(signs))
}

fn seen_alive(signs: &LifeSigns) -> Option<String> {
    if let Some(process) = signs.processes.first() {
        return Some(process.clone());
    }
    if let Some(memory) = &signs.memory {
        return Some(memory.clone());
    }
    match &signs.answer {
        Answer::Ours(place) => Some(format!("its server answers at {place}")),
        Answer::Unclear(_) | Answer::None => None,
    }
}

fn proven_dead(signs: &LifeSigns) -> Option<String> {
    let Some(note) = signs.note else {
        return match signs.ended {
            Ended::NoControl => Some("no server runs without a control file".to_owned()),
            Ended::InOrder => Some("its server was shut down".to_owned()),
            Ended::NotBegun => Some("no server was started on it since it was restored".to_owned()),
            _ if signs.blind.is_none() && signs.local => Some("no process works in it".to_owned()),
            _ if signs.local && signs.quiet_seconds.is_some_and(|quiet| quiet >= WITHOUT_FILE) => {
                Some("a server without postmaster.pid would have ended itself".to_owned())
            }
            _ => None,
        };
    };
    if signs.ended == Ended::InOrder && !note.between {
        return Some("its server was shut down after postmaster.pid was written".to_owned());
    }
    if !signs.local {
        return None;
    }
    let before_boot = note.started.zip(signs.booted).is_some_and(|(at, boot)| at < boot - BOOT_SLACK);
    if before_boot {
        return Some("its server started before this machine did".to_owned());
    }
    signs.blind.is_none().then(|| "no process works in it".to_owned())
}

/// What is known where nothing is proven.
fn known(signs: &LifeSigns) -> String {
    let mut facts = Vec::new();
    facts.push(match signs.note {
        Some(_) => "it has a postmaster.pid",
        None => "it has no postmaster.pid",
    });
    facts.push(match signs.ended {
        Ended::InOrder => "its control file says shut down",
        Ended::NotInOrder | Ended::NotBegun => "its control file does not say that it was shut down",
        Ended::NoControl => "it has no control file",
        Ended::Unknown => "its control file can't be read",
    });
    facts.push("nothing answers for it");
    if !signs.local {
        facts.push("other machines may use its file system");
    }
    facts.extend(signs.blind.as_deref());
    facts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that was killed, seen from where nothing is proven.
    fn crashed() -> LifeSigns {
        LifeSigns {
            ended: Ended::NotInOrder,
            note: Some(RunNote { started: Some(2_000_000), between: false }),
            booted: Some(1_000_000),
            blind: Some("processes of other namespaces are not seen".to_owned()),
            quiet_seconds: Some(0),
            ..LifeSigns::default()
        }
    }

    fn dead(signs: &LifeSigns) -> bool {
        matches!(life(signs), Life::Dead(_))
    }

    fn alive(signs: &LifeSigns) -> bool {
        matches!(life(signs), Life::Alive(_))
    }

    #[test]
    fn a_process_attached_memory_or_an_answer_is_alive_whatever_else_is_said() {
        // Everything else says that it is dead.
        let quiet = LifeSigns { ended: Ended::InOrder, ..LifeSigns::default() };
        let some = Some(String::new());
        assert!(dead(&quiet));
        assert!(alive(&LifeSigns { processes: vec![String::new()], ..quiet.clone() }));
        assert!(alive(&LifeSigns { memory: some, ..quiet.clone() }));
        assert!(alive(&LifeSigns { answer: Answer::Ours(String::new()), ..quiet }));
    }

    #[test]
    fn without_a_proof_nothing_is_known_and_what_is_known_is_said() {
        let Life::Unknown(known) = life(&crashed()) else { panic!("{:?}", life(&crashed())) };
        for part in ["postmaster.pid", "does not say", "nothing answers", "namespaces"] {
            assert!(known.contains(part), "{known}");
        }
    }

    #[test]
    fn who_sees_all_processes_sees_that_there_is_none() {
        assert!(dead(&LifeSigns { blind: None, ..crashed() }));
        assert!(dead(&LifeSigns { blind: None, note: None, ..crashed() }));
        let shared = LifeSigns { blind: None, local: false, ..crashed() };
        assert!(matches!(life(&shared), Life::Unknown(known) if known.contains("other machines")));
    }

    #[test]
    fn a_stranger_on_the_noted_port_counts_only_where_nothing_is_proven() {
        let answer = Answer::Unclear("127.0.0.1:5432".to_owned());
        assert!(alive(&LifeSigns { answer: answer.clone(), ..crashed() }));
        assert!(dead(&LifeSigns { answer: answer.clone(), blind: None, ..crashed() }));
        assert!(dead(&LifeSigns { answer: answer.clone(), booted: Some(3_000_000), ..crashed() }));
        assert!(dead(&LifeSigns { answer, ended: Ended::InOrder, ..crashed() }));
    }

    #[test]
    fn a_shutdown_in_order_is_proof_unless_the_server_was_just_starting_or_stopping() {
        assert!(dead(&LifeSigns { ended: Ended::InOrder, ..crashed() }));
        let between = Some(RunNote { started: Some(2_000_000), between: true });
        assert!(!dead(&LifeSigns { ended: Ended::InOrder, note: between, ..crashed() }));
        assert!(dead(&LifeSigns { ended: Ended::InOrder, note: None, ..crashed() }));
    }

    #[test]
    fn a_start_before_the_boot_is_proof_on_a_local_file_system_only() {
        let booted = Some(2_000_000 + BOOT_SLACK + 1);
        assert!(dead(&LifeSigns { booted, ..crashed() }));
        assert!(!dead(&LifeSigns { booted, local: false, ..crashed() }));
        assert!(!dead(&LifeSigns { booted: Some(2_000_000 + 1), ..crashed() }), "a clock may have been set");
    }

    #[test]
    fn a_server_does_not_live_long_without_its_file() {
        let lost = LifeSigns { note: None, ..crashed() };
        assert!(matches!(life(&lost), Life::Unknown(_)));
        assert!(dead(&LifeSigns { quiet_seconds: Some(WITHOUT_FILE), ..lost.clone() }));
        assert!(dead(&LifeSigns { ended: Ended::NoControl, ..lost.clone() }));
        assert!(dead(&LifeSigns { ended: Ended::NotBegun, ..lost }));
        assert!(!dead(&LifeSigns { ended: Ended::NotBegun, ..crashed() }), "one that starts has its file");
    }
}
