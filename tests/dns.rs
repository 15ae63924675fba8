//! The look-up of names: the pure machine, with a clock and packets made here. `dns_sockets.rs` drives it over
//! real sockets.

use proptest::prelude::*;
use proptest::sample::Index;
use raftkv::net::dns::{ADDRESSES_MAX, SEARCH_DOMAINS_MAX};
use raftkv::net::dns::{Hosts, Lookup, ResolvConf, Step, literal};
use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn server(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 53)
}

/// A look-up with its clock, and what it sent and nobody answered yet.
struct Bench {
    lookup: Lookup,
    now: Instant,
    sent: Vec<(SocketAddr, Vec<u8>)>,
}

impl Bench {
    fn new(host: &str, conf: &str) -> Bench {
        let lookup = Lookup::new(host, &ResolvConf::parse(conf), &Hosts::default(), 7);
        Bench { lookup, now: Instant::now(), sent: Vec::new() }
    }

    /// Polls until the machine waits or ends.
    fn poll(&mut self) -> Step {
        loop {
            match self.lookup.poll(self.now) {
                Step::Send { server, packet } => self.sent.push((server, packet)),
                step => return step,
            }
        }
    }

    /// What is being asked now: full name, kind, server.
    fn asked(&mut self) -> Vec<(String, QTYPE, SocketAddr)> {
        self.poll();
        let question = |(server, packet): &(SocketAddr, Vec<u8>)| {
            let packet = Packet::parse(packet).unwrap();
            (packet.questions[0].qname.to_string(), packet.questions[0].qtype, *server)
        };
        self.sent.iter().map(question).collect()
    }

    /// Answers every question that is out, with what `answer` makes of it.
    fn answer(&mut self, answer: impl Fn(&mut Packet, QTYPE)) -> Step {
        self.poll();
        for (server, query) in std::mem::take(&mut self.sent) {
            self.lookup.on_packet(server, &reply(&query, &answer), self.now);
        }
        self.poll()
    }

    fn let_time_out(&mut self) -> Step {
        let Step::WaitUntil(until) = self.poll() else { panic!("nothing to wait for") };
        self.now = until;
        self.sent.clear();
        self.poll()
    }
}

fn reply(query: &[u8], answer: impl Fn(&mut Packet, QTYPE)) -> Vec<u8> {
    let mut packet = Packet::parse(query).unwrap().into_reply();
    let qtype = packet.questions[0].qtype;
    answer(&mut packet, qtype);
    packet.build_bytes_vec_compressed().unwrap()
}

/// Adds a record to an answer; without an owner it belongs to the name asked for.
fn record(packet: &mut Packet, owner: Option<&'static str>, data: RData<'static>) {
    let name = match owner {
        Some(owner) => Name::new(owner).unwrap(),
        None => packet.questions[0].qname.clone().into_owned(),
    };
    packet.answers.push(ResourceRecord::new(name, CLASS::IN, 5, data).into_owned());
}

fn address(text: &str) -> RData<'static> {
    match ip(text) {
        IpAddr::V4(ip) => RData::A(A::from(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA::from(ip)),
    }
}

fn alias(target: &'static str) -> RData<'static> {
    RData::CNAME(CNAME(Name::new(target).unwrap()))
}

fn is_a(qtype: QTYPE) -> bool {
    qtype == QTYPE::TYPE(TYPE::A)
}

/// Answers A questions with an address, and AAAA questions with nothing.
fn with_a(text: &'static str) -> impl Fn(&mut Packet, QTYPE) {
    move |packet, qtype| {
        if is_a(qtype) {
            record(packet, None, address(text));
        }
    }
}

fn no_such_name(packet: &mut Packet, _: QTYPE) {
    *packet.rcode_mut() = RCODE::NameError;
}

/// The names asked for, in order, when none of them exists.
fn names_tried(host: &str, conf: &str) -> Vec<String> {
    let mut bench = Bench::new(host, conf);
    let mut names = Vec::new();
    loop {
        let asked = bench.asked();
        names.extend(asked.first().map(|(name, ..)| name.clone()));
        if let Step::Failed(_) = bench.answer(no_such_name) {
            return names;
        }
    }
}

const KUBERNETES: &str = "\
search default.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.0.0.10
options ndots:5
";

#[test]
fn resolv_conf_is_read_and_its_oddities_are_skipped() {
    let conf = ResolvConf::parse(
        "# comment\nnameserver 10.0.0.10 ; comment\nnameserver not-an-address\nnameserver ::1\n\
         domain a.example\nsearch b.example. c.example\nnameserver 127.0.0.1:5353\n\
         nameserver 10.0.0.13\noptions ndots:5 timeout:3 attempts:4 edns0 ndots:x\n\
         sortlist 1.2.3.4\n\nnameserver",
    );
    let servers = ["10.0.0.10:53", "[::1]:53", "127.0.0.1:5353"].map(|text| text.parse().unwrap());
    assert_eq!(conf.nameservers, servers);
    assert_eq!(conf.search, ["b.example", "c.example"]);
    assert_eq!((conf.ndots, conf.timeout, conf.attempts), (5, Duration::from_secs(3), 4));
}

#[test]
fn resolv_conf_has_defaults_and_limits() {
    let conf = ResolvConf::parse("");
    assert_eq!(conf.nameservers, [server("127.0.0.1")]);
    assert_eq!((conf.ndots, conf.timeout, conf.attempts), (1, Duration::from_secs(1), 2));
    let conf = ResolvConf::parse("options ndots:99 timeout:0 attempts:999999999999");
    assert_eq!((conf.ndots, conf.timeout, conf.attempts), (15, Duration::from_secs(1), 5));
    let conf = ResolvConf::parse(&format!("search {}", "d.example ".repeat(100)));
    assert_eq!(conf.search.len(), SEARCH_DOMAINS_MAX);
}

#[test]
fn an_address_needs_no_server() {
    assert_eq!(literal("[::1]"), Some(ip("::1")));
    assert_eq!(literal("raft-0"), None);
    assert_eq!(literal("127.1"), None);
    for host in ["10.1.2.3", "::1", "[::1]"] {
        let address = literal(host).unwrap();
        assert_eq!(Bench::new(host, "").poll(), Step::Done(vec![address]));
    }
}

#[test]
fn hosts_come_before_servers() {
    let text = "10.9.9.9 Raft-0.raft-service raft-0 # us\nfe80::1%lo x\nbad raft-0\n::9 raft-0";
    let (hosts, now) = (Hosts::parse(text), Instant::now());
    for host in ["raft-0", "RAFT-0", "raft-0."] {
        let step = Lookup::new(host, &ResolvConf::default(), &hosts, 1).poll(now);
        assert_eq!(step, Step::Done(ips(&["10.9.9.9", "::9"])), "{host}");
    }
    for host in ["localhost", "x.localhost."] {
        let step = Lookup::new(host, &ResolvConf::default(), &hosts, 1).poll(now);
        assert_eq!(step, Step::Done(ips(&["127.0.0.1", "::1"])), "{host}");
    }
}

#[test]
fn what_is_no_host_name_is_never_asked_for() {
    let label = format!("{}.example", "a".repeat(64));
    let name = "a.".repeat(130);
    for host in ["", ".", "a..b", "a b", "a\0b", "ñ", "[::1", "[a]", &label, &name] {
        assert!(matches!(Bench::new(host, KUBERNETES).poll(), Step::Failed(_)), "{host:?}");
    }
}

#[test]
fn fewer_dots_than_ndots_search_first() {
    assert_eq!(
        names_tried("raft-0.raft-service", KUBERNETES),
        [
            "raft-0.raft-service.default.svc.cluster.local",
            "raft-0.raft-service.svc.cluster.local",
            "raft-0.raft-service.cluster.local",
            "raft-0.raft-service",
        ]
    );
}

#[test]
fn enough_dots_or_a_search_domain_at_the_end_ask_for_the_full_name_first() {
    let full = "raft-0.raft-service.default.svc.cluster.local";
    assert_eq!(names_tried(full, KUBERNETES)[0], full);
    let many_dots = KUBERNETES.replace("ndots:5", "ndots:15");
    assert_eq!(names_tried(full, &many_dots)[0], full);
    assert_eq!(names_tried("a.b", "search x\nnameserver 10.0.0.10"), ["a.b", "a.b.x"]);
}

#[test]
fn a_trailing_dot_means_only_that_name() {
    assert_eq!(names_tried("raft-0.raft-service.", KUBERNETES), ["raft-0.raft-service"]);
}

#[test]
fn both_kinds_are_asked_at_once_and_ipv4_comes_first() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    let kinds: Vec<QTYPE> = bench.asked().iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, [QTYPE::TYPE(TYPE::A), QTYPE::TYPE(TYPE::AAAA)]);
    let step = bench.answer(|packet, qtype| {
        let two = if is_a(qtype) { ["10.1.1.2", "10.1.1.1"] } else { ["fd00::2", "fd00::2"] };
        two.into_iter().for_each(|text| record(packet, None, address(text)));
    });
    assert_eq!(step, Step::Done(ips(&["10.1.1.2", "10.1.1.1", "fd00::2"])));
}

#[test]
fn more_addresses_than_the_limit_are_cut() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    let step = bench.answer(|packet, _| {
        for last in 0..40_u8 {
            record(packet, None, RData::A(A::from(std::net::Ipv4Addr::new(10, 0, 0, last))));
        }
    });
    let Step::Done(addresses) = step else { panic!("{step:?}") };
    assert_eq!(addresses.len(), ADDRESSES_MAX);
}

#[test]
fn a_missing_second_answer_is_waited_for_only_shortly() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    bench.poll();
    let (from, query) = bench.sent.remove(0);
    bench.lookup.on_packet(from, &reply(&query, with_a("10.1.1.1")), bench.now);
    let Step::WaitUntil(until) = bench.poll() else { panic!("the other answer may still come") };
    assert!(until - bench.now < Duration::from_millis(200));
    bench.now = until;
    assert_eq!(bench.poll(), Step::Done(ips(&["10.1.1.1"])));
}

#[test]
fn no_such_name_and_no_address_go_on_to_the_next_name() {
    let mut bench = Bench::new("raft-0", "search a.example b.example\nnameserver 10.0.0.10");
    assert!(matches!(bench.answer(no_such_name), Step::WaitUntil(_)));
    assert_eq!(bench.asked()[0].0, "raft-0.b.example");
    assert!(matches!(bench.answer(|_, _| ()), Step::WaitUntil(_)), "an empty answer ends nothing");
    assert_eq!(bench.asked()[0].0, "raft-0");
    assert_eq!(bench.answer(with_a("10.1.1.1")), Step::Done(ips(&["10.1.1.1"])));
}

#[test]
fn a_failure_names_what_was_tried_and_what_came_of_it() {
    let mut bench = Bench::new("raft-0", "search a.example\nnameserver 10.0.0.10");
    bench.answer(no_such_name);
    let Step::Failed(reason) = bench.answer(|_, _| ()) else { panic!("nothing left to ask") };
    assert_eq!(reason, "raft-0.a.example: no such name; raft-0: no address");
}

#[test]
fn a_server_that_fails_hands_over_to_the_next_one() {
    for code in [RCODE::ServerFailure, RCODE::Refused, RCODE::NotImplemented] {
        let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10\nnameserver 10.0.0.11");
        let step = bench.answer(|packet, _| *packet.rcode_mut() = code);
        assert!(matches!(step, Step::WaitUntil(_)));
        assert!(bench.asked().iter().all(|(_, _, asked)| *asked == server("10.0.0.11")));
        assert!(bench.lookup.trouble().is_some());
        assert_eq!(bench.answer(with_a("10.1.1.1")), Step::Done(ips(&["10.1.1.1"])));
    }
}

#[test]
fn servers_that_all_fail_do_not_hide_the_next_name() {
    let conf = "search a.example\nnameserver 10.0.0.10\noptions attempts:2";
    let mut bench = Bench::new("raft-0", conf);
    for _ in 0..2 {
        bench.answer(|packet, _| *packet.rcode_mut() = RCODE::ServerFailure);
    }
    assert_eq!(bench.asked()[0].0, "raft-0");
    let Step::Failed(reason) = bench.answer(no_such_name) else { panic!("nothing left to ask") };
    assert!(reason.contains("raft-0.a.example: 10.0.0.10:53 answered SERVFAIL"), "{reason}");
}

#[test]
fn silence_goes_round_the_servers_and_then_fails_the_whole_look_up() {
    let conf =
        "search a b c\nnameserver 10.0.0.10\nnameserver 10.0.0.11\noptions attempts:2 timeout:1";
    let mut bench = Bench::new("raft-0", conf);
    let began = bench.now;
    let mut asked = Vec::new();
    let reason = loop {
        asked.push(bench.asked()[0].2);
        match bench.let_time_out() {
            Step::Failed(reason) => break reason,
            step => assert!(matches!(step, Step::WaitUntil(_))),
        }
    };
    let (one, other) = (server("10.0.0.10"), server("10.0.0.11"));
    assert_eq!(asked, [one, other, one, other]);
    assert_eq!(bench.now - began, Duration::from_secs(4));
    assert_eq!(reason, "raft-0: no answer from 10.0.0.11:53");
}

#[test]
fn an_unreachable_server_is_left_at_once() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10\nnameserver 10.0.0.11");
    bench.poll();
    bench.sent.clear();
    bench.lookup.on_unreachable(server("10.0.0.10"), "connection refused");
    assert!(bench.asked().iter().all(|(_, _, asked)| *asked == server("10.0.0.11")));
    assert_eq!(bench.sent.len(), 2);
}

#[test]
fn a_late_answer_of_a_slow_server_still_counts() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10\nnameserver 10.0.0.11");
    bench.poll();
    let late = std::mem::take(&mut bench.sent);
    bench.let_time_out();
    for (from, query) in late {
        bench.lookup.on_packet(from, &reply(&query, with_a("10.1.1.1")), bench.now);
    }
    assert_eq!(bench.poll(), Step::Done(ips(&["10.1.1.1"])));
}

#[test]
fn an_answer_counts_only_with_our_id_question_and_server() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    bench.poll();
    let (from, query) = bench.sent[0].clone();
    let good = reply(&query, with_a("10.6.6.6"));
    let changed = |at: usize, bits: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= bits;
        bytes
    };
    // Header 12 bytes, then 2db7example0, then two bytes each of kind and class.
    let forgeries = [
        (from, changed(1, 1), "another id"),
        (from, changed(2, 0x80), "a question, not an answer"),
        (from, changed(13, 1), "another name"),
        (from, changed(25, 0x1d), "another kind"),
        (SocketAddr::new(ip("10.0.0.10"), 54), good.clone(), "another port"),
        (server("10.0.0.66"), good.clone(), "another server"),
        (from, good[..good.len() - 1].to_vec(), "cut short"),
    ];
    for (from, bytes, what) in forgeries {
        bench.lookup.on_packet(from, &bytes, bench.now);
        let time_out = bench.now + Duration::from_secs(1);
        assert_eq!(bench.poll(), Step::WaitUntil(time_out), "{what}");
    }
    assert_eq!(bench.answer(with_a("10.1.1.1")), Step::Done(ips(&["10.1.1.1"])));
}

#[test]
fn ids_differ_from_packet_to_packet() {
    let mut ids = Vec::new();
    for seed in 0..8 {
        let conf = ResolvConf::default();
        let mut lookup = Lookup::new("db.example.", &conf, &Hosts::default(), seed);
        while let Step::Send { packet, .. } = lookup.poll(Instant::now()) {
            ids.push((packet[0], packet[1]));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 12, "{ids:?}");
}

#[test]
fn aliases_are_followed_and_other_names_are_not_believed() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    let step = bench.answer(|packet, qtype| {
        if is_a(qtype) {
            record(packet, Some("evil.example"), address("10.6.6.6"));
            record(packet, Some("Two.example"), address("10.1.1.1"));
            record(packet, Some("one.example"), alias("two.EXAMPLE"));
            record(packet, None, alias("one.example"));
        }
    });
    assert_eq!(step, Step::Done(ips(&["10.1.1.1"])));
}

#[test]
fn a_circle_of_aliases_ends() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    let step = bench.answer(|packet, _| {
        record(packet, None, alias("one.example"));
        record(packet, Some("one.example"), alias("db.example"));
    });
    assert_eq!(step, Step::Failed("db.example: no address".into()));
}

#[test]
fn a_truncated_answer_is_used_as_far_as_it_goes() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    let step = bench.answer(|packet, qtype| {
        packet.set_flags(PacketFlag::TRUNCATION);
        with_a("10.1.1.1")(packet, qtype);
    });
    assert_eq!(step, Step::Done(ips(&["10.1.1.1"])));
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    let step = bench.answer(|packet, _| packet.set_flags(PacketFlag::TRUNCATION));
    assert_eq!(step, Step::Failed("db.example: the answer is too long for one packet".into()));
}

#[test]
fn counts_beyond_the_packet_are_ignored() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    bench.poll();
    let (from, query) = bench.sent[0].clone();
    let mut bytes = reply(&query, with_a("10.6.6.6"));
    bytes[6..12].fill(0xff);
    bench.lookup.on_packet(from, &bytes, bench.now);
    assert_eq!(bench.answer(with_a("10.1.1.1")), Step::Done(ips(&["10.1.1.1"])));
}

/// A good answer with an alias, with some of its bytes changed and its end cut off. The id stays, or the
/// packet would not even be looked at.
fn damaged(query: &[u8], changes: &[(Index, u8)], cut: usize) -> Vec<u8> {
    let mut bytes = reply(query, |packet, qtype| {
        record(packet, None, alias("one.example"));
        let text = if is_a(qtype) { "10.1.1.1" } else { "::1" };
        record(packet, Some("one.example"), address(text));
    });
    for (index, byte) in changes {
        let at = 2 + index.index(bytes.len() - 2);
        bytes[at] = *byte;
    }
    bytes.truncate(bytes.len().saturating_sub(cut));
    bytes
}

/// Asks, as a dialer does, for so long: one look-up after the other, with this pause between them. Returns
/// how often a server was asked, and the longest look-up.
fn ask_in_vain(conf: &str, outage: Duration, pause: Duration) -> (usize, Duration) {
    let began = Instant::now();
    let (mut now, mut sent, mut longest) = (began, 0, Duration::ZERO);
    while now - began < outage {
        let mut lookup = Lookup::new("raft-0.a", &ResolvConf::parse(conf), &Hosts::default(), 7);
        let start = now;
        loop {
            match lookup.poll(now) {
                Step::Send { .. } => sent += 1,
                Step::WaitUntil(until) => now = until,
                Step::Failed(reason) => {
                    break assert!(reason.contains("no answer from"), "{reason}");
                }
                Step::Done(addresses) => panic!("nobody answered, and yet: {addresses:?}"),
            }
        }
        longest = longest.max(now - start);
        now += pause;
    }
    (sent, longest)
}

#[test]
fn a_resolver_that_is_down_for_a_minute_is_neither_flooded_nor_given_up() {
    let conf = "search a b c\nnameserver 10.0.0.10\nnameserver 10.0.0.11\n";
    let (sent, longest) = ask_in_vain(conf, Duration::from_secs(60), Duration::from_millis(500));
    // Two questions to two servers twice, in 4 s, then the pause: 14 look-ups begin within the minute.
    assert_eq!((sent, longest), (14 * 8, Duration::from_secs(4)));
    // The first look-up after it knows nothing of it.
    let mut bench = Bench::new("raft-0.a", conf);
    assert_eq!(bench.answer(with_a("10.1.1.1")), Step::Done(ips(&["10.1.1.1"])));
}

#[test]
fn a_resolver_that_comes_back_within_a_look_up_is_asked_again_by_it() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10\noptions attempts:2");
    assert!(matches!(bench.let_time_out(), Step::WaitUntil(_)));
    assert_eq!(bench.answer(with_a("10.1.1.1")), Step::Done(ips(&["10.1.1.1"])));
}

#[test]
fn a_name_with_addresses_of_one_kind_only_is_as_good() {
    for (a, aaaa) in [(Some("10.1.1.1"), None), (None, Some("fd00::1"))] {
        let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
        let step = bench.answer(|packet, qtype| {
            if let Some(text) = if is_a(qtype) { a } else { aaaa } {
                record(packet, None, address(text));
            }
        });
        assert_eq!(step, Step::Done(ips(&[a.or(aaaa).unwrap()])));
    }
}

/// What is wrong with the answer about one kind of address does not hide those of the other.
#[test]
fn trouble_with_one_kind_of_address_does_not_hide_the_other() {
    let troubles: [fn(&mut Packet); 3] = [
        |packet| *packet.rcode_mut() = RCODE::ServerFailure,
        |packet| *packet.rcode_mut() = RCODE::NotImplemented,
        |packet| packet.set_flags(PacketFlag::TRUNCATION),
    ];
    for trouble in troubles {
        for good_is_a in [true, false] {
            let text = if good_is_a { "10.1.1.1" } else { "fd00::1" };
            let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10\noptions attempts:1");
            let step = bench.answer(|packet, qtype| {
                if is_a(qtype) == good_is_a {
                    record(packet, None, address(text));
                } else {
                    trouble(packet);
                }
            });
            assert_eq!(step, Step::Done(ips(&[text])));
        }
    }
}

/// Some servers say "no such name" where they mean "no address of that kind".
#[test]
fn no_such_name_for_ipv6_does_not_hide_ipv4() {
    let mut bench = Bench::new("db.example.", "nameserver 10.0.0.10");
    let step = bench.answer(|packet, qtype| {
        if is_a(qtype) {
            record(packet, None, address("10.1.1.1"));
        } else {
            no_such_name(packet, qtype);
        }
    });
    assert_eq!(step, Step::Done(ips(&["10.1.1.1"])));
}

/// The whole name of a pod is asked for once, and its domains are not tried before it.
#[test]
fn a_full_name_in_kubernetes_takes_one_question_of_each_kind() {
    for full in [
        "raft-0.raft-service.default.svc.cluster.local.",
        "raft-0.raft-service.default.svc.cluster.local",
    ] {
        let mut bench = Bench::new(full, KUBERNETES);
        let names: Vec<String> = bench.asked().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, [full.trim_end_matches('.'); 2]);
        assert_eq!(bench.answer(with_a("10.1.1.1")), Step::Done(ips(&["10.1.1.1"])));
    }
}

/// Changed bytes, bytes cut off, and which of the two questions is answered.
type Damage = (Vec<(Index, u8)>, usize, bool);

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    prop::collection::vec((changes, 0..80_usize, any::<bool>()), 1..20)
}

proptest! {
    /// Whatever arrives, the machine neither panics nor forgets to wait for something.
    #[test]
    fn garbage_never_panics(
        damages in damages(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bench = Bench::new("raft-0", KUBERNETES);
        for (changes, cut, second) in damages {
            let Step::WaitUntil(until) = bench.poll() else { break };
            prop_assert!(until > bench.now);
            let (from, query) = bench.sent[bench.sent.len() - 1 - usize::from(second)].clone();
            bench.lookup.on_packet(from, &damaged(&query, &changes, cut), bench.now);
            let noise_with_id = [&query[..2], &noise].concat();
            bench.lookup.on_packet(from, &noise_with_id, bench.now);
            bench.lookup.on_packet(from, &noise, bench.now);
        }
    }

    #[test]
    fn any_text_is_a_resolv_conf_and_a_hosts_file(
        text in "\\PC*",
        lines in prop::collection::vec(
            "(nameserver|search|domain|options|127.0.0.1) ?[a-z0-9.: \\[\\]-]{0,30}",
            0..20,
        ),
    ) {
        for text in [text, lines.join("\n")] {
            let conf = ResolvConf::parse(&text);
            prop_assert!((1..=3).contains(&conf.nameservers.len()));
            prop_assert!(Hosts::parse(&text).get("no-such-host").is_empty());
        }
    }
}
