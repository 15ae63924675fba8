//! Answers that clients do not read, or could not read yet because an earlier one is not known. Each may have some
//! unread, and all together may have so many; the limit of all is for those who do not read at all, since ten
//! thousand of them would take ten thousand times what one may.
//!
//! From half of it on only those are served who have read nearly everything, so that whoever reads is not affected.
//! When that is not enough, those who have most unread are closed.

use super::Server;
use super::memory::Total;
use super::talk::Talk;
use crate::net::ConnId;
use crate::wal::Disk;
use log::warn;
use std::time::{Duration, Instant};

/// Unread bytes with which a client is served when all together have half of what they may have.
const FEW_UNREAD_BYTES: usize = 64 * 1024;
/// When clients are closed, this part of the limit is to be free again, so that it is not done for each answer.
const FREED_PART: usize = 16;
/// The least time between two lines about it in the log.
const TOLD_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Unread {
    /// Clients that were closed.
    pub closed: u64,
    /// Replies to text commands that earlier ones hold back.
    pub held_bytes: Total,
    told: Option<(Instant, u64)>,
}

impl<D: Disk> Server<D> {
    /// Of all clients, as of the last push.
    pub(super) fn unread_bytes(&self) -> usize {
        self.links.net.clients_unsent() + self.unread.held_bytes.get()
    }

    /// ... of each that has such bytes.
    fn unread_by_client(&self) -> Vec<(ConnId, usize)> {
        let held = |conn| match self.talks.get(&conn) {
            Some(Talk::Text(text)) => text.held_bytes(),
            _ => 0,
        };
        let unsent = self.links.net.unsent_by_client();
        let unread = unsent.map(|(conn, unsent)| (conn, unsent + held(conn)));
        unread.filter(|(_, bytes)| *bytes > 0).collect()
    }

    /// What one client may have unread at the moment.
    pub(super) fn unread_bytes_max(&self) -> usize {
        let max = self.config.client_outbox_bytes_max;
        if self.is_unread_scarce() { max.min(FEW_UNREAD_BYTES) } else { max }
    }

    /// Whether all together have so much unread that each may have little.
    pub(super) fn is_unread_scarce(&self) -> bool {
        self.is_memory_short() || self.unread_bytes() >= self.config.unread_bytes_max / 2
    }

    /// Those who have most unread are closed if there is too much in all.
    pub(super) fn close_who_read_least(&mut self, now: Instant) {
        let (unread, max) = (self.unread_bytes(), self.config.unread_bytes_max);
        if unread <= max {
            return;
        }
        let to_free = unread - (max - max / FREED_PART);
        let worst = worst(self.unread_by_client(), to_free);
        for (conn, bytes) in &worst {
            self.close(*conn, &format!("{bytes} bytes of answers are unread"), now);
        }
        self.unread.closed += worst.len() as u64;
        let freed = worst.iter().map(|(_, bytes)| bytes).sum::<usize>();
        let (told_at, told) = self.unread.told.unwrap_or((self.started, 0));
        if self.unread.told.is_none() || now.saturating_duration_since(told_at) >= TOLD_EVERY {
            warn!(
                "{} clients are closed, the last {} of them with {freed} bytes of unread answers: all clients \
                 together had {unread} unread, the limit is {max}",
                self.unread.closed - told,
                worst.len()
            );
            self.unread.told = Some((now, self.unread.closed));
        }
    }
}

/// Those with most, as many as it takes to free so many bytes.
fn worst(mut unread: Vec<(ConnId, usize)>, to_free: usize) -> Vec<(ConnId, usize)> {
    unread.sort_unstable_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut freed = 0;
    let is_needed = |(_, bytes): &(ConnId, usize)| {
        let is_needed = freed < to_free;
        freed += bytes;
        is_needed
    };
    unread.into_iter().take_while(is_needed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_most_unread_are_closed_and_no_more_of_them_than_needed() {
        let unread: Vec<_> = [5, 90, 10, 80, 0, 20]
            .iter()
            .zip(0..)
            .map(|(bytes, slot)| (ConnId::for_test(slot), *bytes))
            .collect();
        let closed = |to_free| {
            worst(unread.clone(), to_free).iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>()
        };
        assert_eq!(closed(90), [90]);
        assert_eq!(closed(91), [90, 80]);
        assert_eq!(closed(0), [0; 0]);
        assert_eq!(closed(1000).len(), unread.len());
    }
}
