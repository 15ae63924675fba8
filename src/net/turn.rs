//! What happens inside [`Net::wait`]: timers, socket events, reading, and the ends of connections.

use super::buffer::Flushed;
use super::connection::{Connection, End, Limits, Phase};
use super::dialer::{DialStep, seconds};
use super::{CLOSED_BY_OTHER_SIDE, ConnId, DNS_TOKEN, LISTENER_TOKEN, Net, NetEvent, SIGNAL_TOKEN};
use mio::event::Event;
use mio::net::TcpStream;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

/// Bytes read from one connection in one turn, so that a loud one does not keep the others waiting.
const READ_PER_TURN: usize = 256 * 1024;
/// ... and from all clients together. More than that is not carried out in a turn, and in an inbox it would only
/// cost memory; what waits in the sockets makes their senders wait. Peers are always read from.
const CLIENTS_READ_PER_TURN: usize = 4 * 1024 * 1024;
/// Timers of connections are looked at no more often than this part of the silent timeout.
const SWEEPS_PER_TIMEOUT: u32 = 16;

impl Net {
    /// Waits until something happens, at most until `deadline`, and puts what has happened into `events` in
    /// place of what was there. May return early with nothing to tell. `now`: the time of the call.
    ///
    /// The kernel counts in milliseconds: it wakes up less than one after the deadline, never before it, so
    /// that a caller who waits for a tick need not spin.
    pub fn wait(
        &mut self,
        deadline: Instant,
        now: Instant,
        events: &mut Vec<NetEvent>,
    ) -> io::Result<()> {
        events.clear();
        let busy = now.saturating_duration_since(self.woke);
        self.now = now;
        self.free_slots();
        self.run_timers();
        self.admit();
        let timeout = self.next_deadline(deadline).saturating_duration_since(now);
        match self.poll.poll(&mut self.ready, Some(timeout)) {
            Ok(()) => self.on_events(),
            // A signal: its byte is in the pipe for the next time.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.woke = Instant::now();
        self.acceptor.earn(busy, self.woke.saturating_duration_since(now));
        self.accept();
        self.read();
        events.append(&mut self.queued);
        Ok(())
    }

    /// Slots of connections that were closed before this turn get new owners from now on.
    fn free_slots(&mut self) {
        for slot in self.closed.drain(..) {
            self.connections.remove(slot);
        }
    }

    fn next_deadline(&self, deadline: Instant) -> Instant {
        let busy = !self.queued.is_empty() || !self.readable.is_empty() || self.acceptor.has_work();
        if busy {
            return self.now;
        }
        let accepting = self.acceptor.deadline(self.now);
        let timers = [self.sweep_at, accepting, self.dialer.deadline(self.now)];
        timers.into_iter().flatten().fold(deadline, Instant::min)
    }

    fn run_timers(&mut self) {
        self.acceptor.on_time(self.now);
        self.sweep();
        let mut steps = Vec::new();
        loop {
            self.dialer.poll(self.poll.registry(), self.now, &mut steps);
            if steps.is_empty() {
                break;
            }
            steps.drain(..).for_each(|step| self.on_dial_step(step));
        }
    }

    fn on_events(&mut self) {
        let ready = std::mem::replace(&mut self.ready, mio::Events::with_capacity(0));
        ready.iter().for_each(|event| self.on_event(event));
        self.ready = ready;
    }

    fn on_event(&mut self, event: &Event) {
        match event.token() {
            LISTENER_TOKEN => self.acceptor.ready = true,
            SIGNAL_TOKEN => self.queued.extend(self.signals.pending().map(NetEvent::Signal)),
            // The dialer tries its sockets with every turn.
            DNS_TOKEN => {}
            token => self.on_connection_event(ConnId::from_token(token), event),
        }
    }

    fn on_connection_event(&mut self, conn: ConnId, event: &Event) {
        let Some(connection) = self.get(conn) else { return };
        if connection.phase == Phase::Connecting {
            return self.finish_connecting(conn);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.may_read = true;
            connection.may_end |= event.is_read_closed() || event.is_error();
            if event.is_error() && !connection.wants_reading() {
                // Nobody reads at present, so reading cannot find out.
                if let Some(error) = connection.pending_error() {
                    return self.fail(conn, &error);
                }
            }
            self.list_readable(conn);
        }
        if event.is_writable() {
            self.flush(conn);
        }
    }

    // Accepting and dialing.

    /// What has been said already is read at once, before anybody is asked to watch the socket: one that was
    /// reset in the queue is closed without further ado.
    fn accept(&mut self) {
        while let Some((stream, remote)) = self.acceptor.accept(self.inbound, self.now) {
            let conn = self.insert(stream, remote, Phase::Open);
            self.inbound += 1;
            let deadline = self.now + self.config.silent_timeout;
            self.sweep_no_later_than(deadline);
            let connection = &mut self.connections[conn.slot as usize];
            connection.deadline = Some(deadline);
            connection.may_read = true;
            self.list_readable(conn);
        }
    }

    fn on_dial_step(&mut self, step: DialStep) {
        match step {
            DialStep::Connect { peer, to } => match self.connect(peer, to) {
                Ok(conn) => self.dialer.connecting(peer, conn),
                Err(error) => self.dialer.connect_failed(peer, &error),
            },
            DialStep::Abandon { conn } => self.discard(conn),
            DialStep::Failed { peer, refused, reason } => {
                self.queued.push(NetEvent::DialFailed { peer, refused, reason });
            }
        }
    }

    fn connect(&mut self, peer: u64, to: SocketAddr) -> io::Result<ConnId> {
        let stream = TcpStream::connect(to)?;
        let conn = self.insert(stream, to, Phase::Connecting);
        let connection = &mut self.connections[conn.slot as usize];
        connection.be_peer(peer, self.config.peer_limits());
        let registered = connection.update_interest(self.poll.registry());
        registered.inspect_err(|_| self.discard(conn))?;
        Ok(conn)
    }

    fn finish_connecting(&mut self, conn: ConnId) {
        let user_timeout = self.config.user_timeout;
        let deadline = self.now + self.config.silent_timeout;
        let Some(connection) = self.get(conn) else { return };
        let Some(peer) = connection.peer else { return };
        let connected = match connection.connected() {
            None => return,
            Some(result) => result.and_then(|()| connection.set_peer_options(user_timeout)),
        };
        if let Err(error) = connected {
            self.discard(conn);
            return self.dialer.connect_failed(peer, &error);
        }
        connection.phase = Phase::Open;
        connection.deadline = Some(deadline);
        // The event may have told of bytes as well.
        connection.may_read = true;
        if !self.dialer.connected(peer, conn) {
            return self.discard(conn);
        }
        self.sweep_no_later_than(deadline);
        self.queued.push(NetEvent::Dialed { conn, peer });
        self.list_readable(conn);
        self.update_interest(conn);
    }

    // Reading and writing.

    fn read(&mut self) {
        let spare = std::mem::take(&mut self.reading);
        let mut reading = std::mem::replace(&mut self.readable, spare);
        let (mut left, mut left_out_from) = (CLIENTS_READ_PER_TURN, None);
        for conn in reading.drain(..) {
            let Some(connection) = self.connections.get_mut(conn.slot as usize) else { continue };
            if connection.id != conn || connection.is_closed() {
                continue;
            }
            let is_client = connection.peer.is_none();
            if is_client && left == 0 {
                left_out_from.get_or_insert(self.readable.len());
                self.readable.push(conn);
                continue;
            }
            connection.listed = false;
            let budget = if is_client { READ_PER_TURN.min(left) } else { READ_PER_TURN };
            let budget = self.intake(conn, budget);
            let Some(connection) = self.connections.get_mut(conn.slot as usize) else { continue };
            let result = connection.read(&mut self.scratch, budget);
            self.received_bytes += result.bytes as u64;
            left -= if is_client { result.bytes } else { 0 };
            let news = result.bytes > 0 || std::mem::take(&mut connection.announce);
            let half_closed = connection.half_closed;
            let is_open = connection.phase == Phase::Open;
            let worth_telling = news && (half_closed || !connection.inbox.bytes().is_empty());
            if is_open && (worth_telling || matches!(result.end, Some(End::HalfClosed))) {
                self.queued.push(NetEvent::Readable(conn));
            }
            self.count_unserved(conn);
            match result.end {
                None => self.list_readable(conn),
                Some(End::Failed(error)) => {
                    self.fail(conn, &error);
                    continue;
                }
                Some(End::HalfClosed) => self.on_half_closed(conn),
            }
            self.update_interest(conn);
        }
        // Those that had nothing of this turn come first in the next.
        self.readable.rotate_left(left_out_from.unwrap_or(0));
        self.reading = reading;
    }

    fn on_half_closed(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        if connection.phase == Phase::Lingering || connection.peer.is_some() {
            // A peer that sends no more is of no use, and nobody waits for anything else.
            self.lose(conn, true, CLOSED_BY_OTHER_SIDE);
        }
    }

    pub(super) fn flush(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        let waiting = connection.outbox.len();
        let flushed = connection.flush();
        let (len, max) = (connection.outbox.len(), connection.outbox_max);
        let is_flushing = connection.phase == Phase::Flushing;
        let (counted, unsent) = (connection.counted_unsent, connection.client_unsent());
        connection.counted_unsent = unsent;
        connection.taken += (waiting - len) as u64;
        let has_drained = (connection.paused || connection.is_awaited) && len < waiting;
        if has_drained && !std::mem::replace(&mut connection.drained, true) {
            self.drained.push(conn);
        }
        self.clients_unsent = self.clients_unsent - counted + unsent;
        self.sent_bytes += (waiting - len) as u64;
        self.count_held(conn);
        match flushed {
            Err(error) => self.fail(conn, &error),
            Ok(_) if len > max.saturating_mul(2) => {
                let reason = format!("{len} bytes wait to be sent, the limit is {max}");
                self.lose(conn, false, &reason);
            }
            Ok(Flushed::Everything) if is_flushing => self.shut(conn),
            Ok(_) => self.update_interest(conn),
        }
    }

    /// Everything is sent on a connection that the caller has let go of.
    fn shut(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        connection.phase = Phase::Lingering;
        if connection.half_closed || connection.shut_our_side().is_err() {
            self.discard(conn);
        } else {
            self.update_interest(conn);
        }
    }

    fn update_interest(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn.slot as usize) else { return };
        if let Err(error) = connection.update_interest(self.poll.registry()) {
            self.lose(conn, false, &format!("cannot be watched: {error}"));
        }
    }

    pub(super) fn list_readable(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        if !connection.listed && (connection.wants_reading() || connection.announce) {
            connection.listed = true;
            self.readable.push(conn);
        }
    }

    pub(super) fn mark_dirty(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        if !std::mem::replace(&mut connection.dirty, true) {
            self.dirty.push(conn);
        }
    }

    // Connections and their ends.

    /// A connection that is not closed.
    pub(super) fn get(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(conn.slot as usize)?;
        (connection.id == conn && !connection.is_closed()).then_some(connection)
    }

    /// A connection that the caller may use.
    pub(super) fn open(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.get(conn).filter(|connection| connection.is_open())
    }

    fn insert(&mut self, stream: TcpStream, remote: SocketAddr, phase: Phase) -> ConnId {
        let entry = self.connections.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("connections are limited to far fewer");
        let id = ConnId { slot, generation: self.next_generation };
        self.next_generation = self.next_generation.wrapping_add(1);
        let (inbox_max, outbox_max) = (self.config.inbox_bytes_max, self.config.outbox_bytes_max);
        let limits = Limits { inbox_max, outbox_max };
        entry.insert(Connection::new(id, stream, remote, phase, limits));
        id
    }

    /// Ends a connection whose socket reports an error.
    fn fail(&mut self, conn: ConnId, error: &io::Error) {
        // A time-out or a lost route is no word of the other side.
        let by_other_side = matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
        );
        self.lose(conn, by_other_side, &error.to_string());
    }

    /// Ends a connection that the caller still counts on, and says so.
    pub(super) fn lose(&mut self, conn: ConnId, by_other_side: bool, reason: &str) {
        let Some(connection) = self.get(conn) else { return };
        let peer = connection.peer;
        let was_open = connection.is_open();
        self.close_socket(conn);
        if was_open {
            let reason = reason.to_string();
            self.queued.push(NetEvent::Closed { conn, peer, by_other_side, reason });
        }
    }

    /// Ends a connection that nobody counts on any more.
    pub(super) fn discard(&mut self, conn: ConnId) {
        self.close_socket(conn);
        if let Some(connection) = self.connections.get_mut(conn.slot as usize)
            && connection.id == conn
        {
            // So that the inbox is gone for the caller, too.
            connection.phase = Phase::Lingering;
        }
    }

    fn close_socket(&mut self, conn: ConnId) {
        let Some(connection) = self.get(conn) else { return };
        connection.close();
        let counted = std::mem::take(&mut connection.counted_unsent);
        let unserved = std::mem::take(&mut connection.counted_unserved);
        let held = std::mem::take(&mut connection.counted_held);
        let kept = std::mem::take(&mut connection.counted_kept);
        let (peer, inbound) = (connection.peer, connection.inbound);
        self.closed.push(conn.slot as usize);
        self.inbound -= usize::from(inbound);
        self.clients_unsent -= counted;
        self.intake.bytes -= unserved;
        self.kept_bytes -= kept;
        *(if peer.is_some() { &mut self.peers_held } else { &mut self.clients_held }) -= held;
        if let Some(peer) = peer {
            self.dialer.closed(peer, conn);
        }
    }

    // Patience.

    pub(super) fn sweep_no_later_than(&mut self, deadline: Instant) {
        self.sweep_at = Some(self.sweep_at.map_or(deadline, |at| at.min(deadline)));
    }

    /// Ends the connections whose deadlines have passed.
    fn sweep(&mut self) {
        if self.sweep_at.is_none_or(|at| at > self.now) {
            return;
        }
        let (mut overdue, mut next) = (Vec::new(), None::<Instant>);
        for (_, connection) in &self.connections {
            match connection.deadline.filter(|_| !connection.is_closed()) {
                Some(deadline) if deadline <= self.now => overdue.push(connection.id),
                Some(deadline) => next = Some(next.map_or(deadline, |next| next.min(deadline))),
                None => {}
            }
        }
        // Deadlines that are close together are dealt with together.
        let soonest = self.now + self.config.silent_timeout / SWEEPS_PER_TIMEOUT;
        self.sweep_at = next.map(|next| next.max(soonest));
        let reason = format!("said nothing for {}", seconds(self.config.silent_timeout));
        overdue.into_iter().for_each(|conn| self.lose(conn, false, &reason));
    }
}
