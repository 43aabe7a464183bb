//! What is said again and again is said once, then at growing intervals, and once when it is over: a log in which one cause
//! fills the screen hides all the others.

use std::collections::BTreeMap;

use crate::position::Micros;

/// Times without a word between two times that the same is said, in microseconds; the last one counts on.
const PAUSES: [i64; 3] = [600_000_000, 3_600_000_000, 6 * 3_600_000_000];
/// So many different things are remembered; of more, those that were said longest ago are forgotten.
const MOST: usize = 500;

/// What to do about something that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// Say it: it is news.
    First,
    /// Say it once more: it was seen so many times since it was said last.
    Again {
        /// How often.
        times: u64,
        /// When it was said last.
        since: Micros,
    },
    /// Say nothing: it was said a while ago.
    Nothing,
}

/// Something that was said is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// How often it was seen.
    pub times: u64,
    /// When it was seen first.
    pub since: Micros,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    since: Micros,
    said: Micros,
    /// Times that it was seen since it was said.
    unsaid: u64,
    /// Times that it was seen in all.
    times: u64,
    /// How often it was said.
    told: usize,
    /// That it is over was not said yet.
    open: bool,
}

/// What was said, by what it is about.
#[derive(Debug, Clone)]
pub struct Repeats<K> {
    known: BTreeMap<K, Known>,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { known: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Repeats<K> {
    /// Something is seen at `now`; says what to do about it. Something that comes and goes is said no more often than
    /// something that stays.
    pub fn seen(&mut self, key: K, now: Micros) -> Say {
        let Some(known) = self.known.get_mut(&key) else {
            self.make_room();
            let first = Known { since: now, said: now, unsaid: 0, times: 1, told: 1, open: true };
            self.known.insert(key, first);
            return Say::First;
        };
        (known.unsaid, known.times) = (known.unsaid.saturating_add(1), known.times.saturating_add(1));
        // A clock that was set back must not silence it until it has caught up.
        known.said = known.said.min(now);
        let pause = PAUSES.get(known.told - 1).or(PAUSES.last()).copied().unwrap_or_default();
        if now.0.saturating_sub(known.said.0) < pause {
            return Say::Nothing;
        }
        let say = Say::Again { times: known.unsaid, since: known.said };
        (known.said, known.unsaid, known.told, known.open) = (now, 0, known.told.saturating_add(1), true);
        say
    }

    /// It does not hold any more: `Some` if that is to be said, which is so once after each time that it was said.
    pub fn over(&mut self, key: &K) -> Option<Over> {
        let known = self.known.get_mut(key).filter(|known| known.open)?;
        known.open = false;
        Some(Over { times: known.times, since: known.since })
    }

    fn make_room(&mut self) {
        while self.known.len() >= MOST {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.said).map(|(key, _)| key.clone());
            oldest.map(|key| self.known.remove(&key));
        }
    }
}

/// What is the same in a text that is said again: numbers in it (positions, sizes, process ids) may differ.
#[must_use]
pub fn pattern(text: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let digit = is_number(c);
        if !(digit && out.ends_with('#')) {
            out.push(if digit { '#' } else { c });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn times_said(every: i64, seconds: i64) -> usize {
        let mut repeats = Repeats::default();
        let moments = (0..seconds).step_by(usize::try_from(every).unwrap());
        moments.filter(|at| repeats.seen("x", Micros(at * SECOND)) != Say::Nothing).count()
    }

    #[test]
    fn it_is_said_once_then_at_growing_intervals() {
        assert_eq!(times_said(1, 10), 1, "18 times in 10 seconds are one");
        assert_eq!(times_said(1, 601), 2);
        assert_eq!(times_said(1, 4201), 3);
        assert_eq!(times_said(1, 86_400), 6);
        assert_eq!(times_said(7200, 86_400), 6);
        let mut repeats = Repeats::default();
        assert_eq!(repeats.seen("x", Micros(0)), Say::First);
        assert_eq!(repeats.seen("x", Micros(5 * SECOND)), Say::Nothing);
        assert_eq!(repeats.seen("y", Micros(5 * SECOND)), Say::First, "another cause is news");
        let again = repeats.seen("x", Micros(600 * SECOND));
        assert_eq!(again, Say::Again { times: 2, since: Micros(0) });
    }

    #[test]
    fn its_end_is_said_once_and_what_comes_and_goes_is_not_said_more_often() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.over(&"x"), None, "nothing was wrong");
        let mut said = 0;
        for at in 0..300 {
            said += u32::from(repeats.seen("x", Micros(2 * at * SECOND)) != Say::Nothing);
            said += u32::from(repeats.over(&"x").is_some());
        }
        assert_eq!(said, 2, "ten minutes of coming and going");
        assert!(matches!(repeats.seen("x", Micros(700 * SECOND)), Say::Again { .. }));
        assert_eq!(repeats.over(&"x"), Some(Over { times: 301, since: Micros(0) }));
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing() {
        let mut repeats = Repeats::default();
        repeats.seen("x", Micros(1_000_000 * SECOND));
        assert_eq!(repeats.seen("x", Micros(5 * SECOND)), Say::Nothing);
        assert!(matches!(repeats.seen("x", Micros(700 * SECOND)), Say::Again { .. }));
    }

    #[test]
    fn numbers_make_no_difference_and_words_do() {
        assert_eq!(pattern("12 bytes at 0/3000148"), pattern("9 bytes at 0/1"));
        assert_ne!(pattern("disk full"), pattern("disk gone"));
        let mut repeats = Repeats::default();
        for number in 0..2000 {
            repeats.seen(number, Micros(number));
        }
        assert_eq!(repeats.known.len(), MOST, "memory is bounded");
    }

    proptest! {
        /// Never more often than the shortest pause, and never silent for longer than the longest while it goes on.
        #[test]
        fn the_pauses_hold(steps in prop::collection::vec(1..4000_i64, 1..200)) {
            let mut repeats = Repeats::default();
            let (mut now, mut last): (i64, Option<i64>) = (0, None);
            for step in steps {
                now += step * SECOND;
                if repeats.seen((), Micros(now)) == Say::Nothing {
                    prop_assert!(now - last.unwrap_or(now) < PAUSES[2]);
                } else {
                    prop_assert!(last.is_none_or(|last| now - last >= PAUSES[0]));
                    last = Some(now);
                }
            }
        }
    }
}
