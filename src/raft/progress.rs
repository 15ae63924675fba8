//! One follower as its leader sees it.

use super::log::Position;
use super::{Config, Entry, Index, Round};
use std::collections::VecDeque;

/// How entries are sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Pace {
    /// Where the follower's log matches is not known: one message with entries at a time, until one is
    /// accepted. `awaiting` holds back the next until a reply, to it or to a heartbeat, says more.
    Probe { awaiting: bool },
    /// The log matches; messages are pipelined, each assumed to succeed. The window holds, per message
    /// in flight, its last index and its size in bytes.
    Replicate { window: VecDeque<(Index, usize)>, window_bytes: usize },
    /// The log begins after what the follower needs: it is sent a snapshot.
    Snapshot(Transfer),
}

/// A snapshot on its way to a follower.
#[derive(Debug, PartialEq, Eq)]
pub struct Transfer {
    pub position: Position,
    /// Bytes the follower is known to have.
    pub offset: u64,
    /// A chunk is under way.
    pub awaiting: bool,
    /// Heartbeats since the follower last answered a chunk.
    silent_heartbeats: u32,
}

/// A chunk that was not answered for this many heartbeats is sent again.
const RESEND_HEARTBEATS: u32 = 4;
/// A follower that has answered no chunk for this many heartbeats does not hold up the next snapshot.
const ALIVE_HEARTBEATS: u32 = 200;

impl Transfer {
    /// Nothing is known of it yet, so nothing is held up for it.
    pub fn new(position: Position) -> Self {
        let silent_heartbeats = ALIVE_HEARTBEATS;
        Transfer { position, offset: 0, awaiting: false, silent_heartbeats }
    }

    pub fn is_alive(&self) -> bool {
        self.silent_heartbeats < ALIVE_HEARTBEATS
    }

    pub fn progressed(&mut self, offset: u64) {
        self.offset = offset;
        self.awaiting = false;
        self.silent_heartbeats = 0;
    }

    fn heartbeat(&mut self) {
        self.silent_heartbeats = self.silent_heartbeats.saturating_add(1);
        if self.silent_heartbeats.is_multiple_of(RESEND_HEARTBEATS) {
            self.awaiting = false;
        }
    }
}

#[derive(Debug)]
pub struct Progress {
    /// Figure 2: "index of the next log entry to send". Always above `match_index`.
    pub next_index: Index,
    /// Figure 2: "index of highest log entry known to be replicated".
    pub match_index: Index,
    pub pace: Pace,
    /// Answered since the last quorum check.
    pub is_active: bool,
    /// Since it last answered, or since this leader began to send to it.
    pub silent_ticks: u32,
    /// It has answered this leader.
    pub has_answered: bool,
    /// The newest read round it has answered.
    pub round: Round,
    /// The newest commit index that it was sent.
    pub told_commit: Index,
    /// A message is owed at the next turn whatever else happens: a heartbeat or a read round.
    pub owes_message: bool,
}

impl Progress {
    pub fn new(next_index: Index) -> Self {
        Progress {
            next_index,
            match_index: 0,
            pace: Pace::Probe { awaiting: false },
            is_active: false,
            silent_ticks: 0,
            has_answered: false,
            round: 0,
            told_commit: 0,
            owes_message: true,
        }
    }

    pub fn was_heard(&mut self) {
        self.is_active = true;
        self.silent_ticks = 0;
        self.has_answered = true;
    }

    /// Whether the follower takes what it is sent, and has answered since the heartbeat before the last.
    pub fn keeps_up(&self, config: &Config) -> bool {
        matches!(self.pace, Pace::Replicate { .. })
            && self.silent_ticks <= 2 * config.heartbeat_ticks
    }

    /// Whether the follower lacks entries of a log that ends at `last_index`, and may be sent some now.
    pub fn may_send_entries(&self, last_index: Index, config: &Config) -> bool {
        let (messages_max, bytes_max) = (config.inflight_messages_max, config.inflight_bytes_max);
        if self.next_index > last_index {
            return false;
        }
        match &self.pace {
            Pace::Probe { awaiting } => !awaiting,
            Pace::Replicate { window, window_bytes } => {
                window.len() < messages_max && *window_bytes < bytes_max
            }
            Pace::Snapshot(_) => false,
        }
    }

    /// These left in one message, if there are any.
    pub fn sent_all(&mut self, entries: &[Entry]) {
        if let Some(last) = entries.last() {
            self.sent(last.index, entries.iter().map(Entry::cost_bytes).sum());
        }
    }

    /// Entries up to `last` left in one message of `bytes`.
    fn sent(&mut self, last: Index, bytes: usize) {
        match &mut self.pace {
            Pace::Probe { awaiting } => *awaiting = true,
            Pace::Replicate { window, window_bytes } => {
                window.push_back((last, bytes));
                *window_bytes += bytes;
                self.next_index = last + 1;
            }
            Pace::Snapshot(_) => unreachable!("no entries are sent beside a snapshot"),
        }
    }

    /// The follower's disk holds the leader's log up to `match_index`. Returns whether that is news.
    pub fn accepted(&mut self, match_index: Index) -> bool {
        let advanced = match_index > self.match_index;
        self.match_index = self.match_index.max(match_index);
        self.next_index = self.next_index.max(match_index + 1);
        match &mut self.pace {
            Pace::Probe { .. } | Pace::Snapshot(_) => {
                self.next_index = self.match_index + 1;
                self.pace = Pace::Replicate { window: VecDeque::new(), window_bytes: 0 };
            }
            Pace::Replicate { window, window_bytes } => {
                while window.front().is_some_and(|(last, _)| *last <= match_index) {
                    let (_, bytes) = window.pop_front().expect("the window has a front");
                    *window_bytes -= bytes;
                }
            }
        }
        advanced
    }

    /// Whether a rejection of a message that followed `prev_log_index` still says something: late ones
    /// are told by an index that was matched, or is not being asked about any more.
    pub fn rejection_is_current(&self, prev_log_index: Index) -> bool {
        match self.pace {
            Pace::Probe { .. } => prev_log_index == self.next_index - 1,
            Pace::Replicate { .. } => prev_log_index > self.match_index,
            Pace::Snapshot(_) => false,
        }
    }

    /// Starts again from where the logs can still agree.
    pub fn rejected(&mut self, next_index: Index) {
        self.next_index = next_index.max(self.match_index + 1);
        self.pace = Pace::Probe { awaiting: false };
    }

    /// What was in flight may be lost, and what is sent now may be too. Heartbeats ask on.
    pub fn lost_contact(&mut self) {
        if let Pace::Snapshot(transfer) = &mut self.pace {
            transfer.awaiting = true;
            return;
        }
        // A probe goes on from where it was: nothing before it was assumed to have arrived.
        if let Pace::Replicate { .. } = self.pace {
            self.next_index = self.match_index + 1;
        }
        self.pace = Pace::Probe { awaiting: true };
    }

    /// The follower can be reached: it is asked at once, with entries if it lacks some.
    pub fn found_contact(&mut self) {
        self.lost_contact();
        match &mut self.pace {
            Pace::Snapshot(transfer) => transfer.awaiting = false,
            pace => *pace = Pace::Probe { awaiting: false },
        }
        self.owes_message = true;
    }

    /// Whether the next piece of a snapshot is to be sent.
    pub fn owes_chunk(&self) -> bool {
        matches!(&self.pace, Pace::Snapshot(transfer) if !transfer.awaiting)
    }

    /// A heartbeat is due.
    pub fn heartbeat(&mut self) {
        self.owes_message = true;
        if let Pace::Snapshot(transfer) = &mut self.pace {
            transfer.heartbeat();
        }
    }

    /// The follower has lost what it had acknowledged, and says from where on it needs the log.
    pub fn lost_entries(&mut self, next_index: Index) {
        self.match_index = self.match_index.min(next_index - 1);
        self.rejected(next_index);
    }

    /// What the follower needs is not in the log any more.
    pub fn needs_snapshot(&mut self, position: Position) {
        if !matches!(self.pace, Pace::Snapshot(_)) {
            self.pace = Pace::Snapshot(Transfer::new(position));
        }
    }
}
