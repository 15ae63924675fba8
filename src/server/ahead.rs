//! What clients are about to read, as far as it can be told from what they have sent: looked for all at the same
//! time, where one after the other would wait for memory each time. Nothing but time depends on it.

use super::Server;
use crate::kv::LOOK_AHEAD_KEYS;
use crate::net::NetEvent;
use crate::protocol::resp::keys_to_get;
use crate::wal::Disk;

/// Keys of all clients together: their values must still be in the cache when the first of them is told.
const LOOK_AHEAD_PER_TURN: usize = 16 * LOOK_AHEAD_KEYS;

impl<D: Disk> Server<D> {
    /// Before these events are handled. Only a leader reads for its clients.
    pub(super) fn look_ahead(&self, events: &[NetEvent]) {
        let node = self.replica.node();
        if !node.raft().is_leader() {
            return;
        }
        let inboxes = events.iter().filter_map(|event| match event {
            NetEvent::Readable(conn) => self.links.net.inbox(*conn),
            _ => None,
        });
        let keys = &mut inboxes.flat_map(keys_to_get).take(LOOK_AHEAD_PER_TURN);
        while node.machine().look_ahead(keys) == LOOK_AHEAD_KEYS {}
    }
}
