//! The last bytes of a branch: a server that goes on with it must have the same.

use everpoint_core::LogOffset;

/// So many are compared, and the zeros behind them: a switch of segments leaves the rest of its segment empty, which says
/// nothing. Servers that went apart before them differ in them too: records name transactions and times.
const WINDOW: usize = 64 << 10;

/// The last bytes before a position.
#[derive(Debug, Default)]
pub(super) struct Recent {
    bytes: Vec<u8>,
    /// So many zeros follow.
    zeros: u64,
}

impl Recent {
    /// Those at the end of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut made = Self::default();
        made.push(bytes);
        made
    }

    /// The position moves behind these bytes.
    pub(super) fn push(&mut self, more: &[u8]) {
        let end = more.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let behind = more.len().saturating_sub(end) as u64;
        if end == 0 {
            self.zeros += behind;
            return;
        }
        let between = usize::try_from(self.zeros).unwrap_or(WINDOW).min(WINDOW);
        let last = more.get(end.saturating_sub(WINDOW)..end).unwrap_or_default();
        if last.len() == WINDOW {
            self.bytes.clear();
        } else {
            if between == WINDOW {
                self.bytes.clear();
            }
            self.bytes.resize(self.bytes.len() + between, 0);
            if self.bytes.len() + last.len() > 2 * WINDOW {
                self.bytes.drain(..self.bytes.len().saturating_sub(WINDOW));
            }
        }
        self.bytes.extend_from_slice(last);
        self.zeros = behind;
    }

    /// How many bytes before the position are known.
    pub(super) const fn known(&self) -> u64 {
        self.bytes.len() as u64 + self.zeros
    }

    /// How many of them come before the zeros.
    pub(super) const fn real(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Nothing but zeros is known.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether `again`, from `from` on, is the same as far as it is known; `position`: where what is known ends.
    pub(super) fn is_same(&self, position: LogOffset, from: LogOffset, again: &[u8]) -> bool {
        let begin = position.0.saturating_sub(self.known());
        let skip = usize::try_from(begin.saturating_sub(from.0)).unwrap_or(usize::MAX);
        let into = usize::try_from(from.0.saturating_sub(begin)).unwrap_or(usize::MAX);
        let theirs = again.get(skip..).unwrap_or_default();
        let real = self.bytes.get(into..).unwrap_or_default();
        let (first, rest) = theirs.split_at_checked(real.len()).unwrap_or((theirs, &[]));
        let left = usize::try_from(self.known().saturating_sub((into + first.len()) as u64));
        let zeros = rest.get(..left.unwrap_or(usize::MAX).min(rest.len())).unwrap_or_default();
        real.iter().zip(first).all(|(a, b)| a == b) && zeros.iter().all(|byte| *byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random bytes with stretches of zeros, as switches of segments leave them.
    fn log() -> Vec<u8> {
        let mut all: Vec<u8> = (0..1_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        all[120_000..190_000].fill(0);
        all[300_000..300_100].fill(0);
        all[600_000..700_000].fill(0);
        all
    }

    #[test]
    fn it_knows_the_last_bytes_whatever_the_pieces() {
        let all = log();
        for piece in [1_000, 65_536, 70_001, 150_000, 900_000] {
            let mut recent = Recent::default();
            let mut seen = 0;
            for part in all.chunks(piece) {
                recent.push(part);
                seen += part.len();
                let held = usize::try_from(recent.known()).unwrap();
                let mut know = recent.bytes.clone();
                know.resize(held, 0);
                assert!(all[..seen].ends_with(&know), "{piece} {seen}");
                assert!(recent.bytes.len() >= seen.min(WINDOW) || seen > 120_000, "{piece} {seen}");
                assert!(recent.bytes.len() <= 3 * WINDOW, "{piece} {seen}");
            }
        }
    }

    #[test]
    fn behind_a_switch_it_compares_what_lies_before_the_zeros() {
        let all = log();
        let recent = Recent::of(&all[..190_000]);
        let position = LogOffset(190_000);
        assert!(recent.known() > 70_000 && !recent.is_empty());
        assert!(recent.is_same(position, LogOffset(0), &all));
        assert!(recent.is_same(position, LogOffset(100_000), &all[100_000..]));
        for changed in [119_999, 119_000, 150_000, 189_999] {
            let mut other = all.clone();
            other[changed] ^= 1;
            assert!(!recent.is_same(position, LogOffset(0), &other), "{changed}");
            assert!(!recent.is_same(position, LogOffset(110_000), &other[110_000..]), "{changed}");
        }
        let mut other = all;
        other[190_000] ^= 1;
        assert!(recent.is_same(position, LogOffset(0), &other), "what lies behind is not known yet");
    }
}
