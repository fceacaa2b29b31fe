//! Whether the old copy of a large file is worth reading, as far as this session has shown.
//!
//! A delta takes the time to read and sum the basis, then that in which the link brings what the basis lacks; a file
//! asked for whole takes the time in which the link brings all of it. Of one file these come one after the other, and
//! generator and receiver often share a disk, so they are added up. What both ways cost, which is above all to write the
//! new file, is left out. All is numbers: bytes and seconds that others have counted.

use std::time::Duration;

/// Smaller files and bases are summed as ever and tell nothing, bytes.
pub(in crate::transfer) const LARGE: u64 = 4 << 20;
/// What must have been summed before a file may be asked for whole, bytes.
const SUMMED_LEAST: u64 = 64 << 20;
/// What the link must have brought before, bytes; or for so many seconds.
const BROUGHT_LEAST: (u64, f64) = (64 << 20, 1.0);
/// How many times the cost of the whole file a delta must cost: bytes on the link may be dear to others.
const PAYS: f64 = 1.25;
/// Files of one kind until the other is tried again.
const AGAIN: u32 = 16;
/// What these tries may cost, as a share of the time that the files between them take.
const TRIES: f64 = 1.0 / 8.0;
/// Bytes that weigh as much as all that was seen before them.
const WINDOW: f64 = (64 << 20) as f64;
/// The least weight of what is seen of the kind that is tried only now and then.
const RARE: f64 = 0.5;
/// Files that may be on their way whole while the next one is judged; and bytes, for what they show comes too late else.
const AHEAD: (u32, u64) = (2, 64 << 20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum AskFor {
    /// With the sums of its basis.
    #[default]
    Delta,
    /// As if there were no basis.
    Whole,
}

/// A way, and what was expected of both, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Judgement {
    pub(super) way: AskFor,
    /// To read and sum the basis.
    pub(super) sums: f64,
    /// To bring what the basis lacks.
    pub(super) news: f64,
    /// To bring all.
    pub(super) whole: f64,
}

/// What bases have cost and saved so far.
#[derive(Debug)]
pub(in crate::transfer) struct DeltaChoice {
    /// Whether there is anything to judge: neither way was asked for by the user.
    open: bool,
    /// Seconds per byte of a basis.
    sums: Mean,
    /// Seconds per byte on the link.
    link: Mean,
    /// The share of a file that its basis lacks.
    news: Mean,
    /// The better way at last.
    way: AskFor,
    /// Files since the other way was tried.
    alike: u32,
    /// Seconds that tries may cost.
    spare: f64,
    /// Files on their way whole, and their bytes.
    ahead: (u32, u64),
}

/// A mean in which what is new outweighs what is old, and all that it is of.
#[derive(Debug, Default)]
struct Mean {
    value: Option<f64>,
    bytes: u64,
    seconds: f64,
}

impl Mean {
    fn learn(&mut self, bytes: u64, value: f64, rare: bool) {
        let weight = bytes as f64 / (bytes as f64 + WINDOW);
        let weight = if rare { weight.max(RARE) } else { weight };
        self.value = Some(self.value.map_or(value, |known| known + (value - known) * weight));
    }

    fn learn_pace(&mut self, bytes: u64, seconds: f64, rare: bool) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.seconds += seconds;
        self.learn(bytes, seconds / bytes.max(1) as f64, rare);
    }
}

impl DeltaChoice {
    /// Nothing is known yet; unless `open` all is asked for as a delta.
    pub(in crate::transfer) fn new(open: bool) -> Self {
        let (sums, link, news, way, alike, spare, ahead) = Default::default();
        Self { open, sums, link, news, way, alike, spare, ahead }
    }

    /// How to ask for a file of `len` bytes that has a basis.
    pub(super) fn judge(&mut self, basis_len: u64, len: u64) -> Judgement {
        let seen = self.sums.bytes >= SUMMED_LEAST
            && (self.link.bytes >= BROUGHT_LEAST.0 || self.link.seconds >= BROUGHT_LEAST.1);
        let (true, Some(sums), Some(link), Some(news)) =
            (self.open && seen && basis_len >= LARGE, self.sums.value, self.link.value, self.news.value)
        else {
            return Judgement::default();
        };
        let (sums, whole) = (sums * basis_len as f64, link * len as f64);
        let news = whole * news;
        let (better, cost, more) = match sums + news > whole * PAYS {
            true => (AskFor::Whole, whole, sums + news - whole),
            false => (AskFor::Delta, sums + news, whole - sums - news),
        };
        if better != self.way {
            (self.way, self.alike, self.spare) = (better, 0, 0.0);
        }
        self.alike += 1;
        self.spare += cost * TRIES;
        let tries = self.alike > AGAIN && self.spare >= more;
        if tries {
            (self.alike, self.spare) = (0, 0.0);
        }
        let way = match (better, tries) {
            (AskFor::Whole, false) | (AskFor::Delta, true) => AskFor::Whole,
            (AskFor::Delta, false) | (AskFor::Whole, true) => AskFor::Delta,
        };
        Judgement { way, sums, news, whole }
    }

    /// A basis was read and summed in this time, which is that of nothing else.
    pub(in crate::transfer) fn summed(&mut self, bytes: u64, took: Duration) {
        if bytes >= LARGE {
            self.sums.learn_pace(bytes, took.as_secs_f64(), self.way == AskFor::Whole);
        }
    }

    /// The link brought so many bytes of a large file. If they came `over_basis`, that is what it did at least: the
    /// sender had to search, too.
    pub(in crate::transfer) fn brought(&mut self, bytes: u64, took: Duration, over_basis: bool) {
        let seconds = took.as_secs_f64();
        if bytes == 0 {
            self.link.seconds += seconds;
        } else if over_basis && self.link.value.is_some_and(|known| seconds / bytes as f64 > known) {
            self.link.bytes += bytes;
            self.link.seconds += seconds;
        } else {
            self.link.learn_pace(bytes, seconds, self.way == AskFor::Delta && !over_basis);
        }
    }

    /// A large file has come over a basis.
    pub(in crate::transfer) fn built(&mut self, literal_bytes: u64, matched_bytes: u64) {
        let bytes = literal_bytes + matched_bytes;
        if bytes >= LARGE {
            self.news.learn(bytes, literal_bytes as f64 / bytes as f64, self.way == AskFor::Whole);
        }
    }

    /// A file of so many bytes was asked for whole though it has a basis.
    pub(super) fn asked_whole(&mut self, len: u64) {
        self.ahead = (self.ahead.0.saturating_add(1), self.ahead.1.saturating_add(len));
    }

    /// It has come, or will not.
    pub(in crate::transfer) fn whole_came(&mut self, len: u64) {
        self.ahead = (self.ahead.0.saturating_sub(1), self.ahead.1.saturating_sub(len));
    }

    /// Files that are on their way whole, where they are more than one can judge by.
    pub(super) fn too_far_ahead(&self) -> Option<u32> {
        (self.ahead.0 >= AHEAD.0 && self.ahead.1 >= AHEAD.1).then_some(self.ahead.0)
    }

    /// How long they may take by all that is known. A sender may leave a file out without a word.
    pub(super) fn patience(&self) -> Duration {
        let seconds = self.link.value.unwrap_or_default() * self.ahead.1 as f64;
        Duration::try_from_secs_f64(1.0 + seconds * 2.0).unwrap_or(Duration::MAX)
    }

    /// They are not waited for any longer.
    pub(super) fn give_up_waiting(&mut self) {
        self.ahead = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// How fast things are, bytes per second, and the share of new bytes.
    #[derive(Clone, Copy)]
    struct World {
        sums: f64,
        link: f64,
        news: f64,
    }

    fn seconds(bytes: f64, rate: f64) -> Duration {
        Duration::from_secs_f64(bytes / rate)
    }

    /// Plays files that have a basis of their own length; how many were asked for whole, and the seconds it took.
    fn play(choice: &mut DeltaChoice, files: u32, len: u64, world: World) -> (u32, f64) {
        let (mut whole, mut took) = (0, 0.0);
        for _ in 0..files {
            let over_basis = choice.judge(len, len).way == AskFor::Delta;
            let literal = if over_basis { (len as f64 * world.news) as u64 } else { len };
            let brought = seconds(literal as f64, world.link);
            if over_basis {
                let summed = seconds(len as f64, world.sums);
                choice.summed(len, summed);
                choice.brought(literal, brought, true);
                choice.built(literal, len - literal);
                took += summed.as_secs_f64();
            } else {
                choice.asked_whole(len);
                choice.brought(literal, brought, false);
                choice.whole_came(len);
                whole += 1;
            }
            took += brought.as_secs_f64();
        }
        (whole, took)
    }

    const SLOW_DISK: World = World { sums: 50e6, link: 1000e6, news: 0.5 };
    const SLOW_LINK: World = World { sums: 1000e6, link: 10e6, news: 0.5 };

    #[test]
    fn a_basis_is_left_where_the_disk_is_slower_than_the_link() {
        let mut choice = DeltaChoice::new(true);
        // 64 MiB of sums are four files, 64 MiB on the link eight.
        assert_eq!(play(&mut choice, 8, 16 * MIB, SLOW_DISK).0, 0);
        let (whole, took) = play(&mut choice, 800, 16 * MIB, SLOW_DISK);
        assert!(whole >= 780, "{whole}");
        // What the tries cost is a bounded part of it all.
        let least = 800.0 * 16.0 * MIB as f64 / SLOW_DISK.link;
        assert!(took < least * (1.0 + TRIES) + 0.4, "{took} {least}");
    }

    #[test]
    fn a_basis_is_read_where_the_link_is_slower() {
        let mut choice = DeltaChoice::new(true);
        let (whole, took) = play(&mut choice, 800, 16 * MIB, SLOW_LINK);
        let least = 800.0 * 16.0 * MIB as f64 * (1.0 / SLOW_LINK.sums + SLOW_LINK.news / SLOW_LINK.link);
        assert!((1..=800 / AGAIN).contains(&whole), "{whole}");
        assert!(took < least * (1.0 + TRIES), "{took} {least}");
        // Equal cost is no reason to send more.
        let even = World { sums: 100e6, link: 100e6, news: 0.1 };
        assert!(play(&mut DeltaChoice::new(true), 800, 16 * MIB, even).0 <= 800 / AGAIN);
    }

    #[test]
    fn a_change_is_noticed() {
        let mut choice = DeltaChoice::new(true);
        play(&mut choice, 100, 16 * MIB, SLOW_DISK);
        // The link becomes slow, which files that come whole show at once.
        let (whole, _) = play(&mut choice, 100, 16 * MIB, World { link: 10e6, ..SLOW_DISK });
        assert!(whole <= 10 + 100 / AGAIN, "{whole}");
        // It becomes fast again.
        play(&mut choice, 100, 16 * MIB, SLOW_DISK);
        let (whole, _) = play(&mut choice, 100, 16 * MIB, SLOW_DISK);
        assert!(whole >= 80, "{whole}");
        // The disk becomes fast, which only tries can show.
        play(&mut choice, 400, 16 * MIB, World { sums: 5000e6, news: 0.01, ..SLOW_DISK });
        let (whole, _) = play(&mut choice, 100, 16 * MIB, World { sums: 5000e6, news: 0.01, ..SLOW_DISK });
        assert!(whole <= 100 / AGAIN + 1, "{whole}");
    }

    /// Where few bytes are new their pace is that of the sender's search, and only a file that comes whole shows better.
    #[test]
    fn what_comes_over_a_basis_shows_the_least_that_the_link_can() {
        let mut choice = DeltaChoice::new(true);
        play(&mut choice, 8, 16 * MIB, SLOW_DISK);
        choice.brought(MIB, Duration::from_secs(1), true);
        assert_eq!(choice.judge(16 * MIB, 16 * MIB).way, AskFor::Whole);
        choice.brought(64 * MIB, Duration::from_secs(64), false);
        assert_eq!(choice.judge(16 * MIB, 16 * MIB).way, AskFor::Delta);
        // The first sign of a link is taken as it is, and tried when that costs little.
        let mut choice = DeltaChoice::new(true);
        let mut whole = 0;
        for _ in 0..1000 {
            let way = choice.judge(16 * MIB, 16 * MIB).way;
            if way == AskFor::Whole {
                choice.brought(16 * MIB, seconds(16.0 * MIB as f64, 1000e6), false);
                whole += 1;
            } else {
                choice.summed(16 * MIB, seconds(16.0 * MIB as f64, 50e6));
                choice.brought(MIB / 4, Duration::from_millis(20), true);
                choice.built(MIB / 4, 16 * MIB - MIB / 4);
            }
        }
        assert!(whole >= 800, "{whole}");
    }

    #[test]
    fn little_is_judged_by_nothing() {
        let mut choice = DeltaChoice::new(true);
        assert_eq!(play(&mut choice, 1000, LARGE - 1, SLOW_DISK).0, 0);
        assert_eq!(play(&mut choice, 7, 8 * MIB, SLOW_DISK).0, 0, "less than 64 MiB of sums");
        let matched = World { news: 0.0, ..SLOW_DISK };
        assert_eq!(play(&mut DeltaChoice::new(true), 1000, 16 * MIB, matched).0, 0, "nothing is known of the link");
        assert_eq!(play(&mut DeltaChoice::new(false), 1000, 16 * MIB, SLOW_DISK).0, 0, "it was said how");
    }

    #[test]
    fn not_too_many_are_asked_for_ahead_of_what_they_show() {
        let mut choice = DeltaChoice::new(true);
        choice.brought(100 * MIB, Duration::from_secs(1), false);
        choice.asked_whole(1000 * MIB);
        assert_eq!(choice.too_far_ahead(), None, "one more keeps the link busy");
        choice.asked_whole(20 * MIB);
        assert_eq!(choice.too_far_ahead(), Some(2));
        assert!((choice.patience().as_secs_f64() - 21.4).abs() < 0.1, "{:?}", choice.patience());
        choice.whole_came(1000 * MIB);
        assert_eq!(choice.too_far_ahead(), None);
        choice.asked_whole(1000 * MIB);
        choice.give_up_waiting();
        assert_eq!((choice.too_far_ahead(), choice.patience()), (None, Duration::from_secs(1)));
        choice.whole_came(1000 * MIB);
    }
}
