//! AppendEntries, both ways, and the commit index (sections 5.3 and 5.4.2).
//!
//! A leader does not send when it is proposed to. Once per turn `fill_appends` looks at every follower and
//! sends what is new, so that all proposals of a turn share one message per follower.

use super::log::Position;
use super::progress::{Pace, Progress};
use super::quorum::majority_index;
use super::role::{Leadership, Role};
use super::{AppendOutcome, Entry, Index, Message, NodeId, Payload, Raft, Round, Term};

/// Why a proposal was not taken. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposeError {
    NotLeader,
    /// The entries that are not yet committed have reached `uncommitted_bytes_max`.
    Overloaded,
    /// The leader is handing over to another node, which has begun to be the leader soon.
    HandingOver,
}

/// To be read from the disk's log and sent as [`Message::AppendEntries`] of this term: entries that are not in
/// memory any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRead {
    pub to: NodeId,
    pub term: Term,
    pub first: Index,
    /// The newest entry that may be read, as later ones may yet be replaced.
    pub last: Index,
    /// At least one entry, then as many as this allows.
    pub bytes_max: usize,
}

/// The fields of one AppendEntries that a follower looks at.
pub(super) struct Append {
    pub prev: Position,
    pub leader_commit: Index,
    pub round: Round,
    pub entries: Vec<Entry>,
}

impl Raft {
    /// Section 5.3: "the leader appends the command to its log as a new entry". Committed if an entry of
    /// this index *and term* is; leadership may be lost before.
    pub fn propose(&mut self, payload: Payload) -> Result<Position, ProposeError> {
        let position = Position { index: self.log.last().index + 1, term: self.hard_state.term };
        let Role::Leader(leadership) = &mut self.role else { return Err(ProposeError::NotLeader) };
        let entry = Entry { term: position.term, index: position.index, payload };
        if leadership.handover.is_some() {
            return Err(ProposeError::HandingOver);
        }
        if leadership.uncommitted_bytes >= self.config.uncommitted_bytes_max {
            return Err(ProposeError::Overloaded);
        }
        leadership.uncommitted_bytes += entry.cost_bytes();
        self.append_entry(entry);
        Ok(position)
    }

    /// One tick of a leader: heartbeats, and whether it still has its quorum.
    pub(super) fn tick_leader(&mut self) {
        self.ask_all();
        let Role::Leader(leadership) = &mut self.role else { return };
        leadership.progress.values_mut().for_each(|peer| peer.silent_ticks += 1);
        leadership.heartbeat_elapsed_ticks += 1;
        if leadership.heartbeat_elapsed_ticks >= self.config.heartbeat_ticks {
            leadership.heartbeat_elapsed_ticks = 0;
            leadership.progress.values_mut().for_each(Progress::heartbeat);
        }
        leadership.quorum_elapsed_ticks += 1;
        if leadership.quorum_elapsed_ticks >= self.config.election_ticks_min {
            leadership.quorum_elapsed_ticks = 0;
            leadership.catch_up_index = self.commit_index;
            self.check_quorum();
        }
        self.tick_handover();
    }

    /// Thesis 6.2: "a leader in Raft steps down if an election timeout elapses without a successful round
    /// of heartbeats to a majority of its cluster".
    fn check_quorum(&mut self) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let mut active = vec![self.config.id];
        for (id, progress) in &mut leadership.progress {
            if std::mem::take(&mut progress.is_active) {
                active.push(*id);
            }
        }
        if !self.is_majority(|id| active.contains(&id)) {
            self.become_follower(self.hard_state.term, None);
        }
    }

    /// Everything that followers are owed at the end of a turn; entries only if they do not wait.
    pub(super) fn fill_appends(&mut self, entries_wait: bool) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let peers: Vec<NodeId> = leadership.progress.keys().copied().collect();
        for peer in peers {
            while self.send_append(peer, entries_wait) {}
            self.read_for(peer);
        }
        self.hand_over_if_level();
    }

    /// Sends one AppendEntries if one is owed. Returns whether there may be more to send.
    fn send_append(&mut self, to: NodeId, entries_wait: bool) -> bool {
        let Role::Leader(Leadership { progress, .. }) = &mut self.role else { return false };
        let progress = progress.get_mut(&to).expect("the peer is a member");
        let before = self.log.before();
        if progress.next_index <= before.index {
            progress.needs_snapshot(self.snapshot.unwrap_or(before));
        }
        let has_entries =
            !entries_wait && progress.may_send_entries(self.log.last().index, &self.config);
        if !has_entries && !progress.owes_message {
            return false;
        }
        if has_entries && progress.next_index <= self.log.evicted().index {
            self.log_reads.push(LogRead {
                to,
                term: self.hard_state.term,
                first: progress.next_index,
                last: self.log.evicted().index,
                bytes_max: self.config.append_bytes_max,
            });
            return false;
        }
        progress.owes_message = false;
        progress.told_commit = self.commit_index;
        // Beside a snapshot, heartbeats ask about the first place that the log still knows.
        let prev_log_index = match progress.pace {
            Pace::Snapshot(_) => before.index,
            _ => progress.next_index - 1,
        };
        let entries = if has_entries {
            self.log.slice(progress.next_index, self.config.append_bytes_max)
        } else {
            Vec::new()
        };
        progress.sent_all(&entries);
        let message = self.append_message(prev_log_index, entries);
        self.early_messages.push((to, message));
        has_entries
    }

    /// What was to be read for a follower is here: the message with it, to be sent at once. Without entries, or
    /// with others than this log has, it is as if this log began behind what only the disk has.
    pub fn log_read(&mut self, read: LogRead, entries: Vec<Entry>) -> Option<(NodeId, Message)> {
        let is_sound = entries.first().is_some_and(|entry| entry.index == read.first)
            && entries.iter().all(|entry| self.log.term_at(entry.index) == Some(entry.term));
        if !is_sound {
            self.log.compact(self.log.evicted());
            return None;
        }
        let Role::Leader(Leadership { progress, .. }) = &mut self.role else { return None };
        let progress = progress.get_mut(&read.to)?;
        if read.term != self.hard_state.term || read.first != progress.next_index {
            return None;
        }
        progress.owes_message = false;
        progress.sent_all(&entries);
        Some((read.to, self.append_message(read.first - 1, entries)))
    }

    fn append_message(&self, prev_log_index: Index, entries: Vec<Entry>) -> Message {
        let round = match &self.role {
            Role::Leader(leadership) => leadership.reads.round(),
            _ => 0,
        };
        Message::AppendEntries {
            term: self.hard_state.term,
            prev_log_index,
            prev_log_term: self.log.term_at(prev_log_index).expect("next_index is in the log"),
            leader_commit: self.commit_index,
            round,
            entries,
        }
    }

    /// Drops entries from memory that the disk has, the oldest first, up to `upto`: what a follower needs of them is
    /// read again.
    pub fn evict(&mut self, upto: Index, bytes_kept: usize, entries_max: usize) {
        let upto = upto.min(self.commit_index).min(self.log.durable_index());
        self.log.evict(upto, bytes_kept, entries_max);
    }

    /// Whether a follower can be given what it needs: the log goes on where the newest snapshot ends, or before.
    pub fn log_connects_to_snapshot(&self) -> bool {
        self.log.before().index <= self.snapshot.map_or(0, |position| position.index)
    }

    /// A member that is leaving is told how far its removal is committed.
    pub(super) fn send_last_append(&mut self, to: NodeId) {
        let Role::Leader(Leadership { progress, .. }) = &mut self.role else { return };
        let Some(progress) = progress.get_mut(&to) else { return };
        progress.owes_message = true;
        let is_far_behind = progress.next_index <= self.log.evicted().index;
        self.send_append(to, is_far_behind);
    }

    /// A leader of an older term learns the newer one and steps down.
    pub(super) fn reject_stale_append(&mut self, from: NodeId, prev_log_index: Index) {
        let outcome = AppendOutcome::Rejected {
            prev_log_index,
            hint_index: 0,
            hint_term: 0,
            lost_entries: false,
        };
        self.send(from, Message::AppendReply { term: self.hard_state.term, round: 0, outcome });
    }

    /// Figure 2, "AppendEntries RPC, receiver implementation", steps 2 to 5.
    pub(super) fn handle_append_entries(&mut self, from: NodeId, append: Append) {
        let Append { prev, leader_commit, round, entries } = append;
        let term = self.hard_state.term;
        let outcome = match self.append(prev, entries) {
            Ok(match_index) => {
                // Step 5: only as far as this message vouches for the log.
                self.commit_to(leader_commit.min(match_index));
                AppendOutcome::Accepted { match_index }
            }
            Err(hint) => AppendOutcome::Rejected {
                prev_log_index: prev.index,
                hint_index: hint.index,
                hint_term: hint.term,
                lost_entries: self.is_damaged(),
            },
        };
        self.send(from, Message::AppendReply { term, round, outcome });
    }

    /// Returns the last index that is known to match the leader's log, or where it may match instead.
    fn append(&mut self, prev: Position, entries: Vec<Entry>) -> Result<Index, Position> {
        // What is committed matches every later leader's log (section 5.4.3): a message that begins
        // below is old, or overlaps; it says nothing new about that part and never shortens it.
        let overlaps = prev.index < self.commit_index;
        if !overlaps && self.log.term_at(prev.index) != Some(prev.term) {
            return Err(self.log.last_possible_match(prev.index, prev.term));
        }
        let match_index = (prev.index + entries.len() as Index).max(self.commit_index);
        let mut first_new = None;
        for mut entry in entries {
            if entry.index <= self.commit_index {
                continue;
            }
            match self.log.term_at(entry.index) {
                // Step 3: only a conflict truncates. A delayed message that ends earlier does not.
                Some(term) if term == entry.term => continue,
                Some(_) => self.truncate_log(entry.index),
                None => {}
            }
            // Else the whole message would be kept for the few of its entries that are new.
            if *first_new.get_or_insert(entry.index) > prev.index + 1
                && let Payload::Command(command) = &mut entry.payload
            {
                command.detach();
            }
            self.append_entry(entry);
        }
        Ok(match_index)
    }

    pub(super) fn handle_append_reply(
        &mut self,
        from: NodeId,
        round: Round,
        outcome: AppendOutcome,
    ) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some(progress) = leadership.progress.get_mut(&from) else { return };
        progress.was_heard();
        progress.round = progress.round.max(round);
        match outcome {
            AppendOutcome::Accepted { match_index } => {
                // More than was ever sent would be a lie; believing it could commit what nobody has.
                let match_index = match_index.min(self.log.last().index);
                if progress.accepted(match_index) {
                    self.advance_commit();
                }
            }
            AppendOutcome::Rejected { prev_log_index, hint_index, hint_term, lost_entries } => {
                let is_current = progress.rejection_is_current(prev_log_index);
                let hint_index = hint_index.min(prev_log_index.saturating_sub(1));
                let matching_index = if hint_index < self.log.before().index {
                    hint_index
                } else {
                    self.log.last_possible_match(hint_index, hint_term).index
                };
                if lost_entries && !matches!(progress.pace, Pace::Snapshot(_)) {
                    progress.lost_entries(matching_index + 1);
                } else if is_current {
                    progress.rejected(matching_index + 1);
                }
            }
        }
        self.confirm_read_round();
    }

    /// The connection to this peer is gone, or a message to it was dropped. It is sent only heartbeats
    /// until it answers one, or is connected.
    pub fn peer_unreachable(&mut self, peer: NodeId) {
        if let Role::Leader(leadership) = &mut self.role
            && let Some(progress) = leadership.progress.get_mut(&peer)
        {
            progress.lost_contact();
            self.ask_all();
        }
    }

    /// The connection to this peer is there: what it is owed need not wait for the next heartbeat.
    pub fn peer_connected(&mut self, peer: NodeId) {
        if let Role::Leader(leadership) = &mut self.role
            && let Some(progress) = leadership.progress.get_mut(&peer)
        {
            progress.found_contact();
        }
    }

    /// Section 5.4.2: "only log entries from the leader's current term are committed by counting
    /// replicas"; older ones are committed with them. This node's own disk is one more replica.
    pub(super) fn advance_commit(&mut self) {
        let Role::Leader(leadership) = &self.role else { return };
        let durable_index = |id: NodeId| match leadership.progress.get(&id) {
            Some(progress) => progress.match_index,
            None => self.log.durable_index(),
        };
        let indexes: Vec<Index> = self.membership().voters().map(durable_index).collect();
        let index = majority_index(indexes);
        if index > self.commit_index && self.log.term_at(index) == Some(self.hard_state.term) {
            self.commit_to(index);
        }
    }

    fn commit_to(&mut self, index: Index) {
        if index <= self.commit_index {
            return;
        }
        assert!(index <= self.log.last().index, "what is committed is in the log");
        if let Role::Leader(leadership) = &mut self.role {
            let term: Term = self.hard_state.term;
            let committed = self.log.iter_from(self.commit_index + 1);
            let bytes: usize = committed
                .take_while(|entry| entry.index <= index)
                .filter(|entry| entry.term == term && entry.index > leadership.first_index)
                .map(Entry::cost_bytes)
                .sum();
            leadership.uncommitted_bytes -= bytes;
        }
        self.commit_index = index;
        self.membership_committed();
    }
}
