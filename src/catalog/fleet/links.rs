//! Links that movers share: a *link* leads from the site of some movers to a storage node. What may go over it at once, and
//! that it is down, stands in the tables; each mover takes its turn there and reads what it may use.
//!
//! Nobody takes more than is free: who is to have less gives it back first, and says so in its next turn. So the sum of all is
//! within the limit, whoever joins. Turns of one link come one after another, for each changes the link's row.

use super::{CatalogError, Fleet, FleetTables, fnv};
use crate::clock::boot_time;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a fleet needs to share links.
pub(in crate::catalog) const LINK_TABLES: [&str; 2] = ["fleet_link", "fleet_share"];

/// The age of tables in which a limit was set: older movers would not keep to it.
pub(in crate::catalog) const SCHEMA_OF_LINKS: &str = "3";

/// Sessions that one link may have at most.
pub(crate) const SESSIONS_MOST: u32 = 1024;
/// A mover that has no use for what it has keeps this part of an equal share of the bandwidth, to begin with.
const IDLE_PART: u64 = 10;
/// Turns of each mover after which others of those that wait for a session have it.
const ROUND: i64 = 16;
/// Until one who has to give something back takes its next turn, in which it says so.
const SOON: Duration = Duration::from_millis(50);

/// A link by its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarLink {
    /// Where the movers stand.
    pub site: String,
    /// The storage node, or its host.
    pub node: String,
}

/// How a mover found the link since its last turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LinkWay {
    /// Nothing was tried.
    #[default]
    Untried,
    /// Something came through.
    Through,
    /// The far end is out of reach, and why.
    Down(String),
}

/// What a mover tells of itself in its turn.
#[derive(Debug, Clone, Default)]
pub struct LinkNews {
    /// Bytes per second of late.
    pub moved: u64,
    /// Sessions that it has work for.
    pub wants: u32,
    /// Those that are open.
    pub in_use: u32,
    /// Those that may be opened by what it was told last.
    pub allowed: u32,
    /// How it found the link.
    pub way: LinkWay,
}

/// What a mover may use until its next turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkGrant {
    /// `None`: as many as pay.
    pub sessions: Option<u32>,
    /// Bytes per second.
    pub bandwidth: Option<u64>,
    /// The link is down, and another mover finds out when it is there again: which, and what it met.
    pub waits_for: Option<(String, String)>,
    /// The link is marked as down, by whomever.
    pub marked: bool,
    /// Who is no mover yet, or none any more, has no turn.
    pub outside: bool,
    /// When the next turn is due.
    pub again: Duration,
}

/// A link as its row has it.
#[derive(Debug, Clone, Default)]
pub(in crate::catalog) struct LinkLine {
    pub(in crate::catalog) sessions: Option<u32>,
    pub(in crate::catalog) bandwidth: Option<u64>,
    pub(in crate::catalog) turn: i64,
    pub(in crate::catalog) mark: Option<LinkMark>,
}

/// That a link is down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::catalog) struct LinkMark {
    /// The mover that tries it.
    pub(in crate::catalog) by: String,
    /// Turns that it has had.
    pub(in crate::catalog) turns: u32,
    pub(in crate::catalog) why: String,
    /// It is a mover still.
    pub(in crate::catalog) lives: bool,
}

/// What a mover has of a link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::catalog) struct LinkShare {
    pub(in crate::catalog) mover: String,
    pub(in crate::catalog) moved: u64,
    pub(in crate::catalog) wants: u32,
    pub(in crate::catalog) sessions: u32,
    pub(in crate::catalog) bandwidth: u64,
}

impl LinkMark {
    /// As its column takes it.
    pub(in crate::catalog) fn short_why(&self) -> String {
        self.why.chars().take(255).collect()
    }
}

/// What is to be set of a link; what is not said stays.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkLimits {
    pub(crate) sessions: Option<Option<u32>>,
    pub(crate) bandwidth: Option<Option<u64>>,
}

/// How a link stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct LinkStand {
    pub(crate) site: String,
    pub(crate) node: String,
    /// What all movers may have of it together.
    pub(crate) sessions: Option<u32>,
    pub(crate) bandwidth: Option<u64>,
    /// The mover that tries it, where it is down, and what it met.
    pub(crate) down_by: Option<String>,
    pub(crate) down_why: Option<String>,
    pub(crate) movers: u64,
    /// Sessions that these have.
    pub(crate) in_use: u64,
    /// Bytes per second, by their own word.
    pub(crate) moved: u64,
}

/// What is said where links cannot be shared.
pub(in crate::catalog) fn no_links(database: &str) -> CatalogError {
    CatalogError::Setup(format!(
        "Database {database} has no tables fleet_link and fleet_share, or the user may not see them; run `pysmurf-archiver init-db --fleet`"
    ))
}

/// What a turn comes to.
#[derive(Debug, Clone, Default)]
pub(in crate::catalog) struct LinkTurn {
    pub(in crate::catalog) share: LinkShare,
    pub(in crate::catalog) mark: Option<LinkMark>,
    pub(in crate::catalog) grant: LinkGrant,
}

/// Whose turn it is.
#[derive(Debug, Clone)]
pub(in crate::catalog) struct TurnTaker {
    pub(in crate::catalog) mover: String,
    news: LinkNews,
    heartbeat: Duration,
    /// Turns after which another one may try a link that is down.
    patience: u32,
}

impl TurnTaker {
    /// Decides by what stands in the tables; `shares` are those of the living.
    pub(in crate::catalog) fn take(&self, link: &LinkLine, shares: &[LinkShare]) -> LinkTurn {
        let before = shares.iter().find(|share| share.mover == self.mover).cloned().unwrap_or_default();
        let mine = LinkShare { mover: self.mover.clone(), moved: self.news.moved, wants: self.news.wants, ..before };
        let mut all: Vec<&LinkShare> = shares.iter().filter(|share| share.mover != self.mover).collect();
        let taken: u32 = all.iter().map(|share| share.sessions).sum();
        let taken_bandwidth: u64 = all.iter().map(|share| share.bandwidth).sum();
        all.push(&mine);
        let sessions = link.sessions.map(|limit| {
            let fair = sessions_of(&mine, all.clone(), limit, link.turn);
            fair.min(limit.saturating_sub(taken))
        });
        let bandwidth = link.bandwidth.map(|limit| {
            let fair = bandwidth_of(&mine, all, limit);
            // Where others have yet to give, next to nothing: 0 would be no limit.
            fair.min(limit.saturating_sub(taken_bandwidth)).max(1)
        });
        let mark = self.mark(link.mark.as_ref());
        let waits_for = mark.as_ref().filter(|mark| mark.by != self.mover);
        let sessions = match &mark {
            None => sessions,
            // One tries it, with one session.
            Some(mark) if mark.by == self.mover => Some(sessions.unwrap_or(1).min(1)),
            Some(_) => Some(0),
        };
        let LinkNews { in_use, allowed, .. } = self.news;
        let gives_back = sessions.is_some_and(|sessions| sessions < allowed);
        let has = match gives_back {
            // Some may just be opened.
            true => allowed.max(in_use),
            false => sessions.unwrap_or(0).max(in_use),
        };
        let share = LinkShare { sessions: has, bandwidth: bandwidth.unwrap_or(0), ..mine.clone() };
        let grant = LinkGrant {
            outside: false,
            sessions,
            bandwidth,
            waits_for: waits_for.map(|mark| (mark.by.clone(), mark.why.clone())),
            marked: mark.is_some(),
            again: if gives_back { SOON.min(self.heartbeat) } else { self.heartbeat },
        };
        LinkTurn { share, mark, grant }
    }

    /// Who tries a link that is down, if it is.
    fn mark(&self, mark: Option<&LinkMark>) -> Option<LinkMark> {
        let ours = |why: &str| LinkMark { by: self.mover.clone(), turns: 0, why: why.to_owned(), lives: true };
        match (&self.news.way, mark) {
            (LinkWay::Through, _) | (LinkWay::Untried, None) => None,
            (LinkWay::Down(why), None) => Some(ours(why)),
            (way, Some(mark)) if mark.by == self.mover => {
                let why = if let LinkWay::Down(why) = way { why } else { &mark.why };
                Some(LinkMark { turns: mark.turns.saturating_add(1), why: why.clone(), ..mark.clone() })
            }
            // It may be that one alone that does not get there.
            (_, Some(mark)) if !mark.lives || mark.turns >= self.patience => Some(ours(&mark.why)),
            (_, Some(mark)) => Some(mark.clone()),
        }
    }
}

/// How many sessions a mover is to have: each one, and the rest go by what each has moved. Where there are too few for
/// that, those with work have theirs first, by turns.
fn sessions_of(mine: &LinkShare, mut all: Vec<&LinkShare>, limit: u32, turn: i64) -> u32 {
    let round = turn / (ROUND * i64::try_from(all.len()).unwrap_or(1).max(1));
    let chance = |share: &LinkShare| fnv(share.mover.bytes().chain(round.to_le_bytes()));
    all.sort_by_cached_key(|share| (share.wants == 0, chance(share), share.mover.clone()));
    let mut given: Vec<(&LinkShare, u32)> =
        all.iter().enumerate().map(|(at, share)| (*share, u32::from((at as u64) < u64::from(limit)))).collect();
    let most = all.iter().map(|share| share.moved).max().unwrap_or(0);
    // Who has moved nothing yet has a little weight, too.
    let weight = |share: &LinkShare| (share.moved + most / 20 + 1) as f64;
    let left = limit.min(SESSIONS_MOST).saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX));
    for _ in 0..left {
        let wanting = given.iter_mut().filter(|(share, given)| *given < share.wants);
        let next = wanting.max_by(|(one, has), (other, others)| {
            (weight(one) / f64::from(*has + 1)).total_cmp(&(weight(other) / f64::from(*others + 1)))
        });
        let Some((_, given)) = next else { break };
        *given += 1;
    }
    given.iter().find(|(share, _)| share.mover == mine.mover).map_or(0, |(_, given)| *given)
}

/// How much bandwidth a mover is to have: who does not use what it has keeps what it uses and a quarter more, and the others
/// share the rest alike.
fn bandwidth_of(mine: &LinkShare, mut all: Vec<&LinkShare>, limit: u64) -> u64 {
    let movers = all.len().max(1) as u64;
    let least = (limit / (IDLE_PART * movers)).max(1);
    let demand = |share: &LinkShare| match share {
        _ if share.wants == 0 => least,
        _ if share.bandwidth > 1 && share.moved < share.bandwidth / 5 * 4 => (share.moved / 4 * 5).max(least),
        // It is given more step by step: who has little to do would else get a lot, and give it back, for ever.
        _ => share.bandwidth.saturating_mul(2).max(least),
    };
    all.sort_by_key(|share| (demand(share), share.mover.clone()));
    let (mut left, mut ours) = (limit, 0);
    for (at, share) in all.iter().enumerate() {
        let given = demand(share).min(left / (movers - at as u64));
        left -= given;
        if share.mover == mine.mover {
            ours = given;
        }
    }
    // What nobody asks for is anybody's who may come to use it.
    ours + left / movers
}

impl<T: FleetTables> Fleet<T> {
    /// Takes our turn at a link.
    pub(in crate::catalog) async fn link_turn(
        &self,
        link: &FarLink,
        news: LinkNews,
    ) -> Result<LinkGrant, CatalogError> {
        let shared = &self.0;
        let _turn = shared.turn.lock().await;
        let mover = shared.session().as_ref().map(|session| session.mover.clone());
        let Some(mover) = mover else {
            // Whoever is no mover has no share, and soon is one.
            return Ok(LinkGrant { sessions: Some(0), again: SOON, outside: true, ..LinkGrant::default() });
        };
        let (heartbeat, patience) = (shared.rules.heartbeat, shared.rules.patience * 2);
        let taker = TurnTaker { mover: mover.clone(), news, heartbeat, patience };
        let began = boot_time();
        match shared.tables.link_turn(link, taker).await? {
            Some(turn) => {
                shared.fenced(&mover, began);
                Ok(turn.grant)
            }
            None => Err(shared.evicted(&mover)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Movers that take their turns at a link.
    struct Played {
        link: LinkLine,
        shares: Vec<LinkShare>,
        news: Vec<LinkNews>,
    }

    impl Played {
        fn new(movers: usize, sessions: Option<u32>, bandwidth: Option<u64>) -> Self {
            let news = vec![LinkNews { wants: 4, ..LinkNews::default() }; movers];
            Self { link: LinkLine { sessions, bandwidth, ..LinkLine::default() }, shares: Vec::new(), news }
        }

        fn turn(&mut self, at: usize) -> LinkGrant {
            let taker = TurnTaker {
                mover: format!("m{at}"),
                news: self.news[at].clone(),
                heartbeat: Duration::from_secs(5),
                patience: 4,
            };
            self.link.turn += 1;
            let turn = taker.take(&self.link, &self.shares);
            self.shares.retain(|share| share.mover != turn.share.mover);
            self.shares.push(turn.share);
            self.link.mark = turn.mark;
            let allowed = turn.grant.sessions.unwrap_or(4);
            self.news[at].allowed = allowed;
            self.news[at].way = LinkWay::Untried;
            turn.grant
        }

        /// Sessions are opened as they may be, all at once, and closed one a round.
        fn sessions(&mut self, rounds: usize) -> Vec<u32> {
            for _ in 0..rounds {
                for at in 0..self.news.len() {
                    self.turn(at);
                    let news = &mut self.news[at];
                    news.in_use = news.allowed.min(news.wants).max(news.in_use.saturating_sub(1));
                    let all: u32 = self.news.iter().map(|news| news.in_use).sum();
                    assert!(all <= self.link.sessions.unwrap_or(u32::MAX), "{all}");
                }
            }
            self.news.iter().map(|news| news.in_use).collect()
        }
    }

    #[test]
    fn sessions_are_never_more_than_the_limit_and_go_where_much_is_moved() {
        let mut played = Played::new(1, Some(4), None);
        assert_eq!(played.sessions(3), [4]);
        played.news.push(LinkNews { wants: 4, ..LinkNews::default() });
        played.news[0].moved = 1_000_000;
        assert_eq!(played.sessions(6), [3, 1], "it gives one back before the other one has it");
        played.news[1].moved = 1_000_000;
        assert_eq!(played.sessions(6), [2, 2]);
        played.news[0].wants = 0;
        assert_eq!(played.sessions(6), [0, 3], "one stays for the idle one to begin with");
    }

    #[test]
    fn where_sessions_are_too_few_those_with_work_have_them_by_turns() {
        let mut played = Played::new(5, Some(2), None);
        played.news[4].wants = 0;
        let mut had = [false; 5];
        for _ in 0..400 {
            for (at, in_use) in played.sessions(1).into_iter().enumerate() {
                had[at] |= in_use > 0;
            }
        }
        assert_eq!(had, [true, true, true, true, false]);
    }

    #[test]
    fn bandwidth_goes_to_those_who_use_it() {
        let mut played = Played::new(3, None, Some(3000));
        let settle = |played: &mut Played, uses: [u64; 3]| {
            let mut last = [0; 3];
            for _ in 0..20 {
                for at in 0..3 {
                    let share = played.turn(at).bandwidth.unwrap();
                    last[at] = share;
                    played.news[at].moved = share.min(uses[at]);
                    let sum: u64 = played.shares.iter().map(|share| share.bandwidth).sum();
                    assert!(sum <= 3000 + 3, "{sum}");
                }
            }
            last
        };
        assert_eq!(settle(&mut played, [u64::MAX; 3]), [1000; 3]);
        let [one, two, three] = settle(&mut played, [u64::MAX, u64::MAX, 80]);
        assert!(one >= 1400 && two >= 1400 && (100..=200).contains(&three), "{one} {two} {three}");
        let [one, ..] = settle(&mut played, [u64::MAX, 0, 0]);
        assert!(one >= 2700, "{one}");
        let [one, _, three] = settle(&mut played, [0, 0, u64::MAX]);
        assert!(three >= 2700 && one >= 1, "{one} {three}");
    }

    #[test]
    fn one_tries_a_link_that_is_down_and_the_others_wait_until_it_gets_through() {
        let mut played = Played::new(3, None, None);
        assert_eq!(played.turn(0).sessions, None);
        played.news[1].way = LinkWay::Down("no route".to_owned());
        let marked = played.turn(1);
        assert_eq!((marked.sessions, marked.waits_for), (Some(1), None));
        played.news[2].way = LinkWay::Down("no route either".to_owned());
        let waits = played.turn(2);
        assert_eq!((waits.sessions, waits.waits_for), (Some(0), Some(("m1".to_owned(), "no route".to_owned()))));
        assert_eq!(played.turn(0).sessions, Some(0));
        played.news[1].way = LinkWay::Through;
        assert_eq!(played.turn(1).sessions, None);
        assert_eq!((played.turn(0).sessions, played.turn(2).sessions), (None, None));
    }

    #[test]
    fn another_one_tries_when_the_first_is_dead_or_had_its_turns() {
        let mut played = Played::new(2, Some(2), None);
        played.news[0].way = LinkWay::Down("no route".to_owned());
        assert_eq!(played.turn(0).sessions, Some(1));
        assert_eq!(played.turn(1).sessions, Some(0));
        played.link.mark.as_mut().unwrap().lives = false;
        assert_eq!((played.turn(1).sessions, played.turn(0).sessions), (Some(1), Some(0)));
        for _ in 0..4 {
            played.turn(1);
        }
        assert_eq!((played.turn(0).sessions, played.turn(1).sessions), (Some(1), Some(0)));
    }
}
