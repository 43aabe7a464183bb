//! Arguments of `mock-offsite`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `mock-offsite`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MockOffsite {
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8099")]
    pub(crate) listen: std::net::SocketAddr,
    /// Directory for what arrives [default: ./mock-offsite]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Uploads that it takes in a day
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) calls: u32,
    /// Count within any 24 hours instead of by calendar day
    #[arg(long, conflicts_with = "zone")]
    pub(crate) rolling: bool,
    /// Zone of the calendar day [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone)]
    pub(crate) zone: Option<jiff::tz::TimeZone>,
    /// Milliseconds that each upload waits
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) latency: u64,
    /// Share of the uploads that fail, 0 to 1
    #[arg(long, value_name = "F", default_value_t = 0.0, value_parser = parse_share)]
    pub(crate) failure_rate: f64,
    /// Bytes that it keeps at most, such as 2GiB [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub(crate) storage_limit: Option<u64>,
    /// Where the draw of failures begins
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
}

fn parse_zone(text: &str) -> Result<jiff::tz::TimeZone, String> {
    crate::zone::named(text).ok_or_else(|| "write it like Europe/Berlin".to_owned())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it lies between 0 and 1".to_owned())
}

fn parse_size(text: &str) -> Result<u64, String> {
    crate::config::parse_bytes(text).ok_or_else(|| "write it like 50MB, 64MiB or 1048576".to_owned())
}
