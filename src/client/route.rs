//! Which server to ask next. Pure: the caller says what came of each attempt, and when.
//!
//! Asking goes in *rounds*. A round asks the leader as last known, follows the hints of servers that are
//! not the leader, and then goes round all others; nobody is asked twice. A round without an answer is
//! over, and the caller pauses before the next one.
//!
//! A server that lets its caller wait is worse than one that refuses: a paused machine would cost every
//! round a whole timeout while the others elect a new leader. So it *cools* for a while, during which it
//! is asked only if there is nobody else.

use super::ServerReason;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Attempts of one round beyond one for each server of the list: hints may name servers outside it, and a
/// wrong one could go on naming new addresses for ever.
const HINTS_PER_ROUND_MAX: usize = 4;

/// How long a server that did not answer in time is left alone.
const COOLING: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Route {
    servers: Vec<String>,
    /// Where the next walk through `servers` begins.
    next: usize,
    /// The leader, as the last answer or hint named it.
    leader: Option<String>,
    /// Asked in this round.
    asked: Vec<String>,
    cooling: BTreeMap<String, Instant>,
    /// Why each server asked since the last success did not do it.
    reasons: BTreeMap<String, String>,
}

impl Route {
    pub fn new(servers: Vec<String>) -> Self {
        Route {
            servers,
            next: 0,
            leader: None,
            asked: Vec::new(),
            cooling: BTreeMap::new(),
            reasons: BTreeMap::new(),
        }
    }

    /// The next server of this round, or `None` at its end (the next call begins another).
    pub fn next(&mut self, now: Instant) -> Option<String> {
        self.cooling.retain(|_, until| *until > now);
        if self.asked.is_empty() {
            // What hints of earlier rounds named would pile up for as long as there is no leader.
            self.reasons.retain(|server, _| self.servers.contains(server));
        }
        let choice = self.choose();
        match &choice {
            Some(server) => self.asked.push(server.clone()),
            None => self.asked.clear(),
        }
        choice
    }

    fn choose(&mut self) -> Option<String> {
        if let Some(leader) = &self.leader
            && self.asked.len() < self.servers.len() + HINTS_PER_ROUND_MAX
            && !self.asked.contains(leader)
            && !self.cooling.contains_key(leader)
        {
            return Some(leader.clone());
        }
        for step in 0..self.servers.len() {
            let at = (self.next + step) % self.servers.len();
            let server = &self.servers[at];
            if !self.asked.contains(server) && !self.cooling.contains_key(server) {
                self.next = (at + 1) % self.servers.len();
                return Some(server.clone());
            }
        }
        if self.asked.is_empty() { self.first_to_cool() } else { None }
    }

    /// When everybody cools: the one that has cooled longest.
    fn first_to_cool(&self) -> Option<String> {
        let listed = self.servers.iter().filter_map(|server| self.cooling.get_key_value(server));
        listed.min_by_key(|(_, until)| **until).map(|(server, _)| server.clone())
    }

    /// The leader, as the last answer or hint named it.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// `server` answered the request.
    pub fn succeeded(&mut self, server: &str) {
        self.leader = Some(server.to_owned());
        self.asked.clear();
        self.cooling.remove(server);
        self.reasons.clear();
    }

    /// `server` is alive, but the leader is elsewhere (`hint`, if it knows).
    pub fn redirected(&mut self, server: &str, hint: Option<String>, reason: String) {
        self.reasons.insert(server.to_owned(), reason);
        if hint.is_some() || self.leader.as_deref() == Some(server) {
            self.leader = hint;
        }
    }

    /// `server` could not be reached, or its answer made no sense.
    pub fn failed(&mut self, server: &str, reason: String) {
        self.redirected(server, None, reason);
    }

    /// `server` did not answer in time.
    pub fn timed_out(&mut self, server: &str, reason: String, now: Instant) {
        self.cooling.insert(server.to_owned(), now + COOLING);
        self.redirected(server, None, reason);
    }

    /// Begins a new round, whatever was asked already.
    pub fn begin_round(&mut self) {
        self.asked.clear();
    }

    /// In the order of the list, then those outside it that hints named.
    pub fn reasons(&self) -> Vec<ServerReason> {
        let listed = self.servers.iter().filter_map(|server| self.reasons.get_key_value(server));
        let others = self.reasons.iter().filter(|(server, _)| !self.servers.contains(server));
        listed
            .chain(others)
            .map(|(server, reason)| ServerReason { server: server.clone(), reason: reason.clone() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Route {
        Route::new(["a:1", "b:1", "c:1"].map(str::to_owned).to_vec())
    }

    fn round(route: &mut Route, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| route.next(now)).collect()
    }

    #[test]
    fn a_round_asks_everybody_once_and_ends() {
        let (mut route, now) = (route(), Instant::now());
        assert_eq!(round(&mut route, now), ["a:1", "b:1", "c:1"]);
        assert_eq!(round(&mut route, now), ["a:1", "b:1", "c:1"]);
    }

    #[test]
    fn the_last_leader_is_asked_first() {
        let (mut route, now) = (route(), Instant::now());
        route.succeeded("c:1");
        assert_eq!(round(&mut route, now), ["c:1", "a:1", "b:1"]);
    }

    #[test]
    fn a_hint_is_followed_even_outside_the_list() {
        let (mut route, now) = (route(), Instant::now());
        assert_eq!(route.next(now).unwrap(), "a:1");
        route.redirected("a:1", Some("elsewhere:9".into()), "not the leader".into());
        assert_eq!(route.next(now).unwrap(), "elsewhere:9");
        route.failed("elsewhere:9", "connection refused".into());
        assert_eq!(route.next(now).unwrap(), "b:1");
    }

    #[test]
    fn hints_in_a_circle_end() {
        let (mut route, now) = (route(), Instant::now());
        assert_eq!(route.next(now).unwrap(), "a:1");
        route.redirected("a:1", Some("b:1".into()), String::new());
        assert_eq!(route.next(now).unwrap(), "b:1");
        route.redirected("b:1", Some("a:1".into()), String::new());
        assert_eq!(route.next(now).unwrap(), "c:1");
        assert_eq!(route.next(now), None);
    }

    #[test]
    fn hints_that_never_repeat_end() {
        let (mut route, now) = (route(), Instant::now());
        let mut attempts = 0;
        while let Some(server) = route.next(now) {
            attempts += 1;
            route.redirected(&server, Some(format!("new:{attempts}")), String::new());
        }
        assert!((3..=3 + HINTS_PER_ROUND_MAX + 3).contains(&attempts), "{attempts}");
        assert!(route.reasons().len() <= attempts);
        route.next(now);
        assert_eq!(route.reasons().len(), 3, "only those of the list outlive the round");
    }

    #[test]
    fn a_silent_server_cools_while_others_are_asked() {
        let (mut route, now) = (route(), Instant::now());
        route.succeeded("a:1");
        assert_eq!(route.next(now).unwrap(), "a:1");
        route.timed_out("a:1", "no answer".into(), now);
        assert_eq!(route.next(now).unwrap(), "b:1");
        // The others may still name the silent one as their leader.
        route.redirected("b:1", Some("a:1".into()), "not the leader".into());
        assert_eq!(route.next(now).unwrap(), "c:1");
        assert_eq!(route.next(now), None);
        assert_eq!(round(&mut route, now).len(), 2);
        assert_eq!(round(&mut route, now + COOLING).len(), 3);
    }

    #[test]
    fn silence_everywhere_does_not_stop_the_asking() {
        let (mut route, now) = (route(), Instant::now());
        for (age, server) in ["b:1", "a:1", "c:1"].into_iter().enumerate() {
            let when = now + Duration::from_millis(age as u64);
            route.timed_out(server, "no answer".into(), when);
        }
        assert_eq!(round(&mut route, now), ["b:1"]);
    }

    #[test]
    fn reasons_come_in_the_order_of_the_list() {
        let mut route = route();
        route.failed("x:9", "unknown host".into());
        route.failed("c:1", "connection refused".into());
        route.failed("a:1", "no leader known".into());
        let text: Vec<_> = route.reasons().iter().map(ToString::to_string).collect();
        assert_eq!(text, ["a:1: no leader known", "c:1: connection refused", "x:9: unknown host"]);
        route.succeeded("b:1");
        assert!(route.reasons().is_empty());
    }
}
