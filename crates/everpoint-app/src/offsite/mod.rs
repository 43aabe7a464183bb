//! The offsite provider: spending its calls.

pub mod call;
pub mod clock;

pub use call::{CallContext, CallReport, Parcel, spend};
pub use clock::{Clock, SystemClock};
