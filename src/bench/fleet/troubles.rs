//! What goes wrong on a simulated day, and when.

use super::STEP;
use std::ops::Range;

/// The troubles of a day. Times are steps.
pub(super) struct Troubles {
    movers: u32,
    /// When a mover is killed, each for ten seconds.
    kills: Vec<(usize, u64)>,
}

/// Steps from this to that minute of the day.
const fn minutes(from: u64, to: u64) -> Range<u64> {
    from * 60 / STEP..to * 60 / STEP
}

/// The link carries a tenth.
const SLOW: Range<u64> = minutes(120, 180);
/// The storage node is away.
const AWAY: Range<u64> = minutes(360, 480);
/// One mover's machine is down; where there is one only, for as long as it takes to start it again.
const DOWN: Range<u64> = minutes(600, 660);
/// The database stands still.
const STANDS: Range<u64> = minutes(720, 730);
/// All movers are replaced, each for half a minute.
const REPLACED: Range<u64> = minutes(840, 841);
/// All servers write ten times as much.
const BURST: Range<u64> = minutes(960, 1020);

impl Troubles {
    /// Of so many movers; a kill every two hours by chance.
    pub(super) fn of(movers: u32, seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed ^ 0x6b69_6c6c);
        let kill =
            |hour: u64| (chance.usize(0..movers.max(1) as usize), hour * 3600 / STEP + chance.u64(0..600 / STEP));
        Self { movers, kills: (1..24).step_by(2).map(kill).collect() }
    }

    /// What the link carries of what it could.
    pub(super) fn link(&self, now: u64) -> f64 {
        match now {
            now if AWAY.contains(&now) => 0.0,
            now if SLOW.contains(&now) => 0.1,
            _ => 1.0,
        }
    }

    /// How many times as much as ever is written.
    pub(super) fn burst(&self, now: u64) -> f64 {
        if BURST.contains(&now) { 10.0 } else { 1.0 }
    }

    pub(super) fn database_stands(&self, now: u64) -> bool {
        STANDS.contains(&now)
    }

    pub(super) fn runs(&self, mover: usize, now: u64) -> bool {
        let is_down = mover == 0 && DOWN.contains(&now) && (self.movers > 1 || now < DOWN.start + 60 / STEP);
        let is_replaced =
            (REPLACED.start + mover as u64 * 30 / STEP..).take(30 / STEP as usize).any(|step| step == now);
        let is_killed = self.kills.iter().any(|&(killed, at)| killed == mover && (at..at + 10 / STEP).contains(&now));
        !(is_down || is_replaced || is_killed)
    }

    /// The end of the last one that holds all up.
    pub(super) fn last_end(&self) -> u64 {
        BURST.end
    }
}
