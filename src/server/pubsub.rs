//! Publish and subscribe, as far as Sentinel's clients need it: a node tells those that have subscribed
//! when another member leads, in Redis Sentinel's words. Nothing else is ever published.

use super::Server;
use super::sentinel::Place;
use super::talk::{Step, Talk};
use super::texts::TextTalk;
use crate::kv::glob;
use crate::net::ConnId;
use crate::ordered::Few;
use crate::protocol::resp::{self, Version};
use crate::protocol::text::Subscribe;
use crate::raft::{Index, NodeId, quorum};
use crate::wal::Disk;
use std::collections::BTreeSet;
use std::time::Instant;

/// The most channels and patterns of one connection. Sentinel has a dozen channels.
const SUBSCRIPTIONS_MAX: usize = 64;

/// What a name takes besides its bytes.
const NAME_BYTES: usize = 64;

/// What a connection wants to be told of.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: BTreeSet<Vec<u8>>,
    patterns: BTreeSet<Vec<u8>>,
}

/// What those that listen know of the leader.
#[derive(Debug, Default)]
pub struct Herald {
    listeners: BTreeSet<ConnId>,
    /// Who leads, or led last.
    master: Option<Place>,
    is_down: bool,
    /// The leader and the members that were looked at last.
    seen: Option<(Option<NodeId>, Index)>,
}

/// A message is `before`, the name of the master, and `after`.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    channel: &'static str,
    before: &'static str,
    after: String,
}

impl Herald {
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    pub fn forget(&mut self, conn: ConnId) {
        self.listeners.remove(&conn);
    }

    /// Takes over who leads, and returns what is to be told of it. `quorum`: how many have to agree.
    fn look(&mut self, leader: Option<Place>, quorum: usize) -> Vec<Event> {
        let was_down = std::mem::replace(&mut self.is_down, leader.is_none());
        let Some(old) = &self.master else {
            self.master = leader;
            return Vec::new();
        };
        let event = |channel, after| Event { channel, before: "master ", after };
        match leader {
            None if was_down => Vec::new(),
            None => vec![
                event("+sdown", old.to_string()),
                event("+odown", format!("{old} #quorum {quorum}/{quorum}")),
            ],
            Some(new) if *old != new => {
                let after = format!("{old} {new}");
                self.master = Some(new);
                vec![Event { channel: "+switch-master", before: "", after }]
            }
            Some(_) if was_down => {
                vec![event("-sdown", old.to_string()), event("-odown", old.to_string())]
            }
            Some(_) => Vec::new(),
        }
    }
}

impl Subscriptions {
    pub fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they take.
    pub fn kept_bytes(&self) -> usize {
        let names = self.channels.iter().chain(&self.patterns);
        names.map(|name| NAME_BYTES + name.capacity()).sum()
    }

    /// Carries out a command, and writes a reply for each name.
    fn change(&mut self, command: Subscribe, out: &mut Vec<u8>, version: Version) {
        let verb = command.verb();
        let Subscribe { by_pattern, wanted, mut names } = command;
        let all = if by_pattern { &self.patterns } else { &self.channels };
        let lets_go_of_all = !wanted && names.is_empty();
        if lets_go_of_all {
            names = all.iter().cloned().collect();
        }
        let new = names.iter().filter(|name| !all.contains(*name));
        let new: Few<_, _> = new.map(|name| (name, ())).collect();
        if wanted && self.len() + new.len() > SUBSCRIPTIONS_MAX {
            let error = format!(
                "ERR a connection has up to {SUBSCRIPTIONS_MAX} channels and patterns; nothing was done"
            );
            return resp::put_error(out, &error);
        }
        let put = |out: &mut Vec<u8>, name: Option<&[u8]>, count: usize| {
            resp::put_push(out, version, 3);
            resp::put_bulk(out, verb.as_bytes());
            match name {
                Some(name) => resp::put_bulk(out, name),
                None => resp::put_null(out, version),
            }
            resp::put_integer(out, count as i64);
        };
        if lets_go_of_all && names.is_empty() {
            put(out, None, self.len());
        }
        for name in names {
            let all = if by_pattern { &mut self.patterns } else { &mut self.channels };
            match wanted {
                true => all.insert(name.clone()),
                false => all.remove(&name),
            };
            put(out, Some(&name), self.len());
        }
    }

    /// Writes the message once for the channel and once for each pattern that fits, as Redis does.
    fn put_message(&self, out: &mut Vec<u8>, version: Version, channel: &str, message: &str) {
        if self.channels.contains(channel.as_bytes()) {
            resp::put_push(out, version, 3);
            [b"message", channel.as_bytes(), message.as_bytes()]
                .iter()
                .for_each(|part: &&[u8]| resp::put_bulk(out, part));
        }
        let fits = |pattern: &&Vec<u8>| glob::matches(pattern, channel.as_bytes());
        for pattern in self.patterns.iter().filter(fits) {
            resp::put_push(out, version, 4);
            [b"pmessage", pattern.as_slice(), channel.as_bytes(), message.as_bytes()]
                .iter()
                .for_each(|part| resp::put_bulk(out, part));
        }
    }
}

impl<D: Disk> Server<D> {
    pub(super) fn subscribe(
        &mut self,
        conn: ConnId,
        talk: &mut TextTalk,
        command: Subscribe,
    ) -> Step {
        let bytes = command.names.iter().map(|name| NAME_BYTES + name.len()).sum();
        if command.wanted
            && let Err(failure) = self.may_keep(bytes)
        {
            return self.say_failed(conn, talk, failure);
        }
        let mut reply = Vec::new();
        talk.subscriptions.change(command, &mut reply, talk.client.version);
        match talk.subscriptions.is_empty() {
            true => self.herald.forget(conn),
            false => drop(self.herald.listeners.insert(conn)),
        }
        self.say(conn, talk, |out, _| out.extend_from_slice(&reply))
    }

    /// Tells of a change of leadership, once a turn.
    pub(super) fn publish(&mut self, now: Instant) {
        let raft = self.replica.node().raft();
        let seen = Some((raft.leader(), raft.membership_index()));
        if std::mem::replace(&mut self.herald.seen, seen) == seen {
            return;
        }
        let leader = self.leader_place();
        let voters = self.replica.node().raft().membership().voter_count();
        let events = self.herald.look(leader, quorum::majority(voters));
        let listeners: Vec<ConnId> = match events.is_empty() {
            true => Vec::new(),
            false => self.herald.listeners.iter().copied().collect(),
        };
        for conn in listeners {
            let names = self.master_names();
            let Some(Talk::Text(talk)) = self.talks.get_mut(&conn) else { continue };
            let mut messages = Vec::new();
            for Event { channel, before, after } in &events {
                for name in &names {
                    let message = format!("{before}{name} {after}");
                    let version = talk.client.version;
                    talk.subscriptions.put_message(&mut messages, version, channel, &message);
                }
            }
            if messages.is_empty() {
                continue;
            }
            // In its turn: the reply to the subscription comes first.
            talk.answer_at_once(messages);
            if let Some(outbox) = self.links.net.outbox(conn) {
                talk.write_ready(outbox);
            }
            if self.links.net.outbox_len(conn) > self.config.client_outbox_bytes_max {
                self.close(conn, "it does not read what it has subscribed to", now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u16) -> Place {
        Place { host: format!("raft-{number}"), port: 6000 + number }
    }

    fn told(herald: &mut Herald, leader: Option<u16>) -> Vec<String> {
        let events = herald.look(leader.map(place), 2);
        events.iter().map(|it| format!("{} {}NAME {}", it.channel, it.before, it.after)).collect()
    }

    #[test]
    fn a_change_of_leadership_is_told_once_in_sentinels_words() {
        let mut herald = Herald::default();
        assert!(told(&mut herald, None).is_empty() && told(&mut herald, Some(0)).is_empty());
        assert!(told(&mut herald, Some(0)).is_empty());
        let switched = ["+switch-master NAME raft-0 6000 raft-1 6001"];
        assert_eq!(told(&mut herald, Some(1)), switched);
        assert_eq!(
            told(&mut herald, None),
            ["+sdown master NAME raft-1 6001", "+odown master NAME raft-1 6001 #quorum 2/2"]
        );
        assert!(told(&mut herald, None).is_empty());
        assert_eq!(
            told(&mut herald, Some(1)),
            ["-sdown master NAME raft-1 6001", "-odown master NAME raft-1 6001"]
        );
        told(&mut herald, None);
        assert_eq!(told(&mut herald, Some(2)), ["+switch-master NAME raft-1 6001 raft-2 6002"]);
        assert!(told(&mut herald, Some(2)).is_empty());
    }

    #[test]
    fn subscriptions_are_bounded_and_one_too_many_changes_nothing() {
        let mut subscriptions = Subscriptions::default();
        let mut change = |names: std::ops::Range<usize>, wanted| {
            let names = names.map(|name| name.to_string().into_bytes()).collect();
            let mut out = Vec::new();
            let command = Subscribe { by_pattern: false, wanted, names };
            subscriptions.change(command, &mut out, Version::Resp2);
            (String::from_utf8(out).expect("text"), subscriptions.len())
        };
        assert_eq!(change(0..SUBSCRIPTIONS_MAX, true).1, SUBSCRIPTIONS_MAX);
        let (reply, count) = change(1..SUBSCRIPTIONS_MAX + 1, true);
        assert!(reply.starts_with("-ERR a connection has up to 64"), "{reply}");
        assert_eq!(count, SUBSCRIPTIONS_MAX);
        // Names that are there already take no place.
        assert!(change(0..2, true).0.starts_with("*3\r\n$9\r\nsubscribe\r\n$1\r\n0\r\n:64\r\n"));
        assert_eq!(change(0..0, false).1, 0);
        assert_eq!(change(0..0, false).0, "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    }
}
