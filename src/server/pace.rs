//! When a leader lets entries wait, so that more of them share a message and a sync. Nothing waits while nothing
//! else is under way.
//!
//! A sync costs the same for one entry as for a hundred. So entries that arrive while others are being
//! committed wait for that, and as many writers as were just answered get a moment to ask again. And a leader
//! that syncs in every turn answers nobody meanwhile, while the others' disks are a majority without it: as
//! long as they keep up, its own entries wait for a sync that takes many at once.

use crate::raft::{Index, Raft, Waits};
use std::time::{Duration, Instant};

/// How long entries wait for those before them to be committed.
const COMMIT_PATIENCE: Duration = Duration::from_millis(2);
/// How long they wait for as many as there were before.
const GATHER_PATIENCE: Duration = Duration::from_millis(1);
/// Entries that do not wait for more; and bytes of those that are not committed.
const GATHERED_MAX: Index = 1024;
const GATHERED_BYTES_MAX: usize = 256 * 1024;
/// How long what the others have committed may be missing on this disk.
const LAG_MAX: Duration = Duration::from_millis(10);
/// How many bytes may be missing, whoever has them: what one sync writes is bounded.
const LAG_BYTES_MAX: usize = 1024 * 1024;
/// How long an entry that was sent waits for the others' disks; then it is written to this one as well.
const LAG_PATIENCE: Duration = Duration::from_millis(2);
/// After that was needed, how long this disk is not late again.
const DISTRUST: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub struct Pace {
    /// The newest entry that was sent.
    sent: Index,
    /// How many were sent with it.
    batch: Index,
    /// When the oldest entry that was not sent arrived.
    gathering: Option<Instant>,
    /// What was sent and is not on this disk: since when, and the newest of it at that time.
    lagging: Option<(Instant, Index)>,
    /// The others were too slow.
    distrusts_until: Option<Instant>,
    /// When a flush is due although nothing happens.
    deadline: Option<Instant>,
}

impl Pace {
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What the next flush should leave for later.
    pub fn wanted(&mut self, raft: &Raft, now: Instant) -> Waits {
        if !raft.is_leader() {
            *self = Pace::default();
            return Waits::default();
        }
        self.deadline = None;
        Waits { sending: self.gathers(raft, now), own_disk: self.lags(raft, now) }
    }

    fn gathers(&mut self, raft: &Raft, now: Instant) -> bool {
        let (last, commit) = (raft.log().last().index, raft.commit_index());
        let new = last.saturating_sub(self.sent);
        let is_much = new >= GATHERED_MAX || raft.uncommitted_bytes() >= GATHERED_BYTES_MAX;
        if new == 0 || self.sent == 0 || is_much {
            return false;
        }
        let begun = *self.gathering.get_or_insert(now);
        let until = match () {
            () if commit < self.sent => begun + COMMIT_PATIENCE,
            () if new < self.batch => begun + GATHER_PATIENCE,
            () => return false,
        };
        self.due(until);
        now < until
    }

    fn lags(&mut self, raft: &Raft, now: Instant) -> bool {
        let is_distrusted = self.distrusts_until.is_some_and(|until| now < until);
        if is_distrusted || raft.log().unwritten_bytes() >= LAG_BYTES_MAX {
            return false;
        }
        let Some(lagging) = self.lagging else { return true };
        let (until, is_committed) = may_lag_until(lagging, raft);
        if now >= until && !is_committed {
            self.distrusts_until = Some(now + DISTRUST);
        }
        now < until
    }

    fn due(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |deadline| deadline.min(at)));
    }

    /// What the flush has left for later.
    pub fn flushed(&mut self, raft: &Raft, waits: Waits, now: Instant) {
        if !raft.is_leader() {
            return;
        }
        let last = raft.log().last().index;
        if !waits.sending {
            if last > self.sent {
                self.batch = if self.sent == 0 { 1 } else { last - self.sent };
                self.sent = last;
            }
            self.gathering = None;
        }
        if !waits.own_disk {
            self.lagging = None;
        } else if !waits.sending {
            let lagging = *self.lagging.get_or_insert((now, last));
            self.due(may_lag_until(lagging, raft).0);
        }
    }
}

/// Until when this disk may be late with what is late since then, and whether the others have committed that.
fn may_lag_until((since, index): (Instant, Index), raft: &Raft) -> (Instant, bool) {
    let is_committed = raft.commit_index() >= index;
    (since + if is_committed { LAG_MAX } else { LAG_PATIENCE }, is_committed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{AppendOutcome, Config, Message, NodeId, Payload};

    const SENDS: Waits = Waits { sending: false, own_disk: true };
    const GATHERS: Waits = Waits { sending: true, own_disk: true };

    /// A leader of three that both others follow, and its pace.
    struct Leader {
        raft: Raft,
        pace: Pace,
        now: Instant,
    }

    impl Leader {
        fn new() -> Leader {
            let mut raft = Raft::new(Config::new(1, 1..=3, 1), Default::default(), Vec::new());
            while raft.leader().is_none() {
                raft.tick();
                for id in 2..=3 {
                    let term = raft.term();
                    let term = if raft.role_name() == "pre-candidate" { term + 1 } else { term };
                    let _ = raft.step(id, Message::PreVoteReply { term, granted: true });
                    let _ = raft.step(id, Message::VoteReply { term, granted: true });
                }
                raft.take_ready();
                raft.persisted();
            }
            let mut leader = Leader { raft, pace: Pace::default(), now: Instant::now() };
            assert_eq!(leader.turn(0), Waits::default(), "nobody keeps up yet");
            leader.acknowledged_by(2..=3);
            assert_eq!(leader.turn(0), SENDS);
            leader
        }

        /// A turn that brings so many writes; says what it leaves for later.
        fn turn(&mut self, writes: usize) -> Waits {
            for _ in 0..writes {
                self.raft.propose(Payload::Command(vec![0; 10].into())).expect("a leader");
            }
            let wanted = self.pace.wanted(&self.raft, self.now);
            let waits = self.raft.may_wait(wanted);
            self.raft.take_ready_with(waits);
            self.raft.persisted();
            let is_late = waits.own_disk && self.raft.log().has_unwritten();
            self.pace.flushed(&self.raft, Waits { own_disk: is_late, ..waits }, self.now);
            waits
        }

        fn acknowledged_by(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
            let outcome = AppendOutcome::Accepted { match_index: self.pace.sent };
            let term = self.raft.term();
            for id in nodes {
                let reply = Message::AppendReply { term, round: 0, outcome };
                self.raft.step(id, reply).expect("no other leader");
            }
        }

        fn passes(&mut self, time: Duration) {
            self.now += time;
        }
    }

    #[test]
    fn a_write_that_comes_alone_never_waits() {
        let mut leader = Leader::new();
        for _ in 0..5 {
            assert_eq!(leader.turn(1), SENDS);
            leader.acknowledged_by(2..=3);
        }
    }

    #[test]
    fn what_arrives_while_others_are_under_way_waits_for_them_but_not_for_long() {
        let mut leader = Leader::new();
        assert_eq!(leader.turn(1), SENDS);
        assert_eq!(leader.turn(1), GATHERS);
        leader.acknowledged_by(2..=3);
        assert_eq!(leader.turn(0), SENDS, "as many as before are here");
        assert_eq!(leader.turn(1), GATHERS);
        let deadline = leader.pace.deadline().expect("it will not wait for ever");
        assert_eq!(deadline, leader.now + COMMIT_PATIENCE);
        leader.passes(COMMIT_PATIENCE);
        assert!(!leader.turn(0).sending);
    }

    #[test]
    fn as_many_writers_as_were_answered_get_a_moment_to_ask_again() {
        let mut leader = Leader::new();
        assert_eq!(leader.turn(3), SENDS);
        leader.acknowledged_by(2..=3);
        assert_eq!(leader.turn(2), GATHERS, "one is missing");
        assert_eq!(leader.turn(1), SENDS);
        leader.acknowledged_by(2..=3);
        assert_eq!(leader.turn(1), GATHERS);
        leader.passes(GATHER_PATIENCE);
        assert_eq!(leader.turn(0), SENDS, "nobody else came");
        leader.acknowledged_by(2..=3);
        assert_eq!(leader.turn(1), SENDS, "and nobody else is expected");
    }

    #[test]
    fn much_does_not_wait_for_more() {
        let mut leader = Leader::new();
        assert_eq!(leader.turn(1), SENDS);
        assert_eq!(leader.turn(GATHERED_MAX as usize), SENDS);
    }

    #[test]
    fn the_own_disk_is_late_for_a_bounded_time() {
        let mut leader = Leader::new();
        assert_eq!(leader.turn(1), SENDS);
        leader.acknowledged_by(2..=3);
        leader.passes(LAG_MAX);
        assert_eq!(leader.turn(0), Waits::default());
        assert_eq!(leader.turn(1), SENDS, "and then again");
    }

    #[test]
    fn others_that_are_too_slow_cost_a_moment_once_and_not_every_write() {
        let mut leader = Leader::new();
        assert_eq!(leader.turn(1), SENDS);
        leader.acknowledged_by([2]);
        leader.passes(LAG_PATIENCE);
        assert_eq!(leader.turn(0), Waits::default());
        assert_eq!(
            leader.raft.commit_index(),
            leader.pace.sent,
            "the own disk commits with the other"
        );
        for _ in 0..3 {
            assert_eq!(
                leader.turn(1),
                Waits::default(),
                "no disk is waited for that may not answer"
            );
            leader.acknowledged_by([2]);
        }
        leader.passes(DISTRUST);
        leader.acknowledged_by([3]);
        assert_eq!(leader.turn(1), SENDS);
    }
}
