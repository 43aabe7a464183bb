//! What a restore leaves in the kernel's page cache.

/// Whether an image of so many bytes is written past the page cache of a machine with so much memory.
///
/// A small image stays in memory for the server that starts on it. Of a larger one most would be pushed out again, and with it
/// what other programs have there; copying it into the cache then costs more than unpacking it.
#[must_use]
pub const fn past_cache(image: u64, memory: u64) -> bool {
    image > memory / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_more_than_a_quarter_of_the_memory_goes_past_the_cache() {
        assert!(!past_cache(1 << 30, 4 << 30));
        assert!(past_cache((1 << 30) + 1, 4 << 30));
        assert!(past_cache(u64::MAX, u64::MAX));
    }
}
