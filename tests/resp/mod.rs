//! A client of RESP, as small as can be, for tests with real processes.

use crate::processes::Cluster;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

pub struct Resp {
    stream: BufReader<TcpStream>,
}

/// What was answered, in words: `+OK`, `:1`, a bulk string as it is, `(nil)`, an aggregate in brackets.
pub type Said = String;

impl Resp {
    pub fn connect(cluster: &Cluster, node: usize) -> Self {
        Resp { stream: BufReader::new(cluster.connect(node)) }
    }

    pub fn send(&mut self, words: &[&str]) {
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(bytes.as_bytes()).expect("the node reads");
    }

    pub fn hear(&mut self) -> Said {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("the node answers");
        let line = line.trim_end();
        let number = || line[1..].parse::<i64>().expect("a number");
        match line.as_bytes().first() {
            Some(b'+' | b'-' | b':') => line.to_owned(),
            Some(b'_') => "(nil)".to_owned(),
            Some(b'$' | b'*') if number() == -1 => "(nil2)".to_owned(),
            Some(b'$' | b'=') => {
                let mut bytes = vec![0; number() as usize + 2];
                self.stream.read_exact(&mut bytes).expect("as long as it says");
                String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned()
            }
            Some(b'*') => self.hear_all('[', number(), ']'),
            // What was not asked for.
            Some(b'>') => format!(">{}", self.hear_all('[', number(), ']')),
            Some(b'%') => self.hear_all('{', 2 * number(), '}'),
            _ => panic!("not RESP: {line:?}"),
        }
    }

    fn hear_all(&mut self, open: char, count: i64, close: char) -> Said {
        let items: Vec<Said> = (0..count).map(|_| self.hear()).collect();
        format!("{open}{}{close}", items.join(" "))
    }

    pub fn ask(&mut self, line: &str) -> Said {
        self.send(&line.split(' ').collect::<Vec<_>>());
        self.hear()
    }

    /// As a person types it.
    pub fn send_line(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).expect("the node reads");
    }

    /// Says that nothing more will be asked.
    pub fn shut_sending(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// What the node says until it closes the connection.
    pub fn hear_all_text(&mut self) -> String {
        let mut text = Vec::new();
        self.stream.read_to_end(&mut text).expect("no error");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether the node has closed the connection, with nothing more to say.
    pub fn is_over(&mut self) -> bool {
        self.hear_all_text().is_empty()
    }

    /// Asks all of these, and compares.
    pub fn expect(&mut self, said: &[(&str, &str)]) {
        for (line, expected) in said {
            assert_eq!(self.ask(line), *expected, "{line}");
        }
    }
}
