//! Physical replication: who the server is, its slots, its log as a stream, and capture over all of these.
//! Protocol: PostgreSQL documentation, "Streaming Replication Protocol".

mod branch;
mod capture;
mod coverage;
mod identity;
mod loss;
mod read;
mod receive;
mod slot;
mod start;
mod stream;

pub(crate) use capture::check_system;
pub use capture::{CaptureSource, capture, cluster_name, drop_slot, make_slot, slot_holds};
pub use coverage::Coverage;
pub use identity::{Replication, in_recovery, parse_size};
pub(crate) use read::read_log;
pub use slot::SlotPosition;
pub use start::{Obstacle, Start, plan_start};
pub use stream::{StreamEvent, WalStream};
