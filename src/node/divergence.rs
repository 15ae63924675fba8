//! A state that is not the one that a majority has: how nodes tell each other of theirs, and how the one that
//! differs gives up what it knows and begins anew. `audit.rs` compares.

use super::audit::Point;
use super::requests::{OUTCOME_UNKNOWN_ADVICE, failure};
use super::{Node, PeerMessage, Ticket};
use crate::kv::{Answer, FailureCode, Machine};
use crate::raft::{Index, NodeId, Restored};

impl Node {
    /// Tells the leader of the own state at a point of comparison.
    pub(super) fn report(&mut self, point: Point) {
        let Point { index, digest } = point;
        match self.raft.leader() {
            Some(leader) if leader == self.raft.id() => self.compare(leader, point),
            Some(leader) => {
                self.messages.push((leader, PeerMessage::DigestReport { index, digest }));
            }
            None => {}
        }
    }

    /// At the leader: a voter's state at a point.
    pub(super) fn compare(&mut self, from: NodeId, point: Point) {
        let membership = self.raft.membership();
        if !self.raft.is_leader() || !membership.is_voter(from) {
            return;
        }
        let voters = membership.voter_count();
        let Some((agreed, differing)) = self.audit.report(from, point, voters) else {
            return;
        };
        for node in differing {
            if node == self.raft.id() {
                self.learn_majority_state(agreed);
            } else {
                let Point { index, digest } = agreed;
                self.messages.push((node, PeerMessage::Diverged { index, digest }));
            }
        }
    }

    pub(super) fn learn_majority_state(&mut self, agreed: Point) {
        if self.audit.contradicts(agreed) {
            self.diverged_at = Some(agreed.index);
        }
    }

    /// The index at which a majority has another state than this node, which must not be served any more.
    pub fn diverged_at(&self) -> Option<Index> {
        self.diverged_at
    }

    /// Points at which all voters' states were compared and equal, under this leader.
    pub fn digests_compared(&self) -> u64 {
        self.audit.compared()
    }

    /// What this node knows of the state is worthless, its disk is empty now, and its term and vote are all
    /// it keeps. Every request that waits is answered with what is known of it.
    pub fn start_over(&mut self) -> Vec<(Ticket, Answer)> {
        let restored = Restored {
            hard_state: self.raft.hard_state(),
            lost_in_term: self.raft.term(),
            ..Restored::default()
        };
        let mut machine = Machine::default();
        machine.free_slowly(std::mem::take(&mut self.machine));
        let mut fresh = Node::new(self.config.clone(), restored, machine);
        fresh.connected = std::mem::take(&mut self.connected);
        fresh.others_limits = std::mem::take(&mut self.others_limits);
        fresh.store_bytes_max = self.store_bytes_max;
        fresh.last_id = self.last_id;
        fresh.wall_ms = self.wall_ms;
        std::mem::replace(self, fresh).give_up()
    }

    fn give_up(mut self) -> Vec<(Ticket, Answer)> {
        self.abandon_backups();
        let ids: Vec<u64> = self.forwards.keys().copied().collect();
        for id in ids {
            self.fail_forward(id, "this node gave up its state");
        }
        for write in std::mem::take(&mut self.writes).into_values() {
            let what = format!("this node gave up its state; {OUTCOME_UNKNOWN_ADVICE}");
            self.answer(write.origin, Answer::Failed(failure(FailureCode::OutcomeUnknown, what)));
        }
        if let Some(transfer) = self.transfer.take() {
            let what = "this node gave up its state; ask for the status".to_string();
            self.answer(
                transfer.origin,
                Answer::Failed(failure(FailureCode::OutcomeUnknown, what)),
            );
        }
        for held in std::mem::take(&mut self.held) {
            let what = "this node gave up its state; ask another".to_string();
            self.answer(held.origin, Answer::Failed(failure(FailureCode::ShuttingDown, what)));
        }
        for read in std::mem::take(&mut self.reads).into_values() {
            let what = "this node gave up its state; ask another".to_string();
            self.answer(read.origin, Answer::Failed(failure(FailureCode::ShuttingDown, what)));
        }
        self.answers
    }
}
