//! The last bytes of a branch: a server that goes on with it must have the same.

/// So many are compared. Servers that went apart before them differ in them too: records name transactions and times.
const WINDOW: usize = 64 << 10;

/// The last bytes before a position.
#[derive(Debug, Default)]
pub(super) struct Recent(Vec<u8>);

impl Recent {
    /// Those at the end of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut made = Self::default();
        made.push(bytes);
        made
    }

    /// The position moves behind these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let last = bytes.get(bytes.len().saturating_sub(WINDOW)..).unwrap_or_default();
        if last.len() == WINDOW {
            self.0.clear();
        } else if self.0.len() + last.len() > 2 * WINDOW {
            self.0.drain(..self.0.len().saturating_sub(WINDOW));
        }
        self.0.extend_from_slice(last);
    }

    /// At least [`WINDOW`] of them, if there were as many.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_last_bytes_whatever_the_pieces() {
        let all: Vec<u8> = (0..1_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for piece in [1_000, 65_536, 70_001, 900_000] {
            let mut recent = Recent::default();
            let mut seen = 0;
            for part in all.chunks(piece) {
                recent.push(part);
                seen += part.len();
                let held = recent.bytes();
                assert!(all[..seen].ends_with(held), "{piece} {seen}");
                assert!(held.len() >= seen.min(WINDOW) && held.len() <= 3 * WINDOW, "{piece} {seen}");
            }
        }
    }
}
