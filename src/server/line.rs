//! What the clients of a node get of one turn: each its share, and all together no more than keeps the turn short.
//!
//! A client that has had its share and has said more stands in line, unread, and is the first to be served in a
//! later turn. One turn is what is taken in between two flushes. What a command costs is not known before it is
//! carried out, so it is paid afterwards: its bytes, those of its answer, and what a search has looked at.
//!
//! A long answer to a few bytes costs more than whatever fits into a share. So whoever has lately asked for such ones
//! stands in a line of its own, which gets so many bytes of answers in a turn, and takes nothing from the others.
//!
//! If for some time no turn has reached everybody in line, more is asked than the node can take, and what has
//! waited for as long as that is refused. As long as all are reached, it is only a client's own many requests that
//! keep its last ones waiting, and it is not told no for sending them early.

use crate::net::ConnId;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What is paid for a command of a few bytes with a short answer.
const COMMAND: usize = 8;
/// Of a command or its answer, bytes that cost as much as the command itself.
const BYTES_PER_COMMAND: usize = 256;
/// Of a search, steps that cost as much as a command: a whole turn's worth are some milliseconds.
const STEPS_PER_COMMAND: usize = 4096;
/// An answer that is to come and is no longer is a part of a command's price.
const SHORT_ANSWER_BYTES: usize = 1024;
/// An answer that is longer is paid for by those who ask for such ones.
const LONG_ANSWER_BYTES: usize = 16 * 1024;
/// What those get of a turn; what one answer goes beyond it, the next turns lack.
pub const LONG_ANSWERS_PER_TURN: usize = 512 * 1024;
/// For so long a client that has asked for a long answer counts as one of them.
const LATELY: Duration = Duration::from_secs(1);
/// Of a turn for all, in commands, what the first long answer to a client takes.
const FIRST_LONG_ANSWER: usize = COMMANDS_PER_TURN / 8;
/// What all clients get of a turn, in commands.
pub const COMMANDS_PER_TURN: usize = 4096;
/// What each gets of it, if there are many; fewer share half of the turn's.
pub const SHARE_MIN: usize = 128;
/// Older requests are refused if the node is overloaded: well before those who wait for an answer give up.
pub const LATE: Duration = Duration::from_millis(200);
/// So many are refused in a turn: to say no to a small write costs about half of what it costs to carry it out.
pub const REFUSALS_PER_TURN: usize = 256;

#[derive(Debug, Default)]
pub struct Line {
    waiting: VecDeque<ConnId>,
    /// Those who wait for long answers.
    long_waiting: VecDeque<ConnId>,
    /// How many of the members these are.
    long_members: usize,
    /// When clients have asked for a long answer last.
    long_asked: BTreeMap<ConnId, Instant>,
    /// Bytes that are left of the turn for long answers, or that earlier ones took of it.
    long_left: i64,
    /// All of them, and how long they wait; who has gone meanwhile is not among them.
    members: BTreeMap<ConnId, Unserved>,
    /// The one that was taken out last.
    taken: Option<(ConnId, Unserved)>,
    /// The one that is being served, since when, and whether it gets of what is for long answers.
    serving: Option<(ConnId, Instant)>,
    is_long: bool,
    /// It has to go to the other line first.
    must_stand: bool,
    /// Of the one that is being served.
    unserved: Option<Unserved>,
    is_late: bool,
    is_refused: bool,
    refusals_left: usize,
    /// Since when no turn has reached everybody in line.
    overloaded_since: Option<Instant>,
    /// What is left of the turn for all, and was paid by the one that is being served.
    left: usize,
    paid: usize,
    /// What each may have of this turn.
    share: usize,
    /// How many have been served in this turn.
    served: usize,
}

/// What a client has said and was not served.
#[derive(Debug, Clone, Copy)]
struct Unserved {
    since: Instant,
    /// So many bytes were there at that time; what follows is younger.
    bytes: usize,
    is_long: bool,
}

/// What a command has cost, beside being one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Its own, and of its answer if that is there already.
    pub bytes: usize,
    /// Of its answer, if that is to come.
    pub awaited: usize,
    pub search_steps: usize,
}

impl Line {
    /// The next turn begins.
    pub fn begin_turn(&mut self) {
        let clients = self.len().max(std::mem::take(&mut self.served)).max(1);
        self.left = COMMANDS_PER_TURN * COMMAND;
        self.share = (self.left / 2 / clients).max(SHARE_MIN * COMMAND);
        self.refusals_left = REFUSALS_PER_TURN;
        let long = LONG_ANSWERS_PER_TURN as i64;
        self.long_left = (self.long_left + long).min(long);
    }

    /// Those in line were served as far as the turn went, `unreached` of them not at all.
    pub fn end_turn(&mut self, unreached: usize, now: Instant) {
        self.overloaded_since = match unreached {
            0 => None,
            _ => self.overloaded_since.or(Some(now)),
        };
    }

    /// A client is served.
    pub fn begin(&mut self, conn: ConnId, now: Instant) {
        self.paid = 0;
        let taken = self.taken.take().filter(|(taken, _)| *taken == conn);
        self.unserved = taken.map(|(_, unserved)| unserved);
        self.serving = Some((conn, now));
        self.is_long = self.unserved.is_some_and(|unserved| unserved.is_long);
        self.must_stand = !self.is_long && self.asks_for_long_answers(conn, now);
        self.served += usize::from(!self.is_long && !self.must_stand);
        let is_long_ago = |since: Instant| now.saturating_duration_since(since) >= LATE;
        self.is_late = self.overloaded_since.is_some_and(is_long_ago)
            && self.unserved.is_some_and(|unserved| is_long_ago(unserved.since));
    }

    /// Whether the next request of the one that is served has waited for too long, and there is still time to say so.
    pub fn is_late(&self) -> bool {
        self.is_late && self.unserved.is_some() && self.refusals_left > 0
    }

    /// It is refused; this is no part of its share.
    pub fn refuse(&mut self) {
        self.refusals_left -= 1;
        self.is_refused = true;
    }

    /// Whether what was heard last was refused.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.is_refused)
    }

    /// The one that is served has been heard up to here.
    pub fn heard(&mut self, bytes: usize) {
        if let Some(unserved) = &mut self.unserved {
            unserved.bytes = unserved.bytes.saturating_sub(bytes);
        }
        self.unserved = self.unserved.filter(|unserved| unserved.bytes > 0);
    }

    /// Whether it has had its share, or the turn is used up.
    pub fn is_used_up(&self) -> bool {
        self.is_over(self.is_long) || self.must_stand || self.paid >= self.share
    }

    /// After what was carried out; this ends what may be refused in this turn, so that nothing but refusals
    /// goes beyond the share.
    pub fn pay(&mut self, cost: Cost) {
        self.is_late = false;
        let awaited = if cost.awaited > SHORT_ANSWER_BYTES { cost.awaited } else { 0 };
        let bytes = (cost.bytes + awaited) * COMMAND / BYTES_PER_COMMAND;
        let in_all = COMMAND + bytes + cost.search_steps * COMMAND / STEPS_PER_COMMAND;
        self.paid += in_all;
        if self.is_long {
            self.long_left -= (in_all * BYTES_PER_COMMAND / COMMAND) as i64;
        }
        let of_all = match cost.awaited > LONG_ANSWER_BYTES {
            true => self.note_long(cost.awaited).min(in_all),
            false => in_all,
        };
        self.left = self.left.saturating_sub(if self.is_long { 0 } else { of_all });
    }

    /// Returns what a long answer takes of the turn for all: of the first one of a client nobody could know.
    fn note_long(&mut self, bytes: usize) -> usize {
        if !self.is_long {
            self.long_left -= bytes as i64;
        }
        self.long_asked.extend(self.serving);
        FIRST_LONG_ANSWER * COMMAND
    }

    /// Whether it has done so lately.
    fn asks_for_long_answers(&mut self, conn: ConnId, now: Instant) -> bool {
        let Some(asked) = self.long_asked.get(&conn) else { return false };
        let is_lately = now.saturating_duration_since(*asked) < LATELY;
        if !is_lately {
            self.long_asked.remove(&conn);
        }
        is_lately
    }

    /// It has said more than it was served, by so many bytes.
    pub fn stand(&mut self, conn: ConnId, bytes: usize, now: Instant) {
        let is_long = self.asks_for_long_answers(conn, now);
        let unserved = self.unserved.take().unwrap_or(Unserved { since: now, bytes, is_long });
        if self.members.insert(conn, Unserved { is_long, ..unserved }).is_none() {
            self.long_members += usize::from(is_long);
            let line = if is_long { &mut self.long_waiting } else { &mut self.waiting };
            line.push_back(conn);
        }
    }

    pub fn has(&self, conn: ConnId) -> bool {
        self.members.contains_key(&conn)
    }

    /// Whoever is next, as long as there is something left of the turn. Each comes once if it is called no more
    /// often than there are clients in line at first.
    pub fn next(&mut self) -> Option<ConnId> {
        self.next_of(false)
    }

    /// The same of those who wait for long answers.
    pub fn next_long(&mut self) -> Option<ConnId> {
        self.next_of(true)
    }

    fn next_of(&mut self, is_long: bool) -> Option<ConnId> {
        while !self.is_over(is_long) {
            let line = if is_long { &mut self.long_waiting } else { &mut self.waiting };
            let conn = line.pop_front()?;
            if self.take_out(conn) {
                return Some(conn);
            }
        }
        None
    }

    /// Whether nothing is left of the turn for all, or of what is for long answers.
    fn is_over(&self, is_long: bool) -> bool {
        if is_long { self.long_left <= 0 } else { self.left == 0 }
    }

    fn take_out(&mut self, conn: ConnId) -> bool {
        let taken = self.members.remove(&conn);
        self.long_members -= usize::from(taken.is_some_and(|unserved| unserved.is_long));
        self.taken = taken.map(|unserved| (conn, unserved));
        taken.is_some()
    }

    /// Without those who wait for long answers.
    pub fn len(&self) -> usize {
        self.members.len() - self.long_members
    }

    pub fn long_len(&self) -> usize {
        self.long_members
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn forget(&mut self, conn: ConnId) {
        self.take_out(conn);
        self.taken = None;
        self.long_asked.remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ConnId;

    fn served(line: &mut Line, conn: ConnId, commands: usize) -> usize {
        let now = Instant::now();
        line.begin(conn, now);
        let mut done = 0;
        while done < commands && !line.is_used_up() {
            line.pay(Cost::default());
            done += 1;
        }
        if done < commands {
            line.stand(conn, commands - done, now);
        }
        done
    }

    fn conns(count: u32) -> Vec<ConnId> {
        (0..count).map(ConnId::for_test).collect()
    }

    #[test]
    fn one_that_says_very_much_gets_its_share_and_the_others_are_served_in_the_same_turn() {
        let mut line = Line::default();
        let conns = conns(64);
        line.begin_turn();
        assert_eq!(served(&mut line, conns[0], 10_000), COMMANDS_PER_TURN / 2);
        for conn in &conns[1..] {
            assert_eq!(served(&mut line, *conn, 1), 1, "half of the turn is the others'");
        }
        assert!(line.has(conns[0]));
        assert_eq!(line.len(), 1);
    }

    #[test]
    fn many_that_say_much_are_served_in_turns() {
        let mut line = Line::default();
        let conns = conns(50);
        let mut done = vec![0; conns.len()];
        line.begin_turn();
        conns.iter().for_each(|conn| line.stand(*conn, 1, Instant::now()));
        for _ in 0..100 {
            line.begin_turn();
            let mut in_turn = 0;
            for _ in 0..line.len() {
                let Some(conn) = line.next() else { break };
                let at = conns.iter().position(|other| *other == conn).expect("one of them");
                let taken = served(&mut line, conn, 10_000);
                assert!(taken <= SHARE_MIN);
                done[at] += taken;
                in_turn += taken;
            }
            assert_eq!(in_turn, COMMANDS_PER_TURN);
        }
        let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
        assert!(most - least <= SHARE_MIN, "{least} to {most}");
    }

    #[test]
    fn what_is_long_costs_more_than_what_is_short() {
        let mut line = Line::default();
        for cost in [
            Cost { bytes: COMMANDS_PER_TURN * BYTES_PER_COMMAND, ..Cost::default() },
            Cost { search_steps: COMMANDS_PER_TURN * STEPS_PER_COMMAND, ..Cost::default() },
        ] {
            line.begin_turn();
            line.begin(ConnId::for_test(0), Instant::now());
            line.pay(cost);
            assert!(line.is_used_up(), "{cost:?}");
        }
    }

    /// Those who wait for long answers are served, each asking for one; returns how many were.
    fn long_turn(line: &mut Line, awaited: usize, now: Instant) -> usize {
        line.begin_turn();
        let mut served = 0;
        while let Some(conn) = line.next_long() {
            line.begin(conn, now);
            assert!(!line.is_used_up());
            line.pay(Cost { awaited, ..Cost::default() });
            line.stand(conn, 1, now);
            served += 1;
        }
        served
    }

    #[test]
    fn long_answers_have_a_line_and_a_part_of_the_turn_of_their_own() {
        let (mut line, now) = (Line::default(), Instant::now());
        let conns = conns(3);
        const LONG: usize = 2 * LONG_ANSWERS_PER_TURN;
        line.begin_turn();
        for conn in &conns {
            line.begin(*conn, now);
            line.pay(Cost { awaited: LONG, ..Cost::default() });
            assert!(line.is_used_up(), "it has had its share");
            line.stand(*conn, 1, now);
        }
        line.begin(ConnId::for_test(9), now);
        assert!(!line.is_used_up(), "others have the greater part of the same turn");
        assert_eq!((line.len(), line.long_len()), (0, 3), "they are in nobody's way");
        let turns: Vec<usize> = (0..12).map(|_| long_turn(&mut line, LONG, now)).collect();
        assert_eq!(
            turns,
            [0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1],
            "what was too much is lacking then"
        );
        assert_eq!(line.left, COMMANDS_PER_TURN * COMMAND);
    }

    #[test]
    fn who_has_asked_for_a_long_answer_lately_is_not_served_among_the_others() {
        let (mut line, now, conn) = (Line::default(), Instant::now(), ConnId::for_test(0));
        line.begin_turn();
        line.begin(conn, now);
        line.pay(Cost { awaited: LONG_ANSWER_BYTES + 1, ..Cost::default() });
        line.begin(conn, now + LATELY / 2);
        assert!(line.is_used_up(), "it stands in line first");
        line.begin(conn, now + LATELY);
        assert!(!line.is_used_up(), "it is one of the others again");
    }

    #[test]
    fn who_has_gone_is_not_served() {
        let mut line = Line::default();
        let conns = conns(2);
        line.begin_turn();
        conns.iter().for_each(|conn| line.stand(*conn, 1, Instant::now()));
        line.forget(conns[0]);
        assert_eq!(line.len(), 1);
        assert_eq!(line.next(), Some(conns[1]));
        assert!(line.is_empty());
        assert_eq!(line.next(), None);
    }

    /// A turn in which one client has its turn at `now`, and then `unreached` others have not.
    fn turn(line: &mut Line, conn: ConnId, unreached: usize, now: Instant) {
        line.begin_turn();
        assert_eq!(line.next(), Some(conn));
        line.begin(conn, now);
        line.end_turn(unreached, now);
    }

    #[test]
    fn what_has_waited_for_long_is_refused_and_what_came_later_is_not() {
        let (mut line, conn, begun) = (Line::default(), ConnId::for_test(0), Instant::now());
        line.stand(conn, 100, begun);
        turn(&mut line, conn, 1, begun);
        assert!(!line.is_late(), "it has just come");
        line.stand(conn, 100, begun + LATE / 2);
        turn(&mut line, conn, 1, begun + LATE);
        assert!(line.is_late(), "having been served in between does not make the rest younger");
        line.heard(99);
        assert!(line.is_late());
        line.heard(1);
        assert!(!line.is_late(), "this came later");
        line.stand(conn, 100, begun + LATE);
        turn(&mut line, conn, 1, begun + LATE + LATE / 2);
        assert!(!line.is_late());
    }

    #[test]
    fn who_only_asks_for_much_is_not_refused_as_long_as_every_turn_reaches_all() {
        let (mut line, conn, begun) = (Line::default(), ConnId::for_test(0), Instant::now());
        line.stand(conn, 100, begun);
        turn(&mut line, conn, 0, begun + LATE);
        assert!(!line.is_late());
        line.stand(conn, 100, begun + LATE);
        turn(&mut line, conn, 1, begun + LATE);
        line.stand(conn, 100, begun + LATE);
        turn(&mut line, conn, 0, begun + 2 * LATE);
        assert!(line.is_late(), "for so long not all were reached");
        line.stand(conn, 100, begun + 2 * LATE);
        turn(&mut line, conn, 0, begun + 3 * LATE);
        assert!(!line.is_late(), "all were reached in the turn before");
    }

    #[test]
    fn saying_no_is_a_limited_part_of_a_turn() {
        let (mut line, conn, begun) = (Line::default(), ConnId::for_test(0), Instant::now());
        line.stand(conn, usize::MAX, begun);
        line.end_turn(1, begun);
        turn(&mut line, conn, 1, begun + LATE);
        let mut refused = 0;
        while line.is_late() {
            line.refuse();
            assert!(line.take_refused());
            line.heard(1);
            refused += 1;
        }
        assert_eq!(refused, REFUSALS_PER_TURN);
        assert!(!line.is_used_up(), "it still has its share");
        line.stand(conn, 1, begun);
        turn(&mut line, conn, 1, begun + LATE);
        assert!(line.is_late());
        line.pay(Cost::default());
        assert!(!line.is_late(), "what is carried out goes by shares");
    }
}
