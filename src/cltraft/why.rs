//! `cltraft why`: what is wrong, in the words of the nodes themselves.

use super::json::Object;
use super::status::Report;
use super::table::line;

/// Fields of a server's status: how much is wrong, and then what, the most important first.
const HEALTH: &str = "health";
const WHY: &str = "why_";

/// What one server says.
struct Words<'a> {
    health: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Words<'a> {
    /// A server of another version may not say anything.
    fn of(report: &'a Report) -> Result<Self, &'a str> {
        let fields = report.answer.as_ref().map_err(String::as_str)?;
        let health = fields.iter().find(|(name, _)| name == HEALTH);
        let (_, health) = health.ok_or("it does not say how it is")?;
        let lines = fields.iter().filter(|(name, _)| name.starts_with(WHY));
        Ok(Words { health, lines: lines.map(|(_, value)| value.as_str()).collect() })
    }
}

/// Each server with its words below it.
pub fn text(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        let (health, lines) = match Words::of(report) {
            Ok(words) => (words.health, words.lines),
            Err(reason) => ("unreachable", vec![reason]),
        };
        text.push_str(&(line(&format!("{}: {health}", report.server)) + "\n"));
        lines.iter().for_each(|words| text.push_str(&(line(&format!("  {words}")) + "\n")));
    }
    text
}

pub fn json(reports: &[Report]) -> Object {
    let server = |report: &Report| {
        let object = Object::default().text("server", &report.server);
        match Words::of(report) {
            Ok(Words { health, lines }) => {
                let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
                object.text(HEALTH, health).texts("why", &lines)
            }
            Err(reason) => object.text("error", reason),
        }
    };
    Object::default().objects("servers", reports.iter().map(server))
}

/// Whether every server answers, and says that nothing is wrong.
pub fn is_well(reports: &[Report]) -> bool {
    reports.iter().all(|report| Words::of(report).is_ok_and(|words| words.health == "ok"))
}
