//! *Covered until*: up to which moment the log that we hold is known to be all there is.
//!
//! A sender is one process that does one thing at a time. Just before it sends a piece of the log it reads how far the log
//! is flushed (`server_end`), and it stamps each message when it sends it. So of two messages in a row, A and then a piece
//! B: all that was flushed when A was stamped lies before B's `server_end`. Holding the log up to there, we are covered
//! until A's stamp.
//!
//! Without pieces there are only answers to our requests, and those tell what was *sent*. Between two rounds of requests
//! the sender looks for more log to send; but an answer alone does not show that it has begun a new round since the answer
//! before. It has, after a pause between that answer and our next request, unless it was stopped at that very instruction;
//! so two such pauses are waited for: three answers K1, K2, K3 with nothing between them say that all that was flushed at
//! K1's stamp had been sent.
//!
//! This holds for a primary and its own timeline only: what a standby or an old timeline sends is not all there is. "Flushed"
//! is what commits wait for; a commit record is stamped a moment before, and with `synchronous_commit = off` up to three
//! times `wal_writer_delay` before.

use everpoint_core::{LogOffset, Micros};

/// Watches the messages of one stream.
#[derive(Debug, Default)]
pub struct Coverage {
    /// Stamp of the message before.
    before: Option<Micros>,
    /// Once the log is held up to this position, it is covered until this moment.
    promise: Option<(LogOffset, Micros)>,
    /// Stamps of the last two answers, older first, with no data since.
    quiet: [Option<Micros>; 2],
}

impl Coverage {
    /// A piece of the log came.
    pub fn data(&mut self, server_end: LogOffset, sent_at: Micros) {
        // An older promise is nearer: a newer one under load would always move away.
        if self.promise.is_none() {
            self.promise = self.before.map(|before| (server_end, before));
        }
        self.before = Some(sent_at);
        self.quiet = [None; 2];
    }

    /// A keepalive came: `answer` if it answers a request of ours that was sent some time after the answer before.
    pub fn keepalive(&mut self, end: LogOffset, sent_at: Micros, answer: bool) {
        self.before = Some(sent_at);
        if !answer {
            return;
        }
        if let [Some(oldest), Some(_)] = self.quiet
            && self.promise.is_none()
        {
            self.promise = Some((end, oldest));
        }
        self.quiet = match self.quiet {
            [None, _] => [Some(sent_at), None],
            [oldest, None] => [oldest, Some(sent_at)],
            [_, newer] => [newer, Some(sent_at)],
        };
    }

    /// What may be said when the log is held up to `held`; each thing is said once.
    pub fn take(&mut self, held: LogOffset) -> Option<(LogOffset, Micros)> {
        self.promise.take_if(|(position, _)| *position <= held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LogOffset = LogOffset(100);
    const B: LogOffset = LogOffset(200);

    #[test]
    fn three_quiet_answers_cover_the_first() {
        let mut coverage = Coverage::default();
        coverage.keepalive(A, Micros(1), true);
        assert_eq!(coverage.take(A), None);
        coverage.keepalive(A, Micros(2), true);
        assert_eq!(coverage.take(A), None);
        coverage.keepalive(A, Micros(3), true);
        assert_eq!(coverage.take(A), Some((A, Micros(1))));
        coverage.keepalive(A, Micros(4), true);
        assert_eq!(coverage.take(A), Some((A, Micros(2))));
        assert_eq!(coverage.take(A), None);
    }

    #[test]
    fn data_between_answers_starts_the_count_again() {
        let mut coverage = Coverage::default();
        coverage.keepalive(A, Micros(1), true);
        coverage.keepalive(A, Micros(2), true);
        coverage.data(B, Micros(3));
        assert_eq!(coverage.take(A), None, "not yet held");
        assert_eq!(coverage.take(B), Some((B, Micros(2))));
        coverage.keepalive(B, Micros(4), true);
        coverage.keepalive(B, Micros(5), true);
        assert_eq!(coverage.take(B), None);
    }

    #[test]
    fn a_promise_stays_until_it_is_reached() {
        let mut coverage = Coverage::default();
        coverage.data(A, Micros(1));
        assert_eq!(coverage.take(B), None, "nothing came before");
        coverage.data(A, Micros(2));
        coverage.data(B, Micros(3));
        assert_eq!(coverage.take(A), Some((A, Micros(1))));
    }

    #[test]
    fn the_servers_own_keepalives_do_not_count_as_answers() {
        let mut coverage = Coverage::default();
        for moment in 1..9 {
            coverage.keepalive(A, Micros(moment), false);
        }
        assert_eq!(coverage.take(A), None);
    }
}
