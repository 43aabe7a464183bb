//! Data pages: the header that matters and the checksum.

use everpoint_core::LogOffset;

/// Bytes of a data page that PostgreSQL is compiled with unless somebody chose otherwise.
pub const PAGE_BYTES: usize = 8192;

const LANES: usize = 32;
const PRIME: u32 = 16_777_619;

/// Starting values of the lanes: part of the definition of the checksum.
const BASES: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What the checksum of a page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It fits.
    Ok,
    /// The page is all zeros: allocated and never written.
    New,
    /// It does not fit.
    Bad {
        /// Checksum on the page.
        stored: u16,
        /// Checksum that the page should have.
        computed: u16,
        /// The page's LSN: the end of the last record that changed it.
        lsn: LogOffset,
    },
}

/// Checks a page of a cluster with checksums. `block` counts from the beginning of the relation's fork, not of its
/// file: see [`crate::files::Pages::first_block`].
///
/// A piece that is no whole page is `Bad` with both checksums 0.
#[must_use]
pub fn verify(page: &[u8], block: u32) -> Verdict {
    if page.iter().all(|byte| *byte == 0) && !page.is_empty() {
        return Verdict::New;
    }
    let stored = stored_checksum(page);
    let computed = checksum(page, block);
    match (stored, computed) {
        (Some(stored), Some(computed)) if stored == computed => Verdict::Ok,
        _ => Verdict::Bad {
            stored: stored.unwrap_or_default(),
            computed: computed.unwrap_or_default(),
            lsn: lsn(page).unwrap_or_default(),
        },
    }
}

/// The LSN in the page's header; `None` if there are not even 8 bytes.
#[must_use]
pub fn lsn(page: &[u8]) -> Option<LogOffset> {
    // Two halves, the high one first, each in the machine's order.
    let (high, rest) = page.split_first_chunk::<4>()?;
    let low = rest.first_chunk::<4>()?;
    let (high, low) = (u32::from_le_bytes(*high), u32::from_le_bytes(*low));
    Some(LogOffset(u64::from(high) << 32 | u64::from(low)))
}

fn stored_checksum(page: &[u8]) -> Option<u16> {
    page.get(8..)?.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes))
}

/// The checksum that a page at this block should have; `None` if its length is no multiple of 128 bytes or 0.
///
/// 32 FNV-1a-like sums over 4-byte words, each with its own start, folded together; the checksum field itself counts
/// as zero, the block number is mixed in so that a page in the wrong place shows.
#[must_use]
pub fn checksum(page: &[u8], block: u32) -> Option<u16> {
    let (first, rows) = page.split_first_chunk::<{ LANES * 4 }>()?;
    if rows.len() % (LANES * 4) != 0 {
        return None;
    }
    let mut head = *first;
    if let Some(field) = head.get_mut(8..10) {
        field.fill(0);
    }
    let sums = sum_page(&head, rows);
    let folded = sums.iter().fold(0, |folded, sum| folded ^ sum) ^ block;
    u16::try_from(folded % 65_535 + 1).ok()
}

/// Loops over fixed-size arrays, so that the compiler makes vector instructions of them.
fn sum_page(head: &[u8; LANES * 4], rows: &[u8]) -> [u32; LANES] {
    let mut sums = BASES;
    mix_row(&mut sums, head);
    let (rows, _) = rows.as_chunks::<{ LANES * 4 }>();
    for row in rows {
        mix_row(&mut sums, row);
    }
    mix_row(&mut sums, &[0; LANES * 4]);
    mix_row(&mut sums, &[0; LANES * 4]);
    sums
}

#[inline(always)]
fn mix_row(sums: &mut [u32; LANES], row: &[u8; LANES * 4]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_zeros_is_new_and_a_short_one_bad() {
        assert_eq!(verify(&[0; PAGE_BYTES], 7), Verdict::New);
        assert!(matches!(verify(&[1; 100], 0), Verdict::Bad { .. }));
        assert!(matches!(verify(&[], 0), Verdict::Bad { .. }));
    }

    #[test]
    fn any_flipped_bit_and_another_place_show() {
        let mut page = vec![0x5A; PAGE_BYTES];
        let right = checksum(&page, 3).unwrap();
        page[8..10].copy_from_slice(&right.to_le_bytes());
        assert_eq!(verify(&page, 3), Verdict::Ok);
        assert!(matches!(verify(&page, 4), Verdict::Bad { .. }));
        for bit in (0..PAGE_BYTES * 8).step_by(97) {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(verify(&page, 3), Verdict::Bad { .. }), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn the_lsn_has_its_high_half_first() {
        let mut page = vec![0; PAGE_BYTES];
        page[..8].copy_from_slice(&[0x16, 0, 0, 0, 0x48, 0xD8, 0x74, 0xB3]);
        assert_eq!(lsn(&page), Some(LogOffset(0x16_B374_D848)));
    }
}
