//! Offsite providers: services that take one file a call, and the mock of one.

pub mod mock;
