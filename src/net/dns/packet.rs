//! One DNS question as bytes, and what an answer to it says.
//!
//! The packet format is `simple-dns`'s business; whether a packet answers *our* question is decided here.

use simple_dns::rdata::RData;
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    header_buffer,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// CNAMEs followed inside one answer.
const ALIASES_MAX: usize = 16;
/// The shortest question and the shortest record, in bytes.
const QUESTION_MIN: usize = 5;
const RECORD_MIN: usize = 11;
const HEADER_LEN: usize = 12;

/// The kind of address that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

impl Kind {
    fn qtype(self) -> QTYPE {
        QTYPE::TYPE(match self {
            Kind::A => TYPE::A,
            Kind::Aaaa => TYPE::AAAA,
        })
    }
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// At least one.
    Addresses(Vec<IpAddr>),
    /// The name exists, but has no address of this kind.
    NoAddresses,
    /// NXDOMAIN.
    NoSuchName,
    /// The answer was too long for a packet, and what is left of it holds no address.
    Truncated,
    /// The server could not or would not say: its word for it.
    ServerFailed(&'static str),
}

/// The packet that asks for the addresses of `name`, or `None` if no packet can hold the name.
pub fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let name = Name::new(name).ok()?;
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(name, kind.qtype(), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// The query id of a packet, if it is long enough to have one.
pub fn id(bytes: &[u8]) -> Option<u16> {
    if bytes.len() < HEADER_LEN { None } else { header_buffer::id(bytes).ok() }
}

/// What these bytes say about the addresses of `name`. `None`: they are no answer to that question.
pub fn read_answer(bytes: &[u8], name: &str, kind: Kind) -> Option<Answer> {
    if !counts_are_plausible(bytes)? {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    let asked = Name::new(name).ok()?;
    let [question] = packet.questions.as_slice() else { return None };
    let ours = packet.has_flags(PacketFlag::RESPONSE)
        && packet.opcode() == OPCODE::StandardQuery
        && question.qtype == kind.qtype()
        && question.qclass == QCLASS::CLASS(CLASS::IN)
        && same_name(&question.qname, &asked);
    if !ours {
        return None;
    }
    Some(match packet.rcode() {
        RCODE::NoError => {
            let addresses = addresses(&packet.answers, &asked, kind);
            if !addresses.is_empty() {
                Answer::Addresses(addresses)
            } else if packet.has_flags(PacketFlag::TRUNCATION) {
                Answer::Truncated
            } else {
                Answer::NoAddresses
            }
        }
        RCODE::NameError => Answer::NoSuchName,
        RCODE::ServerFailure => Answer::ServerFailed("SERVFAIL"),
        RCODE::Refused => Answer::ServerFailed("REFUSED"),
        RCODE::FormatError => Answer::ServerFailed("FORMERR"),
        RCODE::NotImplemented => Answer::ServerFailed("NOTIMP"),
        _ => Answer::ServerFailed("an error"),
    })
}

/// Whether a packet of this length can hold what its header counts: memory is reserved by these numbers.
fn counts_are_plausible(bytes: &[u8]) -> Option<bool> {
    if bytes.len() < HEADER_LEN {
        return None;
    }
    let questions = usize::from(header_buffer::questions(bytes).ok()?);
    let records = usize::from(header_buffer::answers(bytes).ok()?)
        + usize::from(header_buffer::name_servers(bytes).ok()?)
        + usize::from(header_buffer::additional_records(bytes).ok()?);
    Some(HEADER_LEN + questions * QUESTION_MIN + records * RECORD_MIN <= bytes.len())
}

/// The addresses of `name` in an answer section, through its aliases. Records of other names do not count.
fn addresses(records: &[ResourceRecord], name: &Name, kind: Kind) -> Vec<IpAddr> {
    let mut owner = name;
    for _ in 0..ALIASES_MAX {
        let of_owner = || records.iter().filter(|record| same_name(&record.name, owner));
        let found: Vec<IpAddr> = of_owner().filter_map(|record| address(record, kind)).collect();
        if !found.is_empty() {
            return found;
        }
        let alias = of_owner().find_map(|record| match &record.rdata {
            RData::CNAME(target) => Some(&target.0),
            _ => None,
        });
        let Some(target) = alias else { break };
        owner = target;
    }
    Vec::new()
}

fn address(record: &ResourceRecord, kind: Kind) -> Option<IpAddr> {
    match (&record.rdata, kind) {
        (RData::A(a), Kind::A) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
        (RData::AAAA(aaaa), Kind::Aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
        _ => None,
    }
}

/// Names are compared without regard to case.
fn same_name(a: &Name, b: &Name) -> bool {
    let (a, b) = (a.get_labels(), b.get_labels());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.as_ref().eq_ignore_ascii_case(b.as_ref()))
}
